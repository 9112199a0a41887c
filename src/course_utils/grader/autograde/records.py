"""What grading writes down: one record per submission, and everything else is made of them.

A record holds plain values alone, so that a line of journal.jsonl is one record and nothing that a
learner made (an object, a pickle) can reach whoever reads it.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

ExerciseStatus = Literal[
    "passed",  # every check
    "partial",  # some
    "failed",  # none
    "not_attempted",  # the stub, unchanged or emptied
    "timeout",  # the learner's code used up its time
    "memory",  # or its memory
    "crashed",  # or its process ended in another way; flagged for the instructor
    "forbidden",  # it reached for what the sandbox denies
    "missing",  # the notebook has no cell for it
]
SubmissionStatus = Literal["graded", "unreadable"]
CheckStatus = Literal[
    "passed", "wrong", "error", "timeout", "memory", "crashed", "forbidden", "not_attempted",
    "not_run",
]  # fmt: skip

# What an instructor must look at before the score counts: a crash is never mistaken for a zero.
FLAGGED: frozenset[str] = frozenset({"timeout", "memory", "crashed", "forbidden"})

# How a note begins about an error in a statement that is no part of the definition. With all points
# it needs nobody: most often the statement uses a variable of the lesson that the sandbox lacks.
BESIDE = "an error beside the definition"


@dataclass(frozen=True, kw_only=True)
class CheckGrade:
    """One check: what it checks, and what came of it. Values are already text, and bounded."""

    name: str
    title: str
    status: CheckStatus
    message: str = ""
    where: str = ""  # the learner's line: "line 3: y = x @ w"
    expected: str = ""
    actual: str = ""


@dataclass(frozen=True, kw_only=True)
class ExerciseGrade:
    """One exercise of one submission."""

    exercise: str  # "cnn.conv2d"
    title: str
    status: ExerciseStatus
    score: float
    max_score: float
    checks: tuple[CheckGrade, ...] = ()
    misconception: str = ""  # the recognised mistake's sentence
    hint: str = ""
    problem: str = ""  # why there are no checks, or what the sandbox denied
    output: str = ""  # what the learner's code printed, cut short
    source: str = ""  # the learner's cell
    seconds: float = 0.0
    notes: tuple[str, ...] = ()  # how what was graded differs from what the notebook defines

    @property
    def differs(self) -> bool:
        """Whether the instructor should compare the notebook with what was graded."""
        unjudged = self.status in ("failed", "missing") and not self.checks
        elsewhere = any(not note.startswith(BESIDE) for note in self.notes)
        return elsewhere or unjudged or (bool(self.notes) and self.score < self.max_score)

    @property
    def flagged(self) -> bool:
        """Whether the instructor must look at it."""
        return self.status in FLAGGED


@dataclass(frozen=True, kw_only=True)
class WrittenAnswer:
    """What a learner wrote where a person marks: the text of a cell with the role "answer"."""

    question: str  # "training.batch_size"
    text: str  # bounded like every text from a notebook
    max_score: float


@dataclass(frozen=True, kw_only=True)
class SubmissionGrade:
    """One student's notebook of one lesson."""

    student: str
    lesson: str  # the notebook's name: "02_mnist_cnn"
    status: SubmissionStatus
    problem: str = ""  # why it is unreadable, or what was odd about its cells
    notes: tuple[str, ...] = ()  # cells that were deleted, doubled, moved, changed
    exercises: tuple[ExerciseGrade, ...] = ()
    answers: tuple[WrittenAnswer, ...] = ()  # to be marked by hand; not part of `score`
    sandbox: str = ""  # the level in force: "namespaces + Landlock + seccomp + limits"
    seconds: float = 0.0
    key: str = ""  # hash of notebook, checks and environment: equal keys, equal grades
    timestamp: str = ""  # the submission's, ISO 8601, where nbgrader left one
    attempt: int = 0  # how many other versions of it were graded before

    @property
    def score(self) -> float:
        return sum(exercise.score for exercise in self.exercises)

    @property
    def max_score(self) -> float:
        return sum(exercise.max_score for exercise in self.exercises)


def to_plain(record: SubmissionGrade) -> dict[str, Any]:
    """A record as JSON values."""
    return dataclasses.asdict(record)


def from_plain(values: dict[str, Any]) -> SubmissionGrade:
    """A record from JSON values.

    Raises:
        ValueError: when they are not a record's.
    """
    try:
        exercises = tuple(
            ExerciseGrade(
                **{
                    **e,
                    "checks": tuple(CheckGrade(**c) for c in e["checks"]),
                    "notes": tuple(e.get("notes", ())),  # older journals have none
                }
            )
            for e in values["exercises"]
        )
        answers = tuple(WrittenAnswer(**a) for a in values.get("answers", ()))
        notes = tuple(values["notes"])
        record = SubmissionGrade(
            **{**values, "exercises": exercises, "answers": answers, "notes": notes}
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a grading record: {error}") from error
    known = get_args(ExerciseStatus)
    if record.status not in get_args(SubmissionStatus) or any(
        exercise.status not in known for exercise in record.exercises
    ):
        raise ValueError("not a grading record: unknown status")
    return record
