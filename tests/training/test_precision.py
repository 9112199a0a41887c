"""Each way to train for less computes what the plain run computes, within what it promises."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_training import in_processes, toy_model, toy_trainer, trace, train

from course_utils.base.errors import CourseError
from course_utils.base.measure import peak_megabytes
from course_utils.models.gpt import GPT, PRESETS
from course_utils.training.config import TrainConfig
from course_utils.training.engines import precision
from course_utils.training.engines.precision import check_precision
from course_utils.training.loop.callbacks import Callback
from course_utils.training.loop.cpu_attention import StoredScores
from course_utils.training.loop.recompute import recomputing
from course_utils.training.loop.trainer import Trainer
from course_utils.training.parts.data_order import global_batch, part_of

SHAPE = replace(PRESETS["nano"], vocab=64, d_model=32, n_layers=3, n_heads=2, n_kv_heads=1,
                head_dim=16, d_ff=64, context=32)  # fmt: skip


class Counting:
    """Rows of tokens that count on by the row's own step."""

    unit, batch_size = "tokens", 8

    def __init__(self) -> None:
        steps = torch.randint(1, 5, (256, 1), generator=torch.Generator().manual_seed(0))
        self.rows = (steps * torch.arange(33)) % 64

    def batch(self, step: int, part: int, parts: int) -> dict[str, torch.Tensor]:
        rows = self.rows[part_of(global_batch(step, 8, 256, seed=0), part, parts)]
        return {"tokens": rows[:, :-1], "targets": rows[:, 1:]}

    def count(self, batch: dict[str, torch.Tensor]) -> int:
        return batch["targets"].numel()

    def loss(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with StoredScores():
            return model(**batch)

    def evaluate(self, model: torch.nn.Module) -> dict[str, float]:
        rows = self.rows[:16]
        return {"val_loss": model(rows[:, :-1], targets=rows[:, 1:]).item() / rows[:, 1:].numel()}


def run(runs: Path, name: str, *, dropout: float = 0.0, steps: int = 8, **settings: Any) -> list:
    """The lines of metrics of a short training of a tiny GPT."""
    torch.manual_seed(0)
    model = GPT(replace(SHAPE, dropout=dropout))
    config = TrainConfig(
        name=name, steps=steps, batch_size=8, log_every=1, clip=1.0, progress="off",
        runs_dir=runs, **settings,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    Trainer(model, optimizer, lambda step: 1.0, Counting(), config).train()
    assert "forward" not in vars(model.blocks[0]) and "forward" not in vars(model)
    return [{k: v for k, v in line.items() if k != "tokens_per_s"} for line in trace(runs / name)]


def column(lines: list[dict], name: str) -> list[float]:
    return [line[name] for line in lines]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        lines = run(tmp_path_factory.mktemp("runs"), "plain")
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.3, "it learns nothing: equality says nothing"
    return lines


def test_accumulation_equals_the_plain_run(tmp_path: Path, plain: list[dict]) -> None:
    lines = run(tmp_path, "parts", accumulation=4)
    assert column(lines, "loss") == pytest.approx(column(plain, "loss"), rel=1e-5)
    assert lines[-1]["val_loss"] == pytest.approx(plain[-1]["val_loss"], rel=1e-5)


def test_recomputing_equals_the_plain_run_bit_for_bit(tmp_path: Path, plain: list[dict]) -> None:
    assert run(tmp_path, "again", checkpoint_activations=True) == plain


@pytest.mark.parametrize("kind", ["no", "bf16"])
def test_recomputing_draws_the_same_dropout(tmp_path: Path, kind: Any) -> None:
    kept = run(tmp_path, "kept", dropout=0.3, precision=kind, steps=4)
    assert kept[0]["loss"] != run(tmp_path, "none", precision=kind, steps=1)[0]["loss"]
    again = run(
        tmp_path, "again", dropout=0.3, precision=kind, steps=4, checkpoint_activations=True
    )
    assert again == kept


def test_recomputing_with_accumulation_in_bf16(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"precision": "bf16", "accumulation": 2, "steps": 4}
    assert run(tmp_path, "kept", **settings) == run(
        tmp_path, "again", checkpoint_activations=True, **settings
    )


def test_recomputing_with_experts_and_packed_documents() -> None:
    """A mixture of experts hands its routing to the loss, past what the blocks return."""
    torch.manual_seed(0)
    model = GPT(replace(SHAPE, n_experts=4, top_k=2, balance=1.0)).train()
    tokens = torch.randint(64, (4, 32), generator=torch.Generator().manual_seed(0))
    documents = (torch.arange(32) // 8).expand(4, 32)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(tokens, targets=tokens.roll(-1, 1), documents=documents).backward()
        return [p.grad.clone() for p in model.parameters()]

    kept = gradients()
    with recomputing(model):
        again = gradients()
    assert all(map(torch.equal, kept, again))


def test_recomputing_needs_less_memory() -> None:
    model = GPT(replace(SHAPE, n_layers=6))
    tokens = torch.zeros(8, 32, dtype=torch.long)

    def step(parameters: list) -> None:
        model(tokens, targets=tokens).backward()
        model.zero_grad()

    kept = peak_megabytes(step, list(model.parameters()))
    with recomputing(model):
        again = peak_megabytes(step, list(model.parameters()))
    assert again < 0.5 * kept
    assert peak_megabytes(step, list(model.parameters())) == kept  # and afterwards as before


def test_recomputing_needs_blocks(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"an nn\.ModuleList named blocks; Sequential has none"):
        train(tmp_path, checkpoint_activations=True)


@pytest.mark.parametrize(("kind", "tolerance"), [("bf16", 2e-2), ("fp16", 3e-3)])
def test_16_bits_stay_close_to_the_plain_run(
    tmp_path: Path, plain: list[dict], kind: Any, tolerance: float
) -> None:
    lines = run(tmp_path, kind, precision=kind)
    losses = column(lines, "loss")
    assert losses == pytest.approx(column(plain, "loss"), rel=tolerance)
    assert losses != column(plain, "loss")


def test_compiled_and_recomputing_equals_the_plain_run(
    tmp_path: Path, plain: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captured as in every compilation; the code generator, which takes a minute, is left out:
    benchmarks/mixed_precision.py compares its losses."""
    compiled = []

    def capture(model: torch.nn.Module) -> None:
        compiled.append(model)
        model._compiled_call_impl = torch.compile(model._call_impl, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", capture)
    lines = run(tmp_path, "compiled", steps=2, compile=True, checkpoint_activations=True)
    assert compiled and column(lines, "loss") == pytest.approx(column(plain, "loss")[:2], rel=1e-4)


# --- fp16 on a CPU --------------------------------------------------------------------------------


def test_fp16_computes_in_fp16_and_scales_the_loss(tmp_path: Path) -> None:
    seen, model = set(), toy_model()
    model[0].register_forward_hook(lambda _, __, output: seen.add(output.dtype))
    train(tmp_path, model=model, precision="fp16")
    assert seen == {torch.float16} and {p.dtype for p in model.parameters()} == {torch.float32}
    lines = trace(tmp_path / "toy")
    assert column(lines, "loss_scale") == [2.0**16] * 6
    exact = tmp_path / "exact"
    train(exact, name="toy")
    assert "loss_scale" not in trace(exact / "toy")[0]
    norms = column(trace(exact / "toy"), "grad_norm")
    assert column(lines, "grad_norm") == pytest.approx(norms, rel=0.02)  # at their true size


class Explodes(Counting):
    """Every gradient of the first steps is infinite in fp16."""

    def loss(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return super().loss(model, batch) * self.blow_up

    blow_up = 1.0


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_leaves_the_step_out_and_halves_the_scale(tmp_path: Path, fused: bool) -> None:
    task = Explodes()
    task.blow_up = 2.0**16  # 2^32 with the scale: out of fp16's reach at first
    torch.manual_seed(0)
    model = GPT(SHAPE)
    before = [p.detach().clone() for p in model.parameters()]
    config = TrainConfig(name="x", steps=2, batch_size=8, log_every=1, progress="off",
                         precision="fp16", runs_dir=tmp_path)  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
    Trainer(model, optimizer, lambda step: 1.0, task, config).train()
    assert column(trace(tmp_path / "x"), "loss_scale") == [2.0**16, 2.0**15]
    assert all(map(torch.equal, before, model.parameters()))


def go_fp16(runs: Path, steps: int) -> None:
    train(runs, precision="fp16", steps=steps, save_every=2)


def test_the_scale_goes_on_after_a_restart(tmp_path: Path) -> None:
    class Shrink(Callback):
        def on_step(self, trainer: Any, step: int) -> None:
            if step == 1:
                scaler = trainer._accelerator.scaler
                scaler.load_state_dict(scaler.state_dict() | {"scale": 128.0})

    toy_trainer(tmp_path, precision="fp16", steps=3, callbacks=[Shrink()]).train()
    go_fp16(tmp_path, 6)
    assert column(trace(tmp_path / "toy"), "loss_scale") == [2.0**16] + [128.0] * 5


def test_two_processes_in_fp16_equal_one(tmp_path: Path) -> None:
    go_fp16(tmp_path / "one", 4)
    ended = in_processes(go_fp16, tmp_path / "two", 4, count=2, log=tmp_path / "log")
    assert ended.codes == [0, 0], ended.output
    one, two = (column(trace(tmp_path / n / "toy"), "loss") for n in ("one", "two"))
    assert two == pytest.approx(one, rel=2e-3)


# --- fp8 ------------------------------------------------------------------------------------------


def test_fp8_on_a_cpu_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"8\.9 or more .*; this device is a CPU: choose bf16"):
        toy_trainer(tmp_path, precision="fp8")


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")


def test_a_model_gets_its_own_layers_back(tmp_path: Path) -> None:
    """torchao puts subclasses of nn.Linear, with the same parameters, in the layers' places."""

    class Narrow(torch.nn.Linear):
        pass

    model = toy_model()
    own, parameters = list(model.modules()), list(model.parameters())
    with pytest.raises(KeyError), precision.own_layers_afterwards(model):
        for name in ("0", "3"):
            layer = model.get_submodule(name)
            narrow = Narrow(layer.in_features, layer.out_features)
            narrow.weight, narrow.bias = layer.weight, layer.bias
            model.set_submodule(name, narrow)
        raise KeyError
    assert all(a is b for a, b in zip(own, model.modules(), strict=True))
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))


def test_fp8_on_an_older_gpu_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, (8, 0))
    with pytest.raises(CourseError, match=r"this NVIDIA A100 has 8\.0: choose"):
        check_precision("fp8", torch.device("cuda"))


def test_fp8_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, (9, 0))
    monkeypatch.setattr(precision, "is_torchao_available", lambda: False)
    with pytest.raises(CourseError, match="pip install torchao"):
        check_precision("fp8", torch.device("cuda"))
    monkeypatch.setattr(precision, "is_torchao_available", lambda: True)
    check_precision("fp8", torch.device("cuda"))
