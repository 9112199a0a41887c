"""The settings of a training run."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from course_utils.base.errors import CourseError
from course_utils.base.paths import runs_dir

Precision = Literal["no", "bf16", "fp16", "fp8"]
Tracking = Literal["none", "wandb"]
Resume = Literal["auto", "never", "must"]
Progress = Literal["auto", "bar", "off"]

# What a run computes depends on these (and on the optimiser, the model, the data). The others say
# how long and on what machine it runs and how often it reports: it may change them on resume.
DECISIVE = ("batch_size", "precision", "clip", "seed")


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
            fp32 (fp16 also scales the loss); "fp8" multiplies the blocks' matrices in 8 bits, on
            GPUs that can: see `precision.check_precision`.
        clip: Largest norm of the gradient, or None. Pascanu et al. 2013, arXiv:1211.5063.
        eval_every: Steps between evaluations; None evaluates at the end only.
        save_every: Steps between checkpoints; None saves at the end only (and when stopped).
        log_every: Steps between lines of metrics.jsonl. On a GPU each line waits for the step.
        keep: Newest checkpoints that are kept.
        seed: Of everything random in training except the data, whose seed is the task's.
        compile: Compile the model with `torch.compile`.
        checkpoint_activations: Forget what the model's `blocks` computed, and compute it again on
            the way back: about a third more work, a fraction of the memory, the same gradients.
            Chen et al. 2016, arXiv:1604.06174.
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
    checkpoint_activations: bool = False
    tracking: Tracking = "none"
    resume: Resume = "auto"
    progress: Progress = "auto"
    runs_dir: Path | None = None

    def __post_init__(self) -> None:
        for field in ("steps", "batch_size", "accumulation", "log_every", "keep"):
            self._whole_number(field, least=1)
        for field in ("eval_every", "save_every"):
            if getattr(self, field) is not None:
                self._whole_number(field, least=1)
        self._whole_number("seed", least=0)
        for field, kind in (
            ("precision", Precision),
            ("tracking", Tracking),
            ("resume", Resume),
            ("progress", Progress),
        ):
            self._one_of(field, get_args(kind))
        for switch in ("compile", "checkpoint_activations"):
            self._one_of(switch, (True, False))
        if self.clip is not None and not (_is_number(self.clip) and self.clip > 0):
            self._refuse("clip", "a positive number, or None to leave gradients as they are")
        if not (isinstance(self.name, str) and re.fullmatch(r"\w[\w.-]*", self.name)):
            self._refuse("name", "a folder's name of letters, digits, _, - and .")

    def parts(self, processes: int) -> int:
        """Micro-batches in a global batch: processes × accumulation.

        Raises:
            CourseError: when the batch does not divide into that many.
        """
        parts = processes * self.accumulation
        if self.batch_size % parts:
            near = max(parts, round(self.batch_size / parts) * parts)
            raise CourseError(
                f"batch_size={self.batch_size} does not divide by {processes} process(es) × "
                f"accumulation {self.accumulation} = {parts}: batch_size={near} does."
            )
        return parts

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.runs_dir or runs_dir()).expanduser() / self.name

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for config.toml."""
        values = dataclasses.asdict(self)
        del values["runs_dir"]
        return values

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is computed; a resumed run must have equal ones."""
        return {name: getattr(self, name) for name in DECISIVE}

    def _whole_number(self, field: str, least: int) -> None:
        value = getattr(self, field)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self._refuse(field, f"a whole number of at least {least}")

    def _one_of(self, field: str, choices: tuple) -> None:
        if getattr(self, field) not in choices:
            self._refuse(field, "one of " + ", ".join(map(repr, choices)))

    def _refuse(self, field: str, wanted: str) -> None:
        raise CourseError(f"TrainConfig.{field} must be {wanted}; found {getattr(self, field)!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
