"""Reading a lesson's source: `lessons/source/NN_name.py`, a jupytext py:percent file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
from nbformat import NotebookNode

from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root


@dataclass(frozen=True)
class Lesson:
    """An author's lesson: its heading data and its cells, exercises not yet expanded."""

    path: Path
    number: str
    title: str
    minutes: int
    prerequisites: tuple[str, ...]
    cells: tuple[NotebookNode, ...]

    @property
    def name(self) -> str:
        """`02_mnist_cnn`: the notebook's file name and nbgrader's assignment."""
        return self.path.stem

    @property
    def exercise_ids(self) -> tuple[str, ...]:
        return tuple(c.metadata["exercise"] for c in self.cells if "exercise" in c.metadata)


def lesson_sources() -> dict[str, Path]:
    """The source files by lesson number."""
    folder = course_root() / "lessons" / "source"
    return {path.stem.partition("_")[0]: path for path in sorted(folder.glob("[0-9]*_*.py"))}


def find_lesson(number: str) -> Lesson:
    """The lesson with this number (`2` and `02` alike).

    Raises:
        CourseError: when there is none.
    """
    sources = lesson_sources()
    number = number.zfill(2)
    if number not in sources:
        raise CourseError(f"There is no lesson {number}; there are {', '.join(sources)}.")
    return read_lesson(sources[number])


def read_lesson(path: Path) -> Lesson:
    """Parse one source file.

    Raises:
        CourseError: when its header lacks what every lesson states, or a cell's marks contradict.
    """
    notebook = jupytext.read(path, fmt="py:percent")
    header: dict[str, Any] = dict(notebook.metadata.get("course", {}))
    missing = {"number", "title", "minutes", "prerequisites"} - set(header)
    if missing:
        raise CourseError(f"{path.name}: the header's `course:` lacks {', '.join(sorted(missing))}")
    for cell in notebook.cells:
        if "exercise" in cell.metadata and cell.source.strip():
            raise CourseError(
                f"{path.name}: the cell of exercise {cell.metadata['exercise']} must be empty; "
                "its text comes from the library"
            )
        if cell.cell_type == "markdown" and not {"lang", "question"} & set(cell.metadata):
            raise CourseError(
                f'{path.name}: this text does not say its language (lang="en"): '
                f"{cell.source[:40]!r}"
            )
    return Lesson(
        path=path,
        number=str(header["number"]),
        title=str(header["title"]),
        minutes=int(header["minutes"]),
        prerequisites=tuple(header["prerequisites"]),
        cells=tuple(notebook.cells),
    )
