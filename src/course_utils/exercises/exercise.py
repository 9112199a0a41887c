"""What an exercise is: a hole cut out of the library, and what we know about filling it.

An exercise names one function or class of `course_utils`, the *reference*. The stub, the solution
and the mutants are all derived from the reference's source, so they cannot drift apart. This module
holds the plain data; `stub` cuts, `mutants` edits, `judge` runs, `feedback` explains.
"""

import importlib
import importlib.util
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from course_utils.base.errors import CourseError
from course_utils.exercises.index import DIFFICULTIES, find_entry, lesson_files

# A check takes the learner's object and a seeded `torch.Generator`, and raises when it disagrees.
# The first line of its docstring, in plain words, is what the learner sees as "what held".
Check = Callable[[Any, Any], None]

# The library's own objects while `mine.use_mine` has given their places to the learner's.
displaced: dict[str, Any] = {}


@dataclass(frozen=True)
class Mutant:
    """A mistake people really make, small enough to be an edit of the reference.

    Args:
        says: one or two sentences to a learner who made it: what happened, and what to do instead.
        why: why the mistake is tempting (for authors and instructors).
        replace: `(old, new)`, an edit of the reference's source; `old` must occur exactly once.
        function: for a mistake that is no small edit, the whole wrong function or class instead.
    """

    says: str
    why: str
    replace: tuple[str, str] | None = None
    function: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if (self.replace is None) == (self.function is None):
            raise ValueError("a mutant needs exactly one of replace= and function=")


@dataclass(frozen=True)
class Exercise:
    """A hole in the library, with the checks, mistakes and hints that belong to it.

    Args:
        id: `topic.name`, as learners type it: `check("cnn.conv2d", conv2d)`.
        reference: `package.module:Symbol`, the library's own implementation.
        title: a short heading.
        points, minutes: worth, and how long a first attempt usually takes.
        difficulty: 1 warm-up, 2 standard, 3 challenge.
        checks: run in order; each is worth an equal share of the points.
        mutants: at least four.
        hints: from a nudge to nearly the answer; shown one by one after repeated failures.
        holes: for a class, the methods whose bodies are cut out.
        starter: index of the mutant that the learner gets to repair, instead of an empty body.
    """

    id: str
    reference: str
    title: str
    points: int
    minutes: int
    difficulty: int
    checks: tuple[Check, ...]
    mutants: tuple[Mutant, ...]
    hints: tuple[str, ...]
    holes: tuple[str, ...] = ()
    starter: int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", self.id):
            raise ValueError(f"exercise id {self.id!r} is not of the form topic.name")
        if self.difficulty not in DIFFICULTIES:
            raise ValueError(f"{self.id}: difficulty {self.difficulty} is not one of 1, 2, 3")

    @property
    def symbol(self) -> str:
        """The name the learner writes: `conv2d`."""
        return self.reference.partition(":")[2]

    @property
    def module(self) -> ModuleType:
        """The library module that holds the reference."""
        return importlib.import_module(self.reference.partition(":")[0])

    @property
    def target(self) -> Any:
        """The reference object itself, also while a learner's version is in its place."""
        return displaced.get(self.reference) or getattr(self.module, self.symbol)

    @property
    def source(self) -> str:
        """The reference's source text, the one solution there is."""
        return textwrap.dedent(inspect.getsource(self.target))

    @property
    def slug(self) -> str:
        """The id in the characters that cell ids and nbgrader's grade ids allow."""
        return self.id.replace(".", "-").replace("_", "-")


def lesson_exercises(number: str) -> tuple[Exercise, ...]:
    """The exercises of one lesson, in the order in which they are met.

    Raises:
        CourseError: when there is no such lesson.
    """
    files = lesson_files()
    if number not in files:
        raise CourseError(f"There is no lesson {number!r} with exercises; there are {list(files)}.")
    return _load(files[number])


def all_exercises() -> Iterator[tuple[str, Exercise]]:
    """Every `(lesson number, exercise)` of the course."""
    for number, path in lesson_files().items():
        for exercise in _load(path):
            yield number, exercise


def find_exercise(exercise_id: str) -> Exercise:
    """The exercise with this id; an unknown one names the nearest.

    Only the file that describes it is imported, so that a notebook's first check does not import
    the whole course.
    """
    exercises = _load(find_entry(exercise_id).path)
    return next(exercise for exercise in exercises if exercise.id == exercise_id)


@cache
def _load(path: Path) -> tuple[Exercise, ...]:
    name = f"course_exercises.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that inspect finds the source of checks and mutants
    spec.loader.exec_module(module)
    return tuple(module.EXERCISES)
