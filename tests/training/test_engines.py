"""One process, DDP, ZeRO and FSDP take the same steps, and go on from each other's checkpoints."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toy_training import Toy, in_processes, toy_trainer, trace

from course_utils.base.errors import CourseError
from course_utils.models import lora
from course_utils.models.gpt import GPT, GPTConfig
from course_utils.models.lora import LoRAConfig
from course_utils.models.quant import quantize_linears
from course_utils.training.loop.callbacks import Callback, StopAfter
from course_utils.training.parts.muon import MuonAdamW, muon_groups
from course_utils.training.storage.checkpoint import load_run

# The settings with which `accelerate launch` starts its processes.
LAUNCHED_WITH: dict[str, dict[str, str]] = {
    "ddp": {"ACCELERATE_USE_CPU": "true"},
    "fsdp": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
    **{
        f"zero{stage}": {
            "ACCELERATE_USE_DEEPSPEED": "true",
            "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage),
        }
        for stage in (1, 2, 3)
    },
}
SHAPE = GPTConfig(
    vocab=61, context=16, d_model=24, n_layers=2, n_heads=3, n_kv_heads=1, head_dim=8, d_ff=37
)


class Text(Toy):
    """Rows of tokens, some of which do not count, so that processes have different counts."""

    unit = "tokens"

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randint(0, SHAPE.vocab, (96, SHAPE.context), generator=generator)
        self.y = self.x.roll(-1, 1)
        self.y[::3, 5:] = -100

    def loss(self, model: Any, batch: Any) -> torch.Tensor:
        return model(batch[0], targets=batch[1])

    def evaluate(self, model: Any) -> dict[str, float]:
        rows = slice(0, 8)
        loss = model(self.x[rows], targets=self.y[rows])
        return {"val_loss": (loss / (self.y[rows] != -100).sum()).item()}


class Writes(Callback):
    """Does what only the main process does at evaluations: run the model by itself."""

    def on_eval(self, trainer: Any, step: int, metrics: dict) -> None:
        if trainer.is_main:
            trainer.model(torch.zeros(1, 3, dtype=torch.int64))


def gpt() -> GPT:
    torch.manual_seed(0)
    return GPT(SHAPE)


def train_gpt(runs: Path, name: str, **settings: Any) -> GPT:
    """With two groups, clipping, and parameters whose sizes two processes cannot share evenly."""
    model = gpt()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim == 1], "lr": 0.02},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01, weight_decay=0.0)
    settings = {"clip": 1.0, "eval_every": 3, "callbacks": [Writes()], **settings}
    schedule = {"schedule": lambda step: (step + 1) / 6}
    toy_trainer(
        runs, name=name, model=model, optimizer=optimizer, task=Text(), **schedule, **settings
    ).train()
    return model


def train_adapter(runs: Path, name: str, **settings: Any) -> None:
    """QLoRA: a checkpoint holds the adapter alone, without frozen weights and quantized ones."""
    model = gpt()
    quantize_linears(model, "nf4-channel", targets=("attention.*",))
    lora.inject(model, LoRAConfig(rank=2, targets=("attention.*",)))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    toy_trainer(
        runs, name=name, model=model, optimizer=optimizer, task=Text(), eval_every=3, **settings
    ).train()


def launched(engine: str) -> None:
    """Make this process believe that `accelerate launch` started it."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for settings in LAUNCHED_WITH.values():
        for name in settings:
            os.environ.pop(name, None)
    os.environ |= LAUNCHED_WITH[engine]


def train_under(runs: Path, engines: Sequence[str]) -> None:
    for engine in engines:
        launched(engine)
        model = train_gpt(runs, engine)
        # Afterwards the model is the caller's again, and what was saved.
        saved = gpt()
        load_run(saved, runs / engine)
        for (name, mine), theirs in zip(model.named_parameters(), saved.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, msg=name)
        assert model.output.weight is model.embedding.weight
        assert model(torch.zeros(1, 3, dtype=torch.int64)).shape == (1, 3, SHAPE.vocab)
        train_adapter(runs, f"{engine}-adapter", callbacks=[StopAfter(3)])
        train_adapter(runs, f"{engine}-adapter")


def go_on_under(runs: Path, stops: dict[str, int]) -> None:
    for engine, stop in stops.items():
        launched(engine)
        train_gpt(runs, "chain", callbacks=[StopAfter(stop)])


def weights(run: Path) -> list[torch.Tensor]:
    model = gpt()
    load_run(model, run)
    return list(model.parameters())


def assert_same_trace(run: Path, reference: Path) -> None:
    lines, expected = trace(run), trace(reference)
    for line, other in zip(lines, expected, strict=True):
        del line["tokens_per_s"], other["tokens_per_s"]
        assert line == pytest.approx(other, rel=1e-5)


def assert_same_run(run: Path, reference: Path) -> None:
    assert_same_trace(run, reference)
    # Closer than an update of Adam's, which turns the last digit of a gradient near 0 into a step.
    torch.testing.assert_close(weights(run), weights(reference), rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("one")
    assert in_processes(train_gpt, runs, "one", log=runs / "log").code == 0
    return runs / "one"


def test_accumulation_equals_one_batch(tmp_path: Path, one_process: Path) -> None:
    train_gpt(tmp_path, "accumulated", accumulation=4)
    assert_same_run(tmp_path / "accumulated", one_process)


@pytest.mark.slow
def test_every_engine_takes_the_steps_of_one_process(tmp_path: Path, one_process: Path) -> None:
    log, adapter = tmp_path / "log", tmp_path / "adapter"
    assert in_processes(train_adapter, tmp_path, "adapter", log=log).code == 0, log.read_text()
    for engines in (("ddp", "fsdp"), ("zero1", "zero2", "zero3")):
        ended = in_processes(train_under, tmp_path, engines, count=2, log=tmp_path / "log")
        assert ended.codes == [0, 0], ended.output
    for engine in LAUNCHED_WITH:
        assert_same_run(tmp_path / engine, one_process)
        assert_same_trace(tmp_path / f"{engine}-adapter", adapter)


@pytest.mark.slow
def test_a_run_goes_on_under_other_engines_and_process_counts(
    tmp_path: Path, one_process: Path
) -> None:
    """Two processes, one, two: the optimizer's state and the data position go along."""
    log = tmp_path / "log"
    ended = in_processes(go_on_under, tmp_path, {"zero3": 1, "zero2": 2}, count=2, log=log)
    assert ended.codes == [0, 0], ended.output
    alone = in_processes(go_on_under, tmp_path, {"ddp": 4}, count=1, log=log)
    assert alone.codes == [0], alone.output
    ended = in_processes(go_on_under, tmp_path, {"ddp": 5, "fsdp": 6}, count=2, log=log)
    assert ended.codes == [0, 0], ended.output
    assert_same_run(tmp_path / "chain", one_process)


class Writing(Toy):
    generates = True


def refusals_under(runs: Path, engine: str) -> None:
    launched(engine)
    model = gpt()
    muon = MuonAdamW(muon_groups(model, lr_muon=0.02, lr=0.01, weight_decay=0.0))
    with pytest.raises(CourseError, match="Muon needs whole matrices, and FSDP shards"):
        toy_trainer(runs, model=model, optimizer=muon, task=Text()).train()
    with pytest.raises(CourseError, match="--precision fp16 is not supported with FSDP"):
        toy_trainer(runs, precision="fp16").train()
    with pytest.raises(
        CourseError, match="Writing generates text during training, which needs all"
    ):
        toy_trainer(runs, task=Writing(), resume="never").train()


def test_what_does_not_go_with_split_weights_is_refused(tmp_path: Path) -> None:
    """And an earlier run of that name stays where it is."""
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "summary.json").touch()
    ended = in_processes(refusals_under, tmp_path, "fsdp", count=2, log=tmp_path / "log")
    assert ended.codes == [0, 0], ended.output
    assert [file.name for file in (tmp_path / "toy").iterdir()] == ["summary.json"]


class DeepSpeedCPUAdam:
    """Stands for DeepSpeed's own, which offloading puts in the place of AdamW."""

    def __init__(self) -> None:
        self.state: dict[torch.Tensor, dict[str, Any]] = {}


def test_an_offloaded_optimisers_count_is_a_number_there_and_a_tensor_in_files() -> None:
    from course_utils.training.engines.deepspeed import ZeroEngine

    engine, part = object.__new__(ZeroEngine), torch.zeros(3)
    engine._zero = SimpleNamespace(optimizer=DeepSpeedCPUAdam())
    engine._shards = lambda: [part]
    engine._make_state({"step": torch.tensor(7.0), "exp_avg": torch.ones(3)})
    state = engine._zero.optimizer.state[part]
    assert type(state["step"]) is int and state["step"] == 7
    assert torch.equal(state["exp_avg"], torch.zeros(3))
    shared = engine._common_state()
    assert list(shared) == ["step"] and torch.equal(shared["step"], torch.tensor(7.0))
