"""The learner's own code in the library's place.

An exercise is a hole cut out of the library, and whoever has filled it can put the filling back.
`use_mine` takes the latest version of each exercise that passed all its checks, makes sure that it
still runs and still passes, and puts it everywhere the library uses its own:

    progress.sqlite ─► source ─► executed among the names its module has ─► checked once more
                                                                               │
    norm.RMSNorm, model.RMSNorm, attention.RMSNorm, the notebook's RMSNorm ◄───┘

So a GPT that is built afterwards is built of the learner's parts, in a notebook, in a lab, and in
whatever imports the library later. Files do not change, and `use_library` takes everything back.
"""

import ast
import json
import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from types import FunctionType
from typing import Any, Literal

import torch

from course_utils.base.paths import course_root
from course_utils.exercises.cell_text import notebook_names, to_python
from course_utils.exercises.cells import execute_cell
from course_utils.exercises.exercise import (
    Exercise,
    all_exercises,
    displaced,
    find_exercise,
    lesson_exercises,
    lesson_files,
)
from course_utils.exercises.judge import judge
from course_utils.exercises.progress import Progress

Status = Literal["yours", "not_solved", "refused"]


@dataclass(frozen=True)
class Swap:
    """Whose code an exercise's name now stands for, and why, when it is not the learner's."""

    exercise: Exercise
    status: Status
    reason: str = ""

    @property
    def yours(self) -> bool:
        return self.status == "yours"


class Swaps(list[Swap]):
    """What `use_mine` did; a notebook shows it as a table, `print` as text."""

    def __str__(self) -> str:
        if not self:
            return "There is nothing to swap."
        width = max(len(swap.exercise.symbol) for swap in self)
        return "\n".join(
            f"{swap.exercise.symbol:{width}}  {_owner(swap):13}  {_remark(swap)}" for swap in self
        )

    def _repr_html_(self) -> str:
        cell = "text-align:left;padding:.15em .9em .15em 0;border:0"
        rows = "".join(
            f'<tr style="background:none"><td style="{cell}"><code>{swap.exercise.symbol}</code>'
            f'</td><td style="{cell};font-weight:600;color:{_COLOUR[swap.status]}">{_owner(swap)}'
            f'</td><td style="{cell};opacity:.85">{escape(_remark(swap))}</td></tr>'
            for swap in self
        )
        return f'<table style="border:0;border-collapse:collapse">{rows}</table>'


_COLOUR: dict[Status, str] = {"yours": "#2e9e5b", "not_solved": "#8a8f98", "refused": "#d98324"}


def _owner(swap: Swap) -> str:
    return "yours" if swap.yours else "the library's"


def _remark(swap: Swap) -> str:
    return swap.exercise.id if swap.yours else f"{swap.exercise.id}: {swap.reason}"


@dataclass(frozen=True)
class _Revived:
    """A learner's function or class, and the globals that its code sees."""

    object: Any
    namespace: dict[str, Any]


# What stands in the library's place at the moment, by the exercise's reference.
_in_place: dict[str, _Revived] = {}


def use_mine(exercise_ids: Iterable[str] | None = None) -> Swaps:
    """Put the learner's verified versions in the place of the library's.

    What was built before keeps its parts; what is built afterwards has the learner's. Calling it
    again takes the versions that are the latest then.

    Args:
        exercise_ids: exercises ("gpt.rms_norm") or whole lessons ("05"); all that there are by
            default.

    Returns:
        For each exercise whose code is in use now. A version that no longer runs, or no longer
        passes its checks, is refused, and the library's stays.

    Raises:
        CourseError: for an exercise or a lesson that does not exist.
    """
    chosen = _chosen(exercise_ids)
    use_library(exercise.id for exercise in chosen)
    swaps, revived = Swaps(), {}
    for exercise, source in zip(chosen, _verified_sources(chosen), strict=True):
        if source is None:
            swaps.append(Swap(exercise, "not_solved", "not solved yet"))
            continue
        # Checked before anything is swapped, so that no exercise is judged with another's code.
        mine = _revive(exercise, source)
        if isinstance(mine, str):
            swaps.append(Swap(exercise, "refused", mine))
        else:
            swaps.append(Swap(exercise, "yours"))
            revived[exercise.reference] = mine
    for swap in swaps:
        if swap.yours:
            reference = swap.exercise.reference
            displaced[reference] = swap.exercise.target
            _in_place[reference] = revived[reference]
    for reference, mine in revived.items():
        _replace(displaced[reference], mine.object, reference)
    return swaps


def use_library(exercise_ids: Iterable[str] | None = None) -> None:
    """Undo `use_mine`, for some exercises or lessons, or for all of them."""
    if not _in_place:
        return
    if exercise_ids is None:
        references = list(_in_place)
    else:
        references = [exercise.reference for exercise in _chosen(exercise_ids)]
    for reference in references:
        if reference in _in_place:
            _replace(_in_place[reference].object, displaced[reference], reference)
            del _in_place[reference], displaced[reference]


@contextmanager
def using_mine(exercise_ids: Iterable[str] | None = None) -> Iterator[Swaps]:
    """`use_mine` for the body of a `with`; what is swapped here is taken back at its end."""
    before = set(_in_place)
    swaps = use_mine(exercise_ids)
    try:
        yield swaps
    finally:
        use_library(s.exercise.id for s in swaps if s.yours and s.exercise.reference not in before)


def use_mine_in_lab(exercise_ids: Iterable[str] | None = None) -> Swaps:
    """`use_mine` for a script: prints whose code each name stands for, once for all processes."""
    swaps = use_mine(exercise_ids)
    if os.environ.get("RANK", "0") == "0":
        print(f"Your code: {sum(swap.yours for swap in swaps)} of {len(swaps)} parts.")
        print(swaps, flush=True)
    return swaps


def _chosen(exercise_ids: Iterable[str] | None) -> list[Exercise]:
    """The exercises that are meant, each once."""
    if exercise_ids is None:
        return [exercise for _, exercise in all_exercises()]
    chosen: dict[str, Exercise] = {}
    for name in exercise_ids:
        found = lesson_exercises(name) if name.isdigit() else (find_exercise(name),)
        chosen |= {exercise.id: exercise for exercise in found}
    return list(chosen.values())


def _verified_sources(exercises: list[Exercise]) -> list[str | None]:
    """The latest version of each that passed; None for all when there is no readable record."""
    try:
        progress = Progress()
        return [progress.verified_source(exercise.id) for exercise in exercises]
    except (sqlite3.Error, OSError):
        return [None] * len(exercises)


def _revive(exercise: Exercise, source: str) -> _Revived | str:
    """Execute a stored version and check it again; returns what is wrong when it is refused."""
    namespace = notebook_names() | vars(exercise.module)
    with torch.random.fork_rng(devices=[]):  # whoever asks goes on with the same random numbers
        _add_imports(exercise, source, namespace)
        problem = execute_cell(source, f"<your {exercise.symbol}>", namespace, exercise.symbol)
        if problem:
            return f"yours no longer runs by itself ({problem})"
        mine = namespace.get(exercise.symbol)
        if not callable(mine) or mine is exercise.target:
            return f"your cell no longer defines {exercise.symbol}"
        failed = [outcome for outcome in judge(exercise, mine) if not outcome.passed]
    if failed:
        return f"yours no longer passes: {failed[0].title} ({failed[0].message})"
    return _Revived(mine, namespace)


def _add_imports(exercise: Exercise, source: str, namespace: dict[str, Any]) -> None:
    """Import what the source uses and the lesson's set-up cells import, unless it is there."""
    try:
        used = {
            node.id for node in ast.walk(ast.parse(to_python(source))) if isinstance(node, ast.Name)
        }
    except SyntaxError:
        return  # executing it will say so
    for statement in _setup_imports(exercise):
        for alias in statement.names:
            name = alias.asname or alias.name.partition(".")[0]
            if name in used and name not in namespace:
                execute_cell(ast.unparse(statement), "<imports of the lesson>", namespace)


def _setup_imports(exercise: Exercise) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements in the set-up cells of the exercise's notebook."""
    quoted = f'"{exercise.id}"'
    for number, path in lesson_files().items():
        if quoted not in path.read_text("utf-8"):
            continue
        for notebook in (course_root() / "lessons").glob(f"{number}_*.ipynb"):
            try:
                cells = json.loads(notebook.read_text("utf-8"))["cells"]
                texts = [c["source"] for c in cells if "setup" in c["metadata"].get("tags", [])]
                trees = [ast.parse("".join(text)) for text in texts]
            except (OSError, ValueError, KeyError, SyntaxError):
                continue  # a damaged notebook takes nothing but its imports with it
            for tree in trees:
                yield from (n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom))


def _replace(old: Any, new: Any, reference: str) -> None:
    """Let every name and every default argument that stands for `old` stand for `new`.

    By identity, wherever it was imported to and under whichever name: the library's modules, the
    notebook or script itself, and the learner's other parts. (A part's own globals keep it: its
    `super()` and its recursion mean itself.)
    """
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name in ("__main__", reference.partition(":")[0]) or name.startswith("course_utils.")
    ]
    namespaces = [vars(module) for module in modules]
    namespaces += [other.namespace for key, other in _in_place.items() if key != reference]
    for namespace in namespaces:
        for name, value in list(namespace.items()):
            if value is old:
                namespace[name] = new
            elif getattr(value, "__module__", None) == namespace.get("__name__"):
                _replace_defaults(value, old, new)


def _replace_defaults(value: Any, old: Any, new: Any) -> None:
    members = vars(value).values() if isinstance(value, type) else [value]
    for function in members:
        if not isinstance(function, FunctionType):
            continue
        if function.__defaults__ and any(d is old for d in function.__defaults__):
            function.__defaults__ = tuple(new if d is old else d for d in function.__defaults__)
        by_name = function.__kwdefaults__ or {}
        by_name.update({name: new for name, default in by_name.items() if default is old})
