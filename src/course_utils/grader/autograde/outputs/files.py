"""Writing a folder of reports: each file whole or not at all, and untouched when nothing is new."""

import os
from pathlib import Path

from course_utils.base.durable import disk_errors


def write(path: Path, text: str) -> bool:
    """Make a file hold `text`; returns whether it had to be written.

    Raises:
        CourseError: when the disk is full or may not be written, or a link lies in the way.
    """
    data = text.encode("utf-8")
    with disk_errors(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
            return False
        draft = path.with_name(f".{path.name}.writing")
        draft.unlink(missing_ok=True)
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    return True
