"""Checking a whole notebook without running its training cells.

Only the set-up cells, the learner's solution cells and the `verified` cells are executed, in
order, so that what one exercise needs from an earlier one is there; a cell that fails takes only
its own exercise with it.
"""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from course_utils.base.errors import CourseError
from course_utils.exercises.cell_text import notebook_names
from course_utils.exercises.cells import execute_cell
from course_utils.exercises.check import Result, check, verified
from course_utils.exercises.exercise import Exercise, find_exercise


@dataclass(frozen=True)
class Checked:
    """One exercise of a notebook: its result, or why there is none."""

    exercise: Exercise
    result: Result | None
    problem: str = ""


def read_notebook(path: Path) -> NotebookNode:
    """A learner's notebook from disk.

    Raises:
        CourseError: missing, a folder, not JSON, not a notebook of format 4, or of no lesson.
    """
    if not path.exists():
        raise CourseError(f"There is no notebook {path}.")
    try:
        notebook = nbformat.read(path, as_version=4)
    except IsADirectoryError:
        raise CourseError(f"{path} is a folder; name a notebook (.ipynb).") from None
    except PermissionError:
        raise CourseError(f"{path} cannot be read: permission denied.") from None
    except Exception as error:  # nbformat raises many kinds for one fact
        raise CourseError(
            f"{path.name} is not a readable notebook ({type(error).__name__}). "
            f"`course build {path.name[:2]} --force` makes a fresh one and keeps this one, too."
        ) from None
    if not any("exercise" in cell.metadata.get("course", {}) for cell in notebook.cells):
        raise CourseError(f"{path.name} holds no exercises of this course.")
    return notebook


def check_notebook(notebook: NotebookNode) -> list[Checked]:
    """Check every exercise of a notebook, in order; solved ones count as the learner's progress."""
    namespace: dict[str, Any] = notebook_names()
    results: dict[str, Checked] = {}
    for index, cell in enumerate(notebook.cells):
        role = _role(cell)
        if role is None:
            continue
        if role == "setup":
            problem = execute_cell(cell.source, f"<cell {index}>", namespace)
            if problem:
                raise CourseError(f"The set-up cell {index} failed, so nothing else can: {problem}")
            continue
        exercise = find_exercise(cell.metadata["course"]["exercise"])
        if role == "solution":
            namespace.pop(exercise.symbol, None)
            problem = execute_cell(cell.source, f"<{exercise.id}>", namespace)
            results[exercise.id] = _check(exercise, namespace, problem)
        elif role == "verified":
            mine = namespace.get(exercise.symbol)
            with contextlib.redirect_stdout(io.StringIO()):
                namespace[exercise.symbol] = verified(exercise.id, mine)
    return list(results.values())


def _role(cell: NotebookNode) -> str | None:
    if cell.cell_type != "code":
        return None
    if "setup" in cell.metadata.get("tags", []):
        return "setup"
    role = cell.metadata.get("course", {}).get("role")
    return role if role in ("solution", "verified") else None


def _check(exercise: Exercise, namespace: dict[str, Any], problem: str) -> Checked:
    if problem:
        return Checked(exercise, None, problem)
    student = namespace.get(exercise.symbol)
    if not callable(student):
        return Checked(exercise, None, f"the cell defines no {exercise.symbol}")
    return Checked(exercise, check(exercise.id, student))
