"""Files that are there or not there, never half there, whenever the power goes."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from course_utils.base.errors import CourseError


def flush_file(path: Path) -> None:
    """Wait until the file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Wait until the folder's entries (new names, renames) are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Replace a file by `text`; a reader sees the old content or the new one.

    Raises:
        CourseError: when the disk is full or may not be written.
    """
    draft = path.with_name(f".{path.name}.writing")
    with disk_errors(f"write {path}"):
        draft.write_text(text, encoding="utf-8")
        flush_file(draft)
        draft.rename(path)
        flush_folder(path.parent)


@contextlib.contextmanager
def disk_errors(action: str) -> Iterator[None]:
    """Turn an operating system's complaint inside the block into a `CourseError`."""
    try:
        yield
    except OSError as error:
        raise CourseError(f"Could not {action}: {error.strerror or error}.") from error


@contextlib.contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock that ends with the process, however the process ends.

    Raises:
        CourseError: with the text `busy`, when another process holds it.
    """
    with disk_errors(f"open {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CourseError(busy) from None
        yield
