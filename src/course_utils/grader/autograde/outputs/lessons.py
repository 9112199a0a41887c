"""What was handed out: the learner's notebook as the source gives it, and its graded cells."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from nbformat import NotebookNode

from course_utils.authoring.build import build
from course_utils.authoring.lesson import lesson_sources, read_lesson
from course_utils.base.errors import CourseError
from course_utils.exercises.exercise import find_exercise
from course_utils.exercises.mutants import apply
from course_utils.exercises.stub import learner_source

Role = Literal["solution", "check", "answer"]


@dataclass(frozen=True)
class Cell:
    """A cell of the released notebook that the judge or a person marks."""

    role: Role
    name: str  # the exercise or question, "cnn.conv2d"
    grade_id: str  # nbgrader's, "cnn-conv2d"
    cell: NotebookNode

    @property
    def marks(self) -> dict[str, Any]:
        """Its nbgrader metadata."""
        return self.cell.metadata["nbgrader"]


@cache
def released(lesson: str) -> NotebookNode | None:
    """The notebook that was handed out for a lesson, "02_mnist_cnn"; None when there is none."""
    for path in lesson_sources().values():
        if path.stem == lesson:
            return build(read_lesson(path), "learner")
    return None


def marked_cells(notebook: NotebookNode) -> Iterator[Cell]:
    """The cells of a released notebook that have something to do with points, in their order."""
    for cell in notebook.cells:
        ours = cell.metadata.get("course", {})
        role = ours.get("role")
        if role in ("solution", "check", "answer"):
            name = ours.get("exercise") or ours["question"]
            yield Cell(role, name, cell.metadata["nbgrader"]["grade_id"], cell)


def grade_id(name: str) -> str:
    """nbgrader's name for the cell of an exercise or question, as `course build` gives it."""
    return name.replace(".", "-").replace("_", "-")


def known_sources(exercise_id: str) -> tuple[str, ...]:
    """The stub of an exercise, then its solution and the mistakes made from it.

    None for an exercise that the course does not have (any more).
    """
    try:
        exercise = find_exercise(exercise_id)
    except CourseError:
        return ()
    wrong = [apply(exercise, mutant) for mutant in exercise.mutants if mutant.replace]
    return learner_source(exercise), exercise.source, *wrong
