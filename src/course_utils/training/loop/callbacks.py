"""Hooks into the training loop: pictures that grow while a model learns, and experiments."""

from typing import Any, Protocol

import torch
from torch import nn

from course_utils.training.config import TrainConfig
from course_utils.training.storage.run_folder import Record


class RunningTrainer(Protocol):
    """What a callback may use of the trainer that calls it.

    Attributes:
        is_main: Whether this process is rank 0, which writes the files.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    task: Any
    config: TrainConfig
    device: torch.device
    is_main: bool

    def measure(self) -> Record:
        """Evaluate now; every rank has to call it."""

    def request_stop(self, reason: str) -> None:
        """End the run after this step, with a checkpoint."""


class Callback:
    """Called by the trainer on every process; override what is needed.

    `step` counts finished optimiser steps, from 1. A callback may read everything of the trainer
    (`trainer.model`, `trainer.optimizer`, `trainer.device`, `trainer.is_main`) and end the run with
    `trainer.request_stop("why")`. It must not draw from torch's global random numbers, or the run
    with it would differ from the run without it.
    """

    def on_start(self, trainer: RunningTrainer, step: int) -> None:
        """Before the first step, and before the first one after a restart, when `step` are done."""

    def on_step(self, trainer: RunningTrainer, step: int) -> None:
        """After the optimiser's update; the gradients it used are still in `parameter.grad`."""

    def on_log(self, trainer: RunningTrainer, record: Record) -> None:
        """After a line was written to metrics.jsonl; `record` is that line."""

    def on_eval(self, trainer: RunningTrainer, step: int, metrics: Record) -> None:
        """After an evaluation, before its line is written; `metrics` holds the val_* numbers."""


class StopAfter(Callback):
    """Ends the run after so many steps, as a machine does that is needed elsewhere."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step(self, trainer: RunningTrainer, step: int) -> None:
        if step == self._steps:
            trainer.request_stop("it was asked to stop here")
