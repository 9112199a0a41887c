"""The training loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from course_utils.training.callbacks import Callback, Record
from course_utils.training.config import TrainConfig
from course_utils.training.task import Task

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Summary:
    """What a run came to.

    Attributes:
        folder: runs/<name>.
        step: Optimiser steps taken, over restarts.
        finished: Whether that is all of them; otherwise `reason` says why it stopped.
        metrics: The last line of metrics.jsonl (loss, val_loss, …).
        elapsed_s: Seconds of training, without evaluation and saving, over restarts.
        checkpoint: The newest checkpoint.
    """

    folder: Path
    step: int
    finished: bool
    reason: str
    metrics: Record
    elapsed_s: float
    checkpoint: Path


class Trainer:
    """Trains a model on a task; one trainer runs once.

    Args:
        model: Any module; it is trained in place and stays usable, on the trainer's device.
        optimizer: Over the model's parameters. Its groups' `lr` are the base learning rates.
        schedule: Step (from 0) to the factor on the base learning rates.
        task: Data, loss and evaluation.
        config: The settings.
        recipe: Whatever else identifies the run (model size, augmentation, base weights), as
            nested dicts of TOML values: written to config.toml, and compared on resume.
        callbacks: Called in order.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    is_main: bool

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        task: Task,
        config: TrainConfig,
        *,
        recipe: Mapping[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        raise NotImplementedError

    def train(self) -> Summary:
        """Train to `config.steps`, from the newest checkpoint if there is one.

        Returns when finished, or stopped by a callback, or, in a notebook, by the stop button.
        A script that is interrupted or terminated exits with 130 or 143, after saving.
        """
        raise NotImplementedError

    def request_stop(self, reason: str) -> None:
        """End the run after this step, with a checkpoint; `train` returns with `finished` False."""
        raise NotImplementedError
