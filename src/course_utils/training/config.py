"""The settings of a training run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from course_utils.errors import CourseError
from course_utils.paths import runs_dir

Precision = Literal["no", "bf16", "fp16"]
Tracking = Literal["none", "wandb"]
Resume = Literal["auto", "never", "must"]
Progress = Literal["auto", "bar", "off"]

# A run that goes on may change these: they decide how long and on what machine it runs, how often
# it reports, and where to; the rest decides what is computed.
FREE_TO_CHANGE = frozenset(
    "name runs_dir steps accumulation compile eval_every save_every log_every keep "
    "tracking resume progress".split()
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train; what to train is in the model, the optimiser and the task.

    Attributes:
        name: The run's folder below `runs_dir`.
        steps: Optimiser steps in the whole run, counted over restarts.
        batch_size: Examples per optimiser step, over all processes. It belongs to the recipe; the
            machine decides how it is divided.
        accumulation: Micro-batches per process and step. Twice as many need half the memory and
            give the same gradient.
        precision: "no" computes in fp32; "bf16" and "fp16" under autocast, with the weights kept in
            fp32 (fp16 also scales the loss, and needs a GPU).
        clip: Largest norm of the gradient, or None. Pascanu et al. 2013, arXiv:1211.5063.
        eval_every: Steps between evaluations; None evaluates at the end only.
        save_every: Steps between checkpoints; None saves at the end only (and when stopped).
        log_every: Steps between lines of metrics.jsonl. On a GPU each line waits for the step.
        keep: Newest checkpoints that are kept.
        seed: Of everything random in training except the data, whose seed is the task's.
        compile: Compile the model with `torch.compile`.
        tracking: "wandb" logs there too, offline unless WANDB_MODE says otherwise.
        resume: "auto" goes on from the newest checkpoint or starts afresh; "must" insists on a
            checkpoint; "never" starts afresh and sets an older run of this name aside.
        progress: "auto" shows a bar in terminals and notebooks, "bar" always; "off" prints nothing
            but warnings.
        runs_dir: Folder of all runs; None is `paths.runs_dir()`.

    Raises:
        CourseError: when a value makes no sense; it names the field and what would.
    """

    name: str
    steps: int
    batch_size: int
    accumulation: int = 1
    precision: Precision = "no"
    clip: float | None = None
    eval_every: int | None = None
    save_every: int | None = None
    log_every: int = 10
    keep: int = 2
    seed: int = 0
    compile: bool = False
    tracking: Tracking = "none"
    resume: Resume = "auto"
    progress: Progress = "auto"
    runs_dir: Path | None = None
