"""Recorded metrics of runs that take too long for a lesson.

    python labs/lora.py --recipe lora-smollm2           minutes to hours, and runs/lora-smollm2/
    python -m course_utils.training.lab.recorded lora-smollm2
                                                        lessons/measured/lora-smollm2.json

A lesson shows the learner's own run if there is one, and otherwise the recorded metrics.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from course_utils.base.durable import write_whole
from course_utils.base.errors import CourseError
from course_utils.base.machine import read_cpu
from course_utils.base.paths import course_root, runs_dir
from course_utils.training.lab.before_after import FILE


@dataclass(frozen=True)
class Recorded:
    """The metrics of a run.

    Attributes:
        where: The machine, or that the run is your own.
        before: The evaluation metrics before the first step.
        rows: The lines of metrics.jsonl.
    """

    where: str
    before: dict[str, float]
    rows: list[dict[str, float]]

    @property
    def after(self) -> dict[str, float]:
        """The last evaluation metrics, by the names in `before`."""
        latest = {name: value for row in self.rows for name, value in row.items()}
        return {name: latest[name] for name in self.before}


def recorded(run: str) -> Recorded:
    """The learner's own finished run of this name, or else the one in lessons/measured.

    Raises:
        CourseError: when there is neither.
    """
    own = runs_dir() / run
    if (own / "summary.json").is_file() and (own / FILE).is_file():
        return _read(own, "your own run")
    path = course_root() / "lessons" / "measured" / f"{run}.json"
    try:
        return Recorded(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CourseError(f"{path} cannot be read: {error}") from None


def record(run: str) -> Path:
    """Write a finished run to lessons/measured.

    Raises:
        CourseError: when there is no such run, or it has not finished.
    """
    folder = runs_dir() / run
    if not (folder / "summary.json").is_file():
        raise CourseError(f"{folder} is not a finished run: finish it with its lab and --resume.")
    cpu = read_cpu()
    found = _read(folder, f"{cpu.cores} cores of an {cpu.model}")
    path = course_root() / "lessons" / "measured" / f"{run}.json"
    path.parent.mkdir(exist_ok=True)
    write_whole(path, json.dumps(asdict(found), indent=1) + "\n")
    return path


def _read(folder: Path, where: str) -> Recorded:
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("}")]
    return Recorded(where, json.loads((folder / FILE).read_text("utf-8")), rows)


if __name__ == "__main__":
    print(f"Written to {record(sys.argv[1])}.")
