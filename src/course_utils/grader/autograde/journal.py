"""journal.jsonl: one line for each graded submission, written before anything else is made of it.

Lines are only ever added, and each is on the disk before the next submission is reported as done.
A machine that stops in the middle of a line costs that line and nothing else. Graded again, a
submission has a later line, which counts.
"""

import json
import os
from pathlib import Path
from types import TracebackType

from course_utils.base.durable import disk_errors
from course_utils.grader.autograde.records import SubmissionGrade, from_plain, to_plain


class Journal:
    """A journal to read and to add to; a context manager.

    Args:
        path: the file; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[tuple[str, str], SubmissionGrade] = {}
        self.damaged = 0
        whole = self._read()
        with disk_errors(f"write {path}"):
            self._file = path.open("ab")
            self._file.truncate(whole)
            os.fsync(self._file.fileno())

    def _read(self) -> int:
        """Read what is there; returns the bytes up to the last whole line."""
        if not self.path.exists():
            return 0
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        for line in data[:whole].split(b"\n")[:-1]:
            try:
                record = from_plain(json.loads(line))
            except (ValueError, RecursionError):
                self.damaged += 1
                continue
            self.records[record.student, record.lesson] = record
        return whole

    def add(self, record: SubmissionGrade) -> None:
        """Write one record; it is on the disk when this returns."""
        line = json.dumps(to_plain(record), ensure_ascii=True, separators=(",", ":"))
        with disk_errors(f"write {self.path}"):
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self.records[record.student, record.lesson] = record

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
