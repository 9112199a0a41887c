"""What is saved is loaded as it was; what is damaged, foreign or hostile is not loaded at all."""

import copy
import json
import pickle
import random
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from toy_training import in_processes, toy_model, toy_trainer, trace, train

from course_utils.base.errors import CourseError
from course_utils.training.engines.weights import load_weights, save_weights
from course_utils.training.storage import rng, snapshots
from course_utils.training.storage.checkpoint import load_run

# ------------------------------------------------------------------ damage


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    settings: dict[str, Any] = {"dropout": 0.3, "save_every": 2, "eval_every": 2}
    train(tmp_path, name="whole", steps=8, **settings)
    train(tmp_path, steps=6, **settings)
    weights = tmp_path / "toy" / "checkpoints" / "step-00000006" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 4
    weights.write_bytes(content)
    capsys.readouterr()
    train(tmp_path, steps=8, progress="auto", **settings)
    out = capsys.readouterr().out
    assert "step-00000006/model.safetensors was changed after it was written" in out
    assert "resuming from step-00000004" in out
    assert trace(tmp_path / "toy") == trace(tmp_path / "whole")


def test_no_intact_checkpoint_is_an_error_and_nothing_is_lost(tmp_path: Path) -> None:
    train(tmp_path, save_every=3)
    for version in snapshots.versions(tmp_path / "toy" / "checkpoints"):
        (version / "optimizer.pt").write_bytes(b"")
    before = trace(tmp_path / "toy")
    with pytest.raises(
        CourseError,
        match=r"(?s)is intact: .*6.*; .*3.*start from the beginning with resume='never'",
    ):
        train(tmp_path)
    assert trace(tmp_path / "toy") == before


def train_wide(runs: Path, width: int, name: str, steps: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3))
    settings = {"save_every": 2, "eval_every": 2, "log_every": 2}
    train(runs, model=model, name=name, steps=steps, **settings)


def fill_the_disk(runs: Path, width: int, limit: int) -> None:
    """No file may grow beyond `limit` bytes: real failing writes, in Python and in libraries."""
    train_wide(runs, width, "toy", steps=2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        train_wide(runs, width, "toy", steps=6)
    except CourseError as error:
        print(f"told: {error}")


@pytest.mark.parametrize(
    ("full_at", "width", "limit"),
    [("model.safetensors", 400, 5000), ("optimizer.pt", 400, 20000), ("generators.pt", 8, 9000)],
)
def test_a_full_disk_is_told_and_leaves_the_last_checkpoint(
    tmp_path: Path, full_at: str, width: int, limit: int
) -> None:
    ended = in_processes(fill_the_disk, tmp_path, width, limit, log=tmp_path / "log")
    assert ended.code == 0, ended.output
    assert "told: Could not save step 4 in" in ended.output
    assert "MB are free there" in ended.output
    assert "\nstep-00000002 is intact. Free disk space, then resume the run" in ended.output
    checkpoints = tmp_path / "toy" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000002"]
    sizes = {path.name: path.stat().st_size for path in (checkpoints / "step-00000002").iterdir()}
    order = ["model.safetensors", "optimizer.pt", "generators.pt"]
    assert next(name for name in order if sizes[name] > limit) == full_at
    train_wide(tmp_path, width, "toy", steps=6)
    train_wide(tmp_path, width, "whole", steps=6)
    assert trace(tmp_path / "toy") == trace(tmp_path / "whole")


def fail_on_the_main_process(runs: Path) -> None:
    def write(*arguments: Any, **options: Any) -> Path:
        raise OSError(28, "No space left on device")

    snapshots.write = write
    try:
        train(runs)
    except CourseError as error:
        print(f"told: {error}")


def test_all_processes_hear_of_a_full_disk(tmp_path: Path) -> None:
    ended = in_processes(fail_on_the_main_process, tmp_path, count=2, log=tmp_path / "log")
    assert ended.codes == [0, 0], ended.output
    assert ended.output.count("told: Could not save step 6") == 2


# ------------------------------------------------------------------ strict loading


class Tied(nn.Module):
    """Input and output embedding are one, as in GPT-2."""

    def __init__(self, vocab: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, 4)
        self.head = nn.Linear(4, vocab, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("count", torch.tensor(7))


def test_weights_come_back(tmp_path: Path) -> None:
    model, path = Tied(), tmp_path / "w.safetensors"
    save_weights(model, path)
    assert set(load_file(path)) == {"embedding.weight", "count"}, "tied weights are written once"
    other = Tied()
    other.count.zero_()
    load_weights(other, path)
    assert torch.equal(other.head.weight, model.head.weight)
    assert other.head.weight is other.embedding.weight
    assert other.count == 7


def test_who_may_read_the_folder_may_read_the_weights(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o755)
    save_weights(toy_model(), tmp_path / "shared" / "w.safetensors")
    assert (tmp_path / "shared" / "w.safetensors").stat().st_mode & 0o777 == 0o644


def test_memory_layout_does_not_matter(tmp_path: Path) -> None:
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    save_weights(model, tmp_path / "w.safetensors")
    other = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    load_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(other.weight, model.weight)
    assert other.weight.stride() == model.weight.stride()


def test_what_is_frozen_is_left_out_and_stays_as_it_is(tmp_path: Path) -> None:
    model, path = Tied(), tmp_path / "w.safetensors"
    model.add = nn.Linear(4, 4)
    model.embedding.requires_grad_(False)
    model.quantized = nn.Module()
    model.quantized.frozen_state = True
    model.quantized.register_buffer("codes", torch.arange(9))
    save_weights(model, path)
    assert set(load_file(path)) == {"add.weight", "add.bias", "count"}
    other = copy.deepcopy(model)
    for tensor in other.state_dict().values():
        tensor.zero_()
    load_weights(other, path)
    assert torch.equal(other.add.weight, model.add.weight) and other.count == 7
    assert not other.embedding.weight.any() and not other.quantized.codes.any()
    other.embedding.requires_grad_(True)  # then its weights are part of the run
    with pytest.raises(CourseError, match=r"no weights for embedding\.weight"):
        load_weights(other, path)


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (lambda: nn.Sequential(*toy_model(), nn.Linear(3, 3)), "no weights for 4.weight"),
        (lambda: toy_model()[:1], r"has weights for 3\.\w+, which this model lacks"),
        (
            lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Tanh(), nn.Linear(9, 3)),
            r"0.weight with shape \[8, 6\]; this model's is \[9, 6\]",
        ),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path: Path, other: Any, complaint: str) -> None:
    save_weights(toy_model(), tmp_path / "w.safetensors")
    model = other()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(CourseError, match=complaint):
        load_weights(model, tmp_path / "w.safetensors")
    assert all(map(torch.equal, model.parameters(), before)), "half of it was loaded"


def test_a_run_of_another_model_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0), nn.Linear(8, 3, bias=False))
    optimizer = torch.optim.AdamW([*model.parameters(), nn.Parameter(torch.zeros(3))], lr=0.05)
    with pytest.raises(CourseError, match=r"has weights for 3.bias, which this model lacks"):
        train(tmp_path, model=model, optimizer=optimizer)


def test_load_run(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path)
    trainer.train()
    model = toy_model()
    assert load_run(model, tmp_path / "toy") == 6
    assert all(map(torch.equal, model.parameters(), trainer.model.parameters()))
    with pytest.raises(CourseError, match="none has no intact checkpoint"):
        load_run(model, tmp_path / "none")


# ------------------------------------------------------------------ hostile and odd content


class Hostile:
    def __reduce__(self) -> tuple:
        return print, ("code ran while loading",)


@pytest.mark.parametrize("name", ["optimizer.pt", "generators.pt"])
def test_loading_runs_no_code(tmp_path: Path, name: str, capfd: pytest.CaptureFixture) -> None:
    train(tmp_path)
    version = tmp_path / "toy" / "checkpoints" / "step-00000006"
    torch.save(Hostile(), version / name)
    manifest = json.loads((version / snapshots.MANIFEST).read_text())
    manifest[name] = {
        "bytes": (version / name).stat().st_size,
        "sha256": snapshots._sha256(version / name),
    }
    (version / snapshots.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(pickle.UnpicklingError):
        train(tmp_path, steps=8)
    assert "code ran" not in capfd.readouterr().out


def test_a_state_that_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    class Odd(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            super().step(closure)
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["history"] = {"of": Path("somewhere")}

    model = toy_model()
    with pytest.raises(
        CourseError, match=r"optimizer\['state'\]\[0\]\['history'\]\['of'\] is a Posix"
    ):
        train(tmp_path, model=model, optimizer=Odd(model.parameters(), lr=0.1))


# ------------------------------------------------------------------ random numbers


def draw() -> tuple[float, float, Tensor]:
    return random.random(), np.random.random(), torch.rand(2)


def test_generators_come_back(tmp_path: Path) -> None:
    rng.seed_everything(3, 0)
    torch.save(rng.capture(), tmp_path / "state.pt")
    first = draw()
    rng.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    second = draw()
    assert first[:2] == second[:2]
    assert torch.equal(first[2], second[2])
    with rng.preserved():
        draw()
    third = draw()
    rng.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    draw()
    fourth = draw()
    assert third[:2] == fourth[:2]
    assert torch.equal(third[2], fourth[2])


def test_processes_draw_numbers_of_their_own() -> None:
    drawn = []
    for process in (0, 1):
        rng.seed_everything(3, process)
        drawn.append(draw())
    assert all(a != b for a, b in zip(drawn[0][:2], drawn[1][:2], strict=True))
    assert not torch.equal(drawn[0][2], drawn[1][2])


def test_a_run_that_is_refused_keeps_its_files(tmp_path: Path) -> None:
    """Another tokenizer beside the old weights would be read without an error."""

    def trainer(text: str, seed: int) -> Any:
        one = toy_trainer(tmp_path, seed=seed, resume="auto")
        one._files = {"tokenizer.json": text}
        return one

    trainer("ours", seed=0).train()
    with pytest.raises(CourseError, match="seed"):
        trainer("another", seed=1).train()
    assert (tmp_path / "toy" / "tokenizer.json").read_text() == "ours"
