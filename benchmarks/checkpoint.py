"""What saving costs a run, and how soon it goes on: the 26M model with AdamW (310 MB a checkpoint).

    python benchmarks/checkpoint.py            and results/checkpoint-….json
    python benchmarks/checkpoint.py --quick    one checkpoint, written nowhere

The pause is the time in which no step is taken: the copy into main memory. The file is written
beside the training. Going on counts from the call of `train()` in a new process to the first step's
end: finding the newest checkpoint, holding it to its hashes, loading it. Beside it, saving as
scripts do: `torch.save` of the same state while training waits, flushed to the disk.
"""

import contextlib
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measuring import Record, machine, quick_option
from torch import Tensor

from course_utils.models.gpt import GPT, PRESETS
from course_utils.training.config import TrainConfig
from course_utils.training.loop.callbacks import Callback
from course_utils.training.loop.trainer import Trainer
from course_utils.training.parts.muon import make_optimizer

PRESET, ROWS, SEQ, STEPS_BETWEEN = "minimind-26m", 1, 256, 8


class RandomText:
    """Random tokens: what is measured does not hang on what is learnt."""

    unit, batch_size = "tokens", ROWS

    def batch(self, step: int, part: int, parts: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        return torch.randint(PRESETS[PRESET].vocab, (ROWS, SEQ + 1), generator=generator)

    def count(self, batch: Tensor) -> int:
        return ROWS * SEQ

    def loss(self, model: Any, batch: Tensor) -> Tensor:
        return model(batch[:, :-1], targets=batch[:, 1:])

    def evaluate(self, model: Any) -> dict[str, float]:
        return {"val_loss": 0.0}


class Clock(Callback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step(self, trainer: Trainer, step: int) -> None:
        self.ends.append(time.perf_counter())


def trainer(runs: Path, steps: int, clock: Clock) -> Trainer:
    torch.manual_seed(0)
    model = GPT(PRESETS[PRESET])
    optimizer = make_optimizer(model, "adamw", lr=1e-4, lr_muon=0.01, weight_decay=0.1, beta2=0.95)
    config = TrainConfig(
        name="run", steps=steps, batch_size=ROWS, save_every=STEPS_BETWEEN, eval_every=None,
        log_every=10**6, progress="off", runs_dir=runs,
    )  # fmt: skip
    return Trainer(model, optimizer, lambda step: 1.0, RandomText(), config, callbacks=[clock])


def saving(runs: Path, saves: int) -> dict[str, Any]:
    """Seconds of every pause, and of a step while nothing is written."""
    clock, pauses = Clock(), []
    run = trainer(runs, STEPS_BETWEEN * (saves + 1), clock)
    save = run._save

    def timed() -> Path:
        began = time.perf_counter()
        try:
            return save()
        finally:
            pauses.append(time.perf_counter() - began)

    run._save = timed  # type: ignore[method-assign]
    run.train()
    steps = [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)]
    quiet = [s for i, s in enumerate(steps) if (i + 1) % STEPS_BETWEEN > STEPS_BETWEEN // 2]
    return {"pauses": pauses[:-1], "step": statistics.median(quiet)}


def blocking(runs: Path, saves: int) -> list[float]:
    """Seconds of `torch.save` with everything in it, flushed to the disk."""
    clock = Clock()
    run = trainer(runs, 1, clock)
    run.train()
    seconds = []
    for number in range(saves):
        began = time.perf_counter()
        with (runs / f"{number}.pt").open("wb") as file:
            torch.save(
                {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict()}, file
            )
            file.flush()
            os.fsync(file.fileno())
        seconds.append(time.perf_counter() - began)
    return seconds


def going_on(runs: Path) -> float:
    """Seconds to the first step's end, in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_go_on, (runs, torch.get_num_threads()))


def _go_on(runs: Path, threads: int) -> float:
    torch.set_num_threads(threads)
    clock = Clock()
    run = trainer(runs, 10**6, clock)
    began = time.perf_counter()

    class Enough(Callback):
        def on_step(self, trainer: Trainer, step: int) -> None:
            raise KeyboardInterrupt

    run.callbacks = [clock, Enough()]
    with contextlib.suppress(KeyboardInterrupt):
        run.train()
    return clock.ends[0] - began


def main() -> None:
    quick = quick_option(__doc__)
    record = Record("checkpoint", keep=not quick)
    saves = 1 if quick else 7
    with tempfile.TemporaryDirectory() as folder:
        ours = record("ours", lambda: saving(Path(folder) / "ours", saves))
        theirs = record("torch.save", lambda: blocking(Path(folder) / "plain", saves))
        resumed = record("going on", lambda: going_on(Path(folder) / "ours"))
    found = {
        "pause_s": statistics.median(ours["pauses"]),
        "longest_pause_s": max(ours["pauses"]),
        "torch_save_s": statistics.median(theirs),
        "going_on_s": resumed,
        "step_s": ours["step"],
        "megabytes": 3 * 4 * PRESETS[PRESET].n_parameters() / 1e6,
    }
    for name, value in found.items():
        print(f"{name}: {value:.3f}")
    record.finish(machine(), **found)


if __name__ == "__main__":
    main()
