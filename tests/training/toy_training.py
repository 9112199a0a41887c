"""A training run small enough to be killed a hundred times, and the means to kill it."""

import json
import multiprocessing
import multiprocessing.connection
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.training.config import TrainConfig
from course_utils.training.loop import throughput
from course_utils.training.loop.callbacks import Callback
from course_utils.training.loop.trainer import Trainer
from course_utils.training.parts.data_order import global_batch, part_of
from course_utils.training.storage.run_folder import Summary

EXAMPLES, FEATURES, CLASSES, BATCH = 96, 6, 3, 8
TIMES = ("elapsed_s", "images_per_s", "mfu")  # what differs from run to run


class Toy:
    """Points of three classes; masked, some points have no label and every batch another count."""

    unit = "images"

    def __init__(self, masked: bool = False, batch_size: int = BATCH) -> None:
        generator = torch.Generator().manual_seed(0)
        self.batch_size = batch_size
        self.x = torch.randn(EXAMPLES, FEATURES, generator=generator)
        self.y = self.x[:, :CLASSES].argmax(1)
        if masked:
            self.y[torch.rand(EXAMPLES, generator=generator) < 0.4] = -100

    def batch(self, step: int, part: int, parts: int) -> tuple[Tensor, Tensor]:
        chosen = part_of(global_batch(step, self.batch_size, EXAMPLES, seed=1), part, parts)
        return self.x[chosen], self.y[chosen]

    def count(self, batch: tuple[Tensor, Tensor]) -> int:
        return int((batch[1] != -100).sum())

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        logits = model(self.x)
        kept = self.y != -100
        torch.rand(3)  # an evaluation that samples must not disturb the training
        return {
            "val_loss": F.cross_entropy(logits[kept], self.y[kept]).item(),
            "accuracy": (logits.argmax(1) == self.y)[kept].float().mean().item(),
        }


def toy_model(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(FEATURES, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, CLASSES)
    )


def toy_trainer(
    runs: Path,
    *,
    dropout: float = 0.0,
    masked: bool = False,
    lr: float = 0.05,
    model: nn.Module | None = None,
    task: Any = None,
    optimizer: torch.optim.Optimizer | None = None,
    schedule: Callable[[int], float] = lambda step: 1.0,
    callbacks: Sequence[Callback] = (),
    recipe: dict | None = None,
    **settings: Any,
) -> Trainer:
    model = model or toy_model(dropout)
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=lr)
    config = TrainConfig(
        **{
            "name": "toy",
            "steps": 6,
            "batch_size": BATCH,
            "log_every": 1,
            "progress": "off",
            "runs_dir": runs,
            **settings,
        }
    )
    return Trainer(
        model,
        optimizer,
        schedule,
        task or Toy(masked),
        config,
        recipe=recipe,
        callbacks=callbacks,
    )


def train(runs: Path, **settings: Any) -> Summary:
    return toy_trainer(runs, **settings).train()


def trace(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl without the times."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: line[key] for key in line if key not in TIMES} for line in lines]


# ------------------------------------------------------------------ other processes


@dataclass
class Ended:
    code: int  # of the first process; −9 when it was killed
    codes: list[int]
    output: str


_server = multiprocessing.get_context("forkserver")
# Imported once, then forked; torch._dynamo is imported by the first optimizer anyway.
_server.set_forkserver_preload(["course_utils.training.loop.trainer", "torch._dynamo"])


def in_processes(
    function: Callable[..., None],
    *arguments: Any,
    count: int = 1,
    log: Path,
    fall_together: bool = False,
) -> Ended:
    """Run `function(*arguments)` in new processes that make up one distributed run.

    Args:
        fall_together: When one fails, kill the others, as a launcher does.
    """
    port = _free_port()
    processes = [
        _server.Process(target=_child, args=(function, arguments, rank, count, port, log))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    running = {process.sentinel: process for process in processes}
    while fall_together and running:
        for sentinel in multiprocessing.connection.wait(running):
            if running.pop(sentinel).exitcode:
                for process in running.values():
                    process.kill()
    for process in processes:
        process.join(60)
        process.kill()  # if it hangs, or waits for one that was killed
        process.join()
    codes = [process.exitcode for process in processes]
    return Ended(codes[0], codes, log.read_text())


def _child(
    function: Callable[..., None],
    arguments: tuple,
    rank: int,
    count: int,
    port: int,
    log: Path,
) -> None:
    os.environ |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    if count > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    torch.set_num_threads(1)
    throughput.measured_peak = lambda device, dtype: 1e9  # type: ignore[assignment]
    function(*arguments)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
