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

# These settings change what a run computes, as do the optimizer, the model and the data. All other
# settings (length, machine, logging) may be different when a run resumes.
DECISIVE = ("batch_size", "precision", "clip", "seed")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of a training run, besides its model, optimizer and task.

    Attributes:
        name: The run's folder below `runs_dir`.
        steps: Optimizer steps in the whole run, counted over restarts.
        batch_size: Examples per optimizer step, over all ranks. It belongs to the recipe; the
            number of ranks and `accumulation` only divide it into micro-batches.
        accumulation: Micro-batches per rank and step. Doubling it halves the memory for activations
            and gives the same gradient.
        precision: "no" computes in fp32; "bf16" and "fp16" under autocast, with the weights kept in
            fp32 (fp16 also scales the loss); "fp8" computes the blocks' matrix products in 8 bits,
            on GPUs that support it: see `engines.precision.check_precision`.
        clip: The maximum gradient norm; None does not clip. Pascanu et al. 2013, arXiv:1211.5063.
        eval_every: Steps between evaluations; None evaluates only at the end.
        save_every: Steps between checkpoints; None saves only at the end (and on stop).
        log_every: Steps between lines of metrics.jsonl. On a GPU, each line waits for its step.
        keep: How many of the newest checkpoints to keep.
        seed: The seed of all randomness in training except the data, whose seed is the task's.
        compile: Compile the model with `torch.compile`.
        checkpoint_activations: Discard the activations inside the model's `blocks` and recompute
            them in the backward pass: a fraction of the activation memory and the same gradients,
            for about a third more computation.
            Chen et al. 2016, arXiv:1604.06174.
        tracking: "wandb" also logs to Weights & Biases, offline unless WANDB_MODE says otherwise.
        resume: "auto" continues from the newest checkpoint, or starts from the beginning if there
            is none; "must" raises an error if there is none; "never" starts from the beginning and
            moves an older run of this name to .previous/.
        progress: "auto" shows a progress bar in terminals and notebooks, "bar" always shows it;
            "off" prints only warnings.
        runs_dir: The folder of all runs; None is `base.paths.runs_dir()`.

    Raises:
        CourseError: when a value is invalid; the message names the field and the valid values.
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
            self._refuse("clip", "a positive number, or None for no clipping")
        if not (isinstance(self.name, str) and re.fullmatch(r"\w[\w.-]*", self.name)):
            self._refuse("name", "a folder name of letters, digits, _, - and .")

    def parts(self, processes: int) -> int:
        """Micro-batches in a global batch: world size × accumulation.

        Raises:
            CourseError: when the batch size is not divisible by that number.
        """
        parts = processes * self.accumulation
        if self.batch_size % parts:
            near = max(parts, round(self.batch_size / parts) * parts)
            raise CourseError(
                f"batch_size={self.batch_size} is not divisible by {processes} process(es) × "
                f"accumulation {self.accumulation} = {parts}: use batch_size={near}."
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
