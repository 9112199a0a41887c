"""A run's folder: `runs/<name>/{config.toml, metrics.jsonl, checkpoints/, summary.json}`."""

import contextlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w

from course_utils.base.durable import disk_errors, flush_file, locked, write_whole
from course_utils.base.errors import CourseError

Record = dict[str, float]  # one line of metrics.jsonl

# The contents behind a name such as "my.txt" or "sft-nano" can change. These settings are
# fingerprints of the contents at the start of the run.
FINGERPRINTS = {
    "recipe.corpus": "other data",
    "recipe.base_weights": "other weights of its base",
    "recipe.teacher_weights": "other weights of its teacher",
}
# Older checkpoints lack these settings; they are not compared then.
NEWER = (*FINGERPRINTS, "recipe.max_documents")


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        folder: runs/<name>.
        step: The number of finished optimizer steps, including those before a resume.
        finished: Whether the run has taken all its steps; otherwise `reason` says why it stopped.
        metrics: The last line of metrics.jsonl (loss, val_loss, …).
        elapsed_s: Seconds of training in all, without evaluation and saving.
        checkpoint: The newest checkpoint.
    """

    folder: Path
    step: int
    finished: bool
    reason: str
    metrics: Record
    elapsed_s: float
    checkpoint: Path


class RunFolder:
    """The files of one run. Only rank 0 writes them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = MetricsFile(path / "metrics.jsonl")

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Lock the folder, so that no second run of the same name writes into it."""
        return locked(
            self.path.parent / ".locks" / self.path.name,
            busy=f"Run {self.path.name} is being trained by another process: "
            "stop that process, or choose another --name.",
        )

    def create(self) -> None:
        with disk_errors(f"create {self.checkpoints}"):
            self.checkpoints.mkdir(parents=True, exist_ok=True)

    def set_aside(self) -> Path | None:
        """Move an older run of this name to `.previous/`, replacing what is there.

        Returns:
            The new folder, or None when there was no older run.
        """
        if not self.path.exists():
            return None
        aside = self.path.parent / ".previous" / self.path.name
        with disk_errors(f"move {self.path} to {aside}"):
            if aside.exists():
                shutil.rmtree(aside)
            aside.parent.mkdir(exist_ok=True)
            self.path.rename(aside)
        return aside

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Write config.toml, and delete summary.json: the run is not finished."""
        (self.path / "summary.json").unlink(missing_ok=True)
        write_whole(self.path / "config.toml", as_toml(settings))

    def write_files(self, files: Mapping[str, str]) -> None:
        """Write texts by file name, each atomically."""
        for name, text in files.items():
            write_whole(self.path / name, text)

    def write_summary(self, summary: Summary) -> None:
        """Write summary.json, which marks a finished run."""
        text = json.dumps(asdict(summary), indent=1, default=str)
        write_whole(self.path / "summary.json", text + "\n")


def refuse_other_settings(
    saved: Mapping[str, Any], own: Mapping[str, Any], run: str, prefix: str = ""
) -> None:
    """Compare a checkpoint's nested settings with the current settings.

    Raises:
        CourseError: at the first different entry; the message has its name and both values.
    """
    for key in [*own, *(key for key in saved if key not in own)]:
        old, new, name = saved.get(key), own.get(key), f"{prefix}{key}"
        if name in NEWER and key not in saved:
            continue
        if isinstance(old, list) and isinstance(new, list):
            old, new = dict(enumerate(old)), dict(enumerate(new))
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            refuse_other_settings(old, new, run, f"{name}.")
        elif old != new and name in FINGERPRINTS:
            raise CourseError(
                f"Run {run} was started with {FINGERPRINTS[name]} under the same name ({name} was "
                f"{old}, now it is {new}). Restore them to resume that run. For a new run, choose "
                "another --name, or start without --resume (resume='never')."
            )
        elif old != new:
            raise CourseError(
                f"Run {run} was started with {name} = {old!r}; now it is {new!r}. Restore it to "
                "resume that run. For a new run, choose another --name, or start without --resume "
                "(resume='never')."
            )


class MetricsFile:
    """metrics.jsonl: one JSON object per line, appended during the run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_back(self, step: int) -> None:
        """Remove the lines after `step`: a run that resumes there writes them again.

        This also removes an incomplete line of a killed process.
        """
        kept = [line for line in self.read() if line["step"] <= step]
        write_whole(self.path, "".join(map(_line, kept)))

    def append(self, record: Record) -> None:
        """Append a line. It is written to the file at once, so a killed process loses no line."""
        with disk_errors(f"write {self.path}"), self.path.open("a", encoding="utf-8") as file:
            file.write(_line(record))

    def flush(self) -> None:
        """Wait until all lines are on the disk, so that no checkpoint is newer than the metrics."""
        with disk_errors(f"write {self.path}"):
            flush_file(self.path)

    def read(self) -> list[Record]:
        """All complete lines."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines() if _complete(line)]

    def last(self) -> Record:
        """The last complete line, or an empty one."""
        lines = self.read()
        return lines[-1] if lines else {}


def _line(record: Record) -> str:
    # JSON has no infinity, but the gradient norm is infinite when fp16 gradients overflow.
    values = {key: value if math.isfinite(value) else None for key, value in record.items()}
    return json.dumps(values) + "\n"


def _complete(line: str) -> bool:
    return line.startswith("{") and line.endswith("}")


def as_toml(settings: Mapping[str, Any]) -> str:
    """Settings as TOML text. Entries that are None are left out, as TOML has no null."""
    return tomli_w.dumps(_without_none(settings))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    return value
