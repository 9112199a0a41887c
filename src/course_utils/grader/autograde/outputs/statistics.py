"""What a class's records add up to: per exercise, per mistake, and what needs a person's eye.

Difficulty and discrimination are those of classical test theory: the mean share of the points, and
the correlation of an exercise's share with the student's share on all the others (Crocker and
Algina, "Introduction to Classical and Modern Test Theory", chapter 14).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from course_utils.grader.autograde.records import FLAGGED, ExerciseGrade, SubmissionGrade

FEWEST = 8  # students, for a correlation that says anything


@dataclass(frozen=True)
class ExerciseStatistics:
    """One exercise over the class."""

    lesson: str
    exercise: str
    title: str
    statuses: Counter[str]
    difficulty: float  # mean share of the points; low is hard
    discrimination: float | None  # None: too few students, or all alike

    @property
    def submissions(self) -> int:
        return self.statuses.total()


@dataclass(frozen=True)
class Misconception:
    """A recognised mistake, and who made it."""

    lesson: str
    exercise: str
    says: str
    count: int


@dataclass(frozen=True)
class Flag:
    """A submission that a person must look at, and why."""

    record: SubmissionGrade
    exercise: ExerciseGrade | None
    why: str


def share(exercise: ExerciseGrade) -> float:
    """The share of the points, 0 to 1."""
    return exercise.score / exercise.max_score if exercise.max_score else 0.0


def shares(records: Iterable[SubmissionGrade]) -> dict[str, list[float]]:
    """By lesson, each readable submission's share of the points."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.status == "graded" and record.max_score:
            found[record.lesson].append(record.score / record.max_score)
    return dict(found)


def by_exercise(records: Sequence[SubmissionGrade]) -> list[ExerciseStatistics]:
    """Statistics of every exercise, in the order of lessons and exercises."""
    of_student: dict[str, dict[str, float]] = defaultdict(dict)
    places: dict[tuple[str, str], list[tuple[str, ExerciseGrade]]] = defaultdict(list)
    for record in records:
        for exercise in record.exercises:
            of_student[record.student][exercise.exercise] = share(exercise)
            places[record.lesson, exercise.exercise].append((record.student, exercise))
    found = []
    for (lesson, exercise_id), graded in places.items():
        own = [share(exercise) for _, exercise in graded]
        pairs = [
            (share(exercise), rest)
            for student, exercise in graded
            if (rest := _rest(of_student[student], exercise_id)) is not None
        ]
        found.append(
            ExerciseStatistics(
                lesson,
                exercise_id,
                graded[0][1].title,
                Counter(exercise.status for _, exercise in graded),
                math.fsum(own) / len(own),
                correlation(pairs),
            )
        )
    return sorted(found, key=lambda one: one.lesson)


def _rest(of: dict[str, float], without: str) -> float | None:
    others = [value for exercise, value in of.items() if exercise != without]
    return math.fsum(others) / len(others) if others else None


def correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Pearson's, or None when there are too few pairs or one side is constant."""
    if len(pairs) < FEWEST:
        return None
    count = len(pairs)
    mean_x = math.fsum(x for x, _ in pairs) / count
    mean_y = math.fsum(y for _, y in pairs) / count
    var_x = math.fsum((x - mean_x) ** 2 for x, _ in pairs)
    var_y = math.fsum((y - mean_y) ** 2 for _, y in pairs)
    if var_x < 1e-12 or var_y < 1e-12:
        return None
    return math.fsum((x - mean_x) * (y - mean_y) for x, y in pairs) / math.sqrt(var_x * var_y)


def misconceptions(records: Iterable[SubmissionGrade]) -> list[Misconception]:
    """Recognised mistakes, the most common first."""
    counts = Counter(
        (record.lesson, exercise.exercise, exercise.misconception)
        for record in records
        for exercise in record.exercises
        if exercise.misconception
    )
    found = [Misconception(*key, count) for key, count in counts.items()]
    return sorted(found, key=lambda one: (-one.count, one.lesson, one.exercise, one.says))


def flags(records: Iterable[SubmissionGrade]) -> list[Flag]:
    """What a person must look at: unreadable first, then exercise by exercise."""
    found = []
    for record in records:
        if record.status == "unreadable":
            found.append(Flag(record, None, record.problem))
        for exercise in record.exercises:
            if exercise.flagged:
                ended = [c.message for c in exercise.checks if c.status in FLAGGED and c.message]
                why = exercise.problem or next(iter(ended), "")
                found.append(Flag(record, exercise, why))
            elif exercise.differs:
                said = "; ".join(exercise.notes)
                why = f"{said}. {exercise.problem}" if said else exercise.problem
                found.append(Flag(record, exercise, why))
    return sorted(found, key=lambda one: one.exercise is not None)


def slowest(records: Iterable[SubmissionGrade], count: int = 8) -> list[SubmissionGrade]:
    """The submissions that took longest."""
    return sorted(records, key=lambda r: (-r.seconds, r.student, r.lesson))[:count]
