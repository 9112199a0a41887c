"""metrics.jsonl: the metrics of a run, one line for each logged step."""

import json
import math
from pathlib import Path

from course_utils.base.durable import disk_errors, flush_file, write_whole

Record = dict[str, float]  # one line of metrics.jsonl


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
