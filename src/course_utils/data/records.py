"""Records from files of any usual format, one at a time, and an account of those that are no good.

    .txt           the file is one record (a string)
    .json          a list's items, or an object's values, each a record
    .jsonl         a record a line
    .parquet       a record a row

Lines and rows are read as they are asked for, so a file may be larger than the memory. A line that
is damaged costs that line: it is counted, remembered with its number, and the next one is read.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course_utils.base.errors import CourseError

SUFFIXES = (".txt", ".json", ".jsonl", ".parquet")


@dataclass
class Account:
    """What became of the records: how many were good, and which were not, and why.

    Attributes:
        good: Records that were used.
        malformed: Where each bad record is (`chats.jsonl line 7`) and what is wrong with it.
    """

    good: int = 0
    malformed: list[tuple[str, str]] = field(default_factory=list)

    def refuse(self, where: str, why: str) -> None:
        """Note a record that cannot be used."""
        self.malformed.append((where, why))

    def __str__(self) -> str:
        total = self.good + len(self.malformed)
        if not self.malformed:
            return f"{total:,} records, all well-formed"
        shown = [f"{where} ({why})" for where, why in self.malformed[:5]]
        more = len(self.malformed) - len(shown)
        rest = f", and {more:,} more" if more else ""
        return (
            f"{len(self.malformed):,} of {total:,} records are malformed and were left out: "
            + ", ".join(shown)
            + rest
        )


def read_records(path: Path, account: Account) -> Iterator[tuple[str, Any]]:
    """Every record of a file with where it stands; bad ones go into `account` instead.

    Raises:
        CourseError: when the file is missing, of an unknown kind, or not readable as a whole.
    """
    readers = {
        ".txt": _text,
        ".json": _json,
        ".jsonl": _json_lines,
        ".parquet": _parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise CourseError(f"{path} is none of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise CourseError(f"There is no file {path}.")
    try:
        yield from reader(path, account)
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(f"{path} cannot be read: {error}") from None


def _text(path: Path, account: Account) -> Iterator[tuple[str, Any]]:
    yield path.name, path.read_text("utf-8-sig")


def _json(path: Path, account: Account) -> Iterator[tuple[str, Any]]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise CourseError(f"{path} is no valid JSON: {error}") from None
    if isinstance(content, dict):
        content = list(content.values())
    if not isinstance(content, list):
        raise CourseError(f"{path} holds neither a JSON list nor an object of records.")
    for number, record in enumerate(content, start=1):
        yield f"{path.name} record {number}", record


def _json_lines(path: Path, account: Account) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path.name} line {number}"
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError:
                account.refuse(where, "not UTF-8")
            except ValueError as error:
                account.refuse(where, f"no JSON: {error}")
            else:
                yield where, record


def _parquet(path: Path, account: Account) -> Iterator[tuple[str, Any]]:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise CourseError(f"{path} is no parquet file: {error}") from None
    number = 0
    for batch in table.iter_batches():
        for record in batch.to_pylist():
            number += 1
            yield f"{path.name} row {number}", record
