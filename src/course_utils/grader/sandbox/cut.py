"""A lesson's library without what the lesson asks for.

The zygote does not forget the references, it never has them: it imports the modules that hold them
from a text in which every body that a learner is to write is replaced by a refusal. So there is no
code object to dig up, no closure, no cached source line.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from course_utils.exercises.exercise import Exercise
from course_utils.exercises.stub import find_holes


@dataclass(frozen=True)
class CutModule:
    """A module's name, its file, and its text with the holes in it."""

    name: str
    path: Path
    text: str
    symbols: tuple[str, ...]


def cut_modules(exercises: Iterable[Exercise]) -> list[CutModule]:
    """The modules that hold these exercises' references, without the references."""
    by_module: dict[str, list[Exercise]] = {}
    for exercise in exercises:
        by_module.setdefault(home(exercise), []).append(exercise)
    return [_cut(name, asked) for name, asked in by_module.items()]


def home(exercise: Exercise) -> str:
    """The module that defines the reference; its name may have been imported into another."""
    return str(exercise.target.__module__)


def _cut(name: str, asked: list[Exercise]) -> CutModule:
    path = Path(str(sys.modules[name].__file__))
    text = path.read_text("utf-8")
    for exercise in asked:
        source = exercise.source
        if text.count(source) != 1:
            raise ValueError(f"{exercise.id}: the reference's source is not once in {path.name}")
        text = text.replace(source, without_body(exercise))
    return CutModule(name, path, text, tuple(exercise.symbol for exercise in asked))


def without_body(exercise: Exercise) -> str:
    """The reference with a refusal in the place of each hole."""
    lines = exercise.source.split("\n")
    for hole in reversed(find_holes(exercise.source, exercise.holes)):
        pad = " " * hole.indent
        lines[hole.first - 1 : hole.last] = [
            f"{pad}from course_utils.grader.sandbox.refused import refuse",
            f"{pad}refuse({exercise.symbol!r})",
        ]
    return "\n".join(lines)
