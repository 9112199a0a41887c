"""Whether a folder holds a data set, exactly: every file by size and sha256.

Small files are hashed at every use, which takes milliseconds. For large ones the outcome is
remembered together with the file's size, modification time and inode, so that a set of hundreds of
megabytes is hashed once and again whenever anything touched it.
"""

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from course_utils.data.catalog import DataSet
from course_utils.data.files import FileEntry, install, problem_with

LARGE = 64 << 20
_STAMPS = ".verified.json"

State = Literal["ready", "missing", "damaged"]


@dataclass(frozen=True)
class Report:
    """What was found in one folder.

    Attributes:
        name: the data set.
        folder: where it was looked for.
        problems: what is wrong, by file name; empty when everything is exactly right.
        state: `ready`; `missing` when not one file is there; else `damaged`.
    """

    name: str
    folder: Path
    problems: dict[str, str]
    state: State

    @property
    def ok(self) -> bool:
        return self.state == "ready"


def inspect(dataset: DataSet, folder: Path, *, rehash: bool = False) -> Report:
    """Compare the files in `folder` with the catalogue.

    Args:
        rehash: read every byte again, also of large files that were verified before.
    """
    stamps = _read_stamps(folder)
    fresh: dict[str, list[int | str]] = {}
    problems: dict[str, str] = {}
    for entry in dataset.files:
        path = folder / entry.name
        stamp = _stamp(path, entry)
        if stamp is not None and stamps.get(entry.name) == stamp and not rehash:
            continue
        problem = problem_with(path, entry)
        if problem:
            problems[entry.name] = problem
        elif stamp is not None:
            fresh[entry.name] = stamp
    if fresh:
        _write_stamps(folder, stamps | fresh)
    return Report(dataset.name, folder, problems, _state(problems.values(), len(dataset.files)))


def _state(problems: Iterable[str], files: int) -> State:
    found = list(problems)
    if not found:
        return "ready"
    return "missing" if found == ["missing"] * files else "damaged"


def _stamp(path: Path, entry: FileEntry) -> list[int | str] | None:
    """What identifies a large file without reading it; None for small or absent ones."""
    try:
        found = path.stat()
    except OSError:
        return None
    if found.st_size < LARGE:
        return None
    return [entry.sha256, found.st_size, found.st_mtime_ns, found.st_ino]


def _read_stamps(folder: Path) -> dict[str, list[int | str]]:
    try:
        return dict(json.loads((folder / _STAMPS).read_text()))
    except (OSError, ValueError, TypeError):
        return {}  # a lost or broken note only means reading the files again


def _write_stamps(folder: Path, stamps: dict[str, list[int | str]]) -> None:
    temporary = folder / f"{_STAMPS}.{os.getpid()}"
    with contextlib.suppress(OSError):  # a read-only cache works, just without this shortcut
        temporary.write_text(json.dumps(stamps))
        install(temporary, folder / _STAMPS)
