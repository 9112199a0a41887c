"""What the exercises are, read from their files without importing them.

An exercise file imports torch and the library, which takes seconds. To list exercises, to show a
hint or a solution, its text is enough: an `Exercise(…)` has literals for all that is shown here.
"""

import ast
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from course_utils.base.errors import CourseError, did_you_mean
from course_utils.base.paths import course_root

DIFFICULTIES = {1: "warm-up", 2: "standard", 3: "challenge"}
_SHOWN = ("id", "reference", "title", "points", "minutes", "difficulty", "hints")


@dataclass(frozen=True)
class Entry:
    """An exercise as its file describes it; see `exercise.Exercise` for the fields."""

    lesson: str
    path: Path
    id: str
    reference: str
    title: str
    points: int
    minutes: int
    difficulty: int
    hints: tuple[str, ...]

    @property
    def source(self) -> str:
        """The reference's source text, as `Exercise.source`.

        Raises:
            CourseError: when the module does not define the symbol.
        """
        module, _, symbol = self.reference.partition(":")
        folder = Path(__file__).resolve().parents[2].joinpath(*module.split("."))
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        text = file.read_text("utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == symbol:
                first = min(n.lineno for n in [node, *node.decorator_list])
                lines = text.splitlines(keepends=True)[first - 1 : node.end_lineno]
                return textwrap.dedent("".join(lines))
        raise CourseError(f"{self.id}: {file} does not define {symbol}.")


def lesson_files() -> dict[str, Path]:
    """Exercise files by lesson number: `{"00": …/lesson_00.py, …}`."""
    folder = course_root() / "grading" / "exercises"
    return {path.stem.removeprefix("lesson_"): path for path in sorted(folder.glob("lesson_*.py"))}


def entries() -> Iterator[Entry]:
    """Every exercise of the course, in the order in which they are met."""
    for lesson, path in lesson_files().items():
        yield from _read(lesson, path)


def find_entry(exercise_id: str) -> Entry:
    """The exercise with this id.

    Raises:
        CourseError: for an unknown id; it names the nearest.
    """
    known = {entry.id: entry for entry in entries()}
    if exercise_id in known:
        return known[exercise_id]
    raise CourseError(f"There is no exercise {exercise_id!r}.{did_you_mean(exercise_id, known)}")


@cache
def _read(lesson: str, path: Path) -> tuple[Entry, ...]:
    described: dict[str, Entry] = {}
    order: list[str] = []
    for node in ast.parse(path.read_text("utf-8")).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        name, value = node.targets[0].id, node.value
        if name == "EXERCISES" and isinstance(value, ast.Tuple):
            order = [item.id for item in value.elts if isinstance(item, ast.Name)]
        elif isinstance(value, ast.Call) and getattr(value.func, "id", "") == "Exercise":
            described[name] = Entry(lesson, path, **_literals(value, path))
    missing = [name for name in order if name not in described]
    if missing:
        raise CourseError(
            f"{path.name}: EXERCISES names {missing[0]}, which this file does not describe: write "
            f"{missing[0]} = Exercise(…) in it."
        )
    return tuple(described[name] for name in order)


def _literals(call: ast.Call, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg in _SHOWN:
            try:
                found[keyword.arg] = ast.literal_eval(keyword.value)
            except ValueError:
                raise CourseError(
                    f"{path.name}, line {keyword.value.lineno}: {keyword.arg} must be a literal."
                ) from None
    return found
