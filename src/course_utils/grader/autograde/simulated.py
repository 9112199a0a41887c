"""A class that is made, so that what each submission deserves is known.

Every student of it hands in every lesson, solves what their ability allows, and otherwise makes one
of the exercise's known mistakes, leaves the cell as it was, or breaks it. Some notebooks are dirty
in the ways that real ones are. What a solution deserves follows from how it was made: the whole
for the library's own, nothing for a blank, and for a known mistake what the checks give it here,
outside of any sandbox.
"""

import copy
import csv
import io
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from course_utils.authoring.build import build
from course_utils.authoring.lesson import Lesson, find_lesson, lesson_sources
from course_utils.exercises import mutants
from course_utils.exercises.exercise import Exercise, find_exercise
from course_utils.exercises.index import lesson_files
from course_utils.exercises.judge import judge, score
from course_utils.exercises.stub import PLACEHOLDER, find_holes, learner_source

SURNAMES = (
    "Abara", "Bakker", "Chen", "Duarte", "Eriksen", "Fontaine", "Gupta", "Haddad", "Ito", "Jansen",
    "Kowalska", "Lindqvist", "Moreau", "Nkosi", "Oliveira", "Petrov", "Quispe", "Rossi", "Sato",
    "Tanaka", "Ueda", "Varga", "Weber", "Xu", "Yilmaz", "Zhang",
)  # fmt: skip

# One of the class wrote this; two others gave it other names. By place in the class.
COPYING = (2, 5, 6)
COPIED = {
    "start.accuracy": (
        """def accuracy(logits, labels):
    right, total = 0, 0
    for row, label in zip(logits.tolist(), labels.tolist()):
        best, place = float("-inf"), -1
        for index, value in enumerate(row):
            if value > best:
                best, place = value, index
        if place == label:
            right += 1
        total += 1
    return right / total if total else 0.0""",
        """def accuracy(logits, labels):
    hits, n = 0, 0  # my own work
    for r, y in zip(logits.tolist(), labels.tolist()):
        top, where = float("-inf"), -1
        for k, v in enumerate( r ):
            if v > top:
                top, where = v, k
        if where == y: hits += 1
        n += 1

    return hits / n if n else 0.0""",
    )
}


@dataclass(frozen=True)
class Submission:
    """One handed-in notebook, and what it deserves."""

    student: str
    lesson: str
    content: bytes
    scores: dict[str, float] = field(default_factory=dict)  # by exercise
    kinds: dict[str, str] = field(default_factory=dict)  # how each was made
    readable: bool = True

    @property
    def expected(self) -> float:
        return sum(self.scores.values())


@dataclass(frozen=True)
class Solution:
    """The text of a learner's cell (None: the cell is deleted) and the points it deserves."""

    kind: str
    source: str | None
    points: float


def make_class(
    count: int, seed: int = 0, judge_seed: int = 0, lessons: Sequence[str] | None = None
) -> Iterator[Submission]:
    """Submissions of a class, student by student.

    Args:
        count: how many submissions.
        seed: of the class.
        judge_seed: the grader's seed, with which known mistakes are judged here.
        lessons: their numbers; by default all with exercises.
    """
    numbers = list(lessons or [number for number in lesson_sources() if number in lesson_files()])
    made = 0
    for index in range(math.ceil(count / len(numbers))):
        rng = random.Random(f"{seed}/{index}")
        student = f"{SURNAMES[index % len(SURNAMES)].lower()}{index:03d}"
        ability = rng.gauss(0.9, 1.1)
        for number in numbers:
            if made == count:
                return
            made += 1
            yield _submission(index, student, lesson(number), ability, rng, judge_seed)


@cache
def lesson(number: str) -> Lesson:
    """A lesson, read once."""
    return find_lesson(number)


@cache
def _released(number: str) -> NotebookNode:
    return build(lesson(number), "learner")


def _submission(
    place: int, student: str, of: Lesson, ability: float, rng: random.Random, judge_seed: int
) -> Submission:
    exercises = [find_exercise(name) for name in of.exercise_ids]
    if rng.random() < 0.015:
        zero = {exercise.id: 0.0 for exercise in exercises}
        content = rng.choice((b"", b"{", b"\xff\xfe", b"[1, 2]", b'{"cells": [{}]}'))
        return Submission(student, of.name, content, zero, readable=False)
    solutions = {e.id: _solution(e, ability, rng, judge_seed) for e in exercises}
    if place in COPYING:
        solutions |= {e.id: copied(e, place) for e in exercises if e.id in COPIED}
    return Submission(
        student,
        of.name,
        notebook(of, solutions, rng),
        {name: one.points for name, one in solutions.items()},
        {name: one.kind for name, one in solutions.items()},
    )


def _solution(exercise: Exercise, ability: float, rng: random.Random, judge_seed: int) -> Solution:
    """What this student would write: right more often the abler, and the easier the exercise."""
    right = 1 / (1 + math.exp(-1.4 * (ability - (exercise.difficulty - 2))))
    luck = rng.random()
    if luck < right:
        return rng.choices((solved, noisy, reformatted), (8, 1, 1))[0](exercise)
    if luck < right + 0.6 * (1 - right):
        # A few mistakes are common and most are rare, as in life.
        possible = [i for i, mutant in enumerate(exercise.mutants) if mutant.replace]
        weights = [1 / (1 + place) for place in range(len(possible))]
        return mistaken(exercise, rng.choices(possible, weights)[0], judge_seed)
    return rng.choices((blank, emptied, broken, deleted), (5, 1, 2, 2))[0](exercise)


def solved(exercise: Exercise) -> Solution:
    """The library's own."""
    return Solution("solved", exercise.source.rstrip("\n"), float(exercise.points))


def noisy(exercise: Exercise) -> Solution:
    """Right, and it writes to stderr whenever it is called: no point is lost for that."""
    lines = exercise.source.rstrip("\n").split("\n")
    for hole in reversed(find_holes(exercise.source, exercise.holes)):
        lines.insert(hole.first - 1, " " * hole.indent + "print('loading', file=LOG)")
    # The stderr of now, whatever is redirected later.
    source = "\n".join(("import sys", "", "LOG = sys.stderr", "", *lines))
    return Solution("noisy", source, float(exercise.points))


def reformatted(exercise: Exercise) -> Solution:
    """Right, with comments and empty lines of its own."""
    source = "# My notes: this took me a while.\n\n" + exercise.source + "\n\n# Done!\n"
    return Solution("reformatted", source, float(exercise.points))


def copied(exercise: Exercise, place: int) -> Solution:
    """Right, by somebody of the class: the first has written it, the others renamed it."""
    source = COPIED[exercise.id][place != COPYING[0]]
    return Solution("copied", source, float(exercise.points))


def mistaken(exercise: Exercise, index: int, judge_seed: int) -> Solution:
    """A known mistake; what it deserves is what the checks say."""
    source = mutants.apply(exercise, exercise.mutants[index]).rstrip("\n")
    return Solution(f"mistake {index}", source, _judged(exercise, index, judge_seed))


@cache
def _judged(exercise: Exercise, index: int, judge_seed: int) -> float:
    from course_utils.grader.autograde.grade import exercise_seed

    wrong = mutants.build(exercise, exercise.mutants[index])
    return score(exercise, judge(exercise, wrong, exercise_seed(judge_seed, exercise)))


def blank(exercise: Exercise) -> Solution:
    """The cell as it was handed out."""
    return Solution("blank", learner_source(exercise), 0.0)


def emptied(exercise: Exercise) -> Solution:
    """A cell without a word in it."""
    return Solution("emptied", "", 0.0)


def broken(exercise: Exercise) -> Solution:
    """No Python any more."""
    source = learner_source(exercise).replace(PLACEHOLDER[1], "return (1 +")
    return Solution("broken", source + "\nthis is where I gave up(", 0.0)


def deleted(exercise: Exercise) -> Solution:
    """No cell."""
    return Solution("deleted", None, 0.0)


def notebook(of: Lesson, solutions: dict[str, Solution], rng: random.Random | None = None) -> bytes:
    """A lesson's notebook with these solutions in it; with `rng`, as dirty as real ones are."""
    book = copy.deepcopy(_released(of.number))
    for cell in list(book.cells):
        ours = cell.metadata.get("course", {})
        if ours.get("role") == "solution" and ours["exercise"] in solutions:
            source = solutions[ours["exercise"]].source
            if source is None:
                book.cells.remove(cell)
            else:
                cell.source = source
        elif ours.get("role") == "answer" and rng and rng.random() < 0.7:
            cell.source = "The noise falls with the square root of the batch size."
    if rng:
        dirt = rng.choices((clean, with_outputs, with_own_cells, tampered), (6, 3, 2, 1))[0]
        dirt(book, rng)
    return (nbformat.writes(book, version=4) + "\n").encode()


def clean(book: NotebookNode, rng: random.Random) -> None:
    """As it is."""


def with_outputs(book: NotebookNode, rng: random.Random) -> None:
    """Run, with outputs of every kind."""
    for count, cell in enumerate(cell for cell in book.cells if cell.cell_type == "code"):
        cell.execution_count = count + 1
        cell.outputs = [new_output("stream", name="stderr", text="a warning\n" * rng.randrange(5))]


def with_own_cells(book: NotebookNode, rng: random.Random) -> None:
    """With attempts of the learner's own between the others, which must not be run."""
    for count in range(3):
        attempt = new_code_cell("raise RuntimeError('an attempt that I forgot to delete')")
        attempt["id"] = f"own-{count}"
        book.cells.insert(rng.randrange(len(book.cells)), attempt)


def tampered(book: NotebookNode, rng: random.Random) -> None:
    """With locked cells that say something else."""
    for cell in book.cells:
        if cell.metadata.get("course", {}).get("role") == "check":
            cell.source = "1000000.0"


def write(folder: Path, submissions: Sequence[Submission]) -> None:
    """Put a class into `folder/submitted/` as nbgrader lays it out, and what it deserves beside.

    expected.csv has a row for each exercise: student, lesson, exercise, score, kind.
    """
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(("student", "lesson", "exercise", "score", "kind"))
    for one in submissions:
        path = folder / "submitted" / one.student / one.lesson / f"{one.lesson}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.content)
        for name, points in one.scores.items():
            rows.writerow(
                (one.student, one.lesson, name, points, one.kinds.get(name, "unreadable"))
            )
    (folder / "expected.csv").write_text(table.getvalue(), "utf-8")
