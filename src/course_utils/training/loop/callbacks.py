"""Callbacks: hooks that the training loop calls, for live plots and for experiments."""

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
        """Evaluate the model now; every rank must call this method."""

    def request_stop(self, reason: str) -> None:
        """End the run after this step, with a checkpoint."""


class Callback:
    """A base class: the trainer calls these methods on every rank; override the ones you need.

    `step` is the number of finished optimizer steps. A callback may read the trainer's attributes
    (`trainer.model`, `trainer.optimizer`, `trainer.device`, `trainer.is_main`) and may end the run
    with `trainer.request_stop("why")`. It must not draw from torch's global random number
    generator: the run would then differ from the same run without the callback.
    """

    def on_start(self, trainer: RunningTrainer, step: int) -> None:
        """Called before the first step, also after a resume; `step` steps are already finished."""

    def on_step(self, trainer: RunningTrainer, step: int) -> None:
        """Called after the optimizer's update; its gradients are still in `parameter.grad`."""

    def on_log(self, trainer: RunningTrainer, record: Record) -> None:
        """Called after a line was written to metrics.jsonl; `record` is that line."""

    def on_eval(self, trainer: RunningTrainer, step: int, metrics: Record) -> None:
        """Called after an evaluation, before its line is written; `metrics` has the val_* keys."""


class StopAfter(Callback):
    """Stops the run after `steps` steps, as the loss of a spot machine would."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step(self, trainer: RunningTrainer, step: int) -> None:
        if step == self._steps:
            trainer.request_stop("the callback StopAfter stops here")
