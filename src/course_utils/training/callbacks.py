"""Hooks into the training loop: pictures that grow while a model learns, and experiments."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from course_utils.training.trainer import Trainer

Record = dict[str, float]  # one line of metrics.jsonl


class Callback:
    """Called by the trainer on every process; override what is needed.

    `step` counts finished optimiser steps, from 1. A callback may read everything of the trainer
    (`trainer.model`, `trainer.optimizer`, `trainer.device`, `trainer.is_main`) and end the run with
    `trainer.request_stop("why")`. It must not draw from torch's global random numbers, or the run
    with it would differ from the run without it.
    """

    def on_start(self, trainer: "Trainer", step: int) -> None:
        """Before the first step, and before the first one after a restart, when `step` are done."""

    def on_step(self, trainer: "Trainer", step: int) -> None:
        """After the optimiser's update; the gradients it used are still in `parameter.grad`."""

    def on_log(self, trainer: "Trainer", record: Record) -> None:
        """After a line was written to metrics.jsonl; `record` is that line."""

    def on_eval(self, trainer: "Trainer", step: int, metrics: Record) -> None:
        """After an evaluation, before its line is written; `metrics` holds the val_* numbers."""


class StopAfter(Callback):
    """Ends the run after so many steps, as a machine does that is needed elsewhere."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step(self, trainer: "Trainer", step: int) -> None:
        if step == self._steps:
            trainer.request_stop("it was asked to stop here")
