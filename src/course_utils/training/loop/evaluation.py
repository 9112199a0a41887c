"""Evaluation of a model on held-out data, without any effect on its training."""

import torch
from accelerate import Accelerator
from torch import nn

from course_utils.base.errors import CourseError
from course_utils.training.loop.task import Task
from course_utils.training.storage import rng
from course_utils.training.storage.run_folder import Record


def evaluate(task: Task, model: nn.Module, accelerator: Accelerator) -> Record:
    """Return the task's metrics on held-out data; every name begins with `val_`.

    Afterwards the model is in training mode again, and the random number generators have the state
    that they had before. So the training does not depend on how often it is evaluated.

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
