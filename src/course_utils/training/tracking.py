"""Where a run's numbers go: metrics.jsonl always, Weights & Biases when wanted."""

import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from course_utils.training.callbacks import Record
from course_utils.training.durable import disk_errors, flush_file, write_whole


class MetricsFile:
    """metrics.jsonl: one JSON object a line, appended as the run goes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_back(self, step: int) -> None:
        """Keep the lines up to `step`: a run that goes on from there writes the later ones again.

        A line that a killed process left unfinished goes too.
        """
        kept = [line for line in self.read() if line["step"] <= step]
        write_whole(self.path, "".join(map(_line, kept)))

    def append(self, record: Record) -> None:
        """Add a line; it is in the operating system's hands before this returns, so that a killed
        process loses none."""
        with disk_errors(f"write {self.path}"), self.path.open("a", encoding="utf-8") as file:
            file.write(_line(record))

    def flush(self) -> None:
        """Wait until all lines are on the disk, so that no checkpoint is ahead of its trace."""
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


class Wandb:
    """A Weights & Biases run inside the run's folder, without network unless WANDB_MODE asks.

    Upload an offline one later with `wandb sync`. A run that is resumed keeps its id.
    """

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        import wandb  # half a second, and only for those who asked

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "course"),
            name=name,
            id=_lasting_id(folder / "wandb" / "course-run-id"),
            resume="allow",
            dir=folder,
            config=dict(settings),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            settings=wandb.Settings(silent=True, console="off", init_timeout=30),
        )

    def log(self, record: Record) -> None:
        self._run.log(record, step=int(record["step"]))

    def close(self) -> None:
        self._run.finish()


def _lasting_id(path: Path) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, secrets.token_hex(4))
    return path.read_text()


def _line(record: Record) -> str:
    # JSON has no infinity, and an fp16 step whose gradient overflowed has an infinite norm.
    values = {key: value if math.isfinite(value) else None for key, value in record.items()}
    return json.dumps(values) + "\n"


def _complete(line: str) -> bool:
    return line.startswith("{") and line.endswith("}")
