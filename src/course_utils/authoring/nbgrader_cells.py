"""nbgrader's cell metadata (schema version 3), and nothing but it.

Only these keys may stand under `metadata.nbgrader`: nbgrader refuses others. Ours live beside it,
under `metadata.course`. The kinds and the checksum follow nbgrader 0.9's documentation and code;
a test compares both with the real package.
"""

import hashlib
from typing import Literal

from nbformat import NotebookNode

Kind = Literal["solution", "tests", "manual", "readonly"]

#            grade, solution, locked
_FLAGS: dict[Kind, tuple[bool, bool, bool]] = {
    "solution": (False, True, False),
    "tests": (True, False, True),
    "manual": (True, True, False),
    "readonly": (False, False, True),
}


def mark(cell: NotebookNode, kind: Kind, grade_id: str, points: int | None = None) -> None:
    """Give a cell its nbgrader metadata, and lock it as nbgrader's release would."""
    grade, solution, locked = _FLAGS[kind]
    cell.metadata["nbgrader"] = {
        "cell_type": cell.cell_type,
        "grade": grade,
        "grade_id": grade_id,
        "locked": locked,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    if grade:
        cell.metadata["nbgrader"]["points"] = points
    cell.metadata["deletable"] = False
    if locked:
        cell.metadata["editable"] = False


def add_checksum(cell: NotebookNode) -> None:
    """What nbgrader compares to see whether a manual answer or a locked cell was changed."""
    meta = cell.metadata["nbgrader"]
    parts = [
        cell.source,
        cell.cell_type,
        str(meta["grade"]),
        str(meta["solution"]),
        str(meta["locked"]),
        meta["grade_id"],
    ]
    if meta["grade"]:
        parts.append(str(float(meta["points"])))
    meta["checksum"] = hashlib.md5("".join(parts).encode()).hexdigest()
