"""Running an exercise's checks on somebody's version of its reference."""

import contextlib
import hashlib
import linecache
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch

from course_utils.exercises.asserts import CheckFailure
from course_utils.exercises.calls import Watched
from course_utils.exercises.exercise import Check, Exercise
from course_utils.exercises.timelimit import TimeUp, time_limit

CHANGED = "Your function changed an argument, which belongs to the caller: work on a new one"

Status = Literal["passed", "wrong", "error", "timeout", "not_attempted", "not_run"]


@dataclass(frozen=True)
class Outcome:
    """What one check found.

    `wrong` is a check that disagreed, `error` an exception in the learner's code; `not_run` follows
    a check that timed out or found nothing written (the others would only repeat it).
    """

    check: str
    title: str
    status: Status
    message: str = ""
    where: str = ""
    expected: Any = None
    actual: Any = None

    @property
    def passed(self) -> bool:
        return self.status == "passed"


def judge(exercise: Exercise, student: Any, seed: int = 0) -> tuple[Outcome, ...]:
    """The outcome of every check; deterministic for a deterministic `student` and one seed."""
    _warm_up(exercise)
    found: list[Outcome] = []
    for check in exercise.checks:
        if found and found[-1].status in ("timeout", "not_attempted", "not_run"):
            found.append(Outcome(check.__name__, title(check), "not_run"))
        else:
            found.append(run_check(exercise, check, student, seed))
    return tuple(found)


@cache
def _warm_up(exercise: Exercise) -> None:
    """Run the checks on the reference once, without a limit.

    What a process does only the first time must not count as the learner's: the first optimizer
    that is made, for one, imports for seconds.
    """
    for check in exercise.checks:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            check(exercise.target, torch.Generator().manual_seed(0))


def score(exercise: Exercise, results: tuple[Outcome, ...]) -> float:
    """Points earned: each check is worth an equal share."""
    return round(exercise.points * sum(o.passed for o in results) / len(results), 4)


def title(check: Check) -> str:
    """What the check says it checks: the first line of its docstring."""
    return (check.__doc__ or check.__name__.replace("_", " ")).strip().split("\n")[0].rstrip(".")


def run_check(
    exercise: Exercise,
    check: Check,
    student: Any,
    seed: int,
    limit: Callable[[], AbstractContextManager[None]] = time_limit,
) -> Outcome:
    """Run one check under a time limit, with every source of randomness seeded."""
    # Seeded by name too, so that adding a check to an exercise does not change the others' inputs.
    # The learner's code may see this one; it must not give away the others.
    digest = hashlib.sha256(f"{seed}/{exercise.id}/{check.__name__}".encode()).digest()
    own_seed = int.from_bytes(digest[:6], "big")
    rng = torch.Generator().manual_seed(own_seed)
    name, told = check.__name__, title(check)
    # A class has arguments that it is there to change, such as a cache.
    watched = None if isinstance(exercise.target, type) else Watched(student)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        _seed(own_seed)
        try:
            # nbgrader takes all points from a cell with anything on stderr, a warning included.
            with limit(), contextlib.redirect_stderr(sys.stdout):
                check(watched or student, rng)
        except CheckFailure as failure:
            return Outcome(
                name,
                told,
                "wrong",
                failure.message,
                expected=_frozen(failure.expected),
                actual=_frozen(failure.actual),
            )
        except NotImplementedError:
            return Outcome(name, told, "not_attempted", "Nothing is written here yet.")
        except TimeUp:
            return Outcome(
                name, told, "timeout", "It did not finish in time. Is there a loop without an end?"
            )
        except Exception as error:  # whatever the learner's code raises
            said = f"{type(error).__name__}: {error}"
            # An error that crossed from the sandbox brings the line along: its frames stayed there.
            where = getattr(error, "learners_line", "") or _learners_line(error, student)
            return Outcome(name, told, "error", said[:500], where=where)
    if watched and watched.changes_arguments:
        return Outcome(name, told, "wrong", CHANGED)
    return Outcome(name, told, "passed")


def _seed(seed: int) -> None:
    """torch.manual_seed without its cost: where there is no GPU it keeps a traceback for later."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def _frozen(value: Any, known: dict[int, Any] | None = None) -> Any:
    """A copy that later steps of the learner's code cannot change.

    What a list holds a million times is copied once; `known` has the copies by identity.
    """
    known = {} if known is None else known
    if isinstance(value, torch.Tensor):
        if id(value) not in known:
            known[id(value)] = value.detach().cpu().clone()
        return known[id(value)]
    if isinstance(value, tuple | list):
        return type(value)(_frozen(item, known) for item in value)
    return value


def _learners_line(error: BaseException, student: Any) -> str:
    """The deepest line of the learner's own code in the traceback: `line 3: y = x @ w`."""
    learners_file = source_file(student)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == learners_file:
            line = linecache.getline(frame.filename, frame.lineno or 0).strip() or frame.line
            return f"line {frame.lineno}: {line}"
    return ""


def source_file(student: Any) -> str | None:
    """The file (or notebook cell) that defines a function or class."""
    candidates = [student, *vars(student).values()] if isinstance(student, type) else [student]
    for candidate in candidates:
        code = getattr(getattr(candidate, "__wrapped__", candidate), "__code__", None)
        if code is not None:
            return code.co_filename
    return None
