"""Measuring a model on held-out data without touching its training."""

import torch
from accelerate import Accelerator
from torch import nn

from course_utils.base.errors import CourseError
from course_utils.training.loop.task import Task
from course_utils.training.storage import rng
from course_utils.training.storage.run_folder import Record


def evaluate(task: Task, model: nn.Module, accelerator: Accelerator) -> Record:
    """The task's held-out numbers, every name beginning with `val_`.

    Evaluating leaves no trace: the model is in training mode afterwards, and the random numbers go
    on where they were, so that a run evaluated twice as often is the same run.

    Raises:
        CourseError: when the task returns no "val_loss".
    """
    model.eval()
    with rng.preserved(), torch.no_grad(), accelerator.autocast():
        measured = task.evaluate(model)
    model.train()
    if "val_loss" not in measured:
        raise CourseError(
            f'{type(task).__name__}.evaluate must return a "val_loss"; '
            f"it returned {sorted(measured) or 'nothing'}."
        )
    return {
        name if name.startswith("val_") else f"val_{name}": float(value)
        for name, value in measured.items()
    }
