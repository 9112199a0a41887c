"""`course grade` beside stock `nbgrader autograde`, on the same submissions.

    python benchmarks/against_nbgrader.py            and results/against-nbgrader-….json
    python benchmarks/against_nbgrader.py --quick    few of them, written nowhere

Three questions:

- Do both give honest work the same points? Lesson 02, right, wrong, partial and blank. (Work that
  also writes to stderr is the known exception: nbgrader takes all points of such a cell.)
- How many submissions do they grade in a minute? nbgrader runs a notebook from first cell to last
  with the smallest training budget (COURSE_PROFILE=smoke); `course grade` runs the cells that
  are graded, in its sandbox, and is measured on the same notebooks, each handed in many times.
- Who is fooled by which attack (tests/attacks)? Stock nbgrader has no sandbox: it is shown only
  attacks that do this machine no harm, under hard limits and in a folder to throw away.
"""

import csv
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from measuring import Record, machine, quick_option

from course_utils.authoring.build import build, serialise
from course_utils.authoring.execute import kernel_environment
from course_utils.base.paths import course_root
from course_utils.exercises.exercise import Exercise, find_exercise
from course_utils.grader.autograde import simulated
from course_utils.grader.autograde.simulated import Solution, Submission

LESSON, SEED, JOBS, COPIES = "02", 0, 2, 100
# For a stock nbgrader that runs an attack: seconds, seconds for a cell, bytes of memory, bytes
# of a file.
WALL, CELL, MEMORY, FILE = 180, 45, 16 << 30, 64 << 20
QUICK = ("always_equal", "gradebook", "import_reference")
# Attacks on the grader's own process and files. The others are on memory, processes, the disk, the
# network and the clock: without a sandbox they would hit this machine.
SHOWN_TO_STOCK = (
    "patched_asserts", "patched_comparison", "always_equal", "lying_tensor", "lazy_answer",
    "stripped_asserts", "patched_inspect", "import_hook", "import_reference", "quiet_reference",
    "reference_in_dict", "dug_up_reference", "remembers_inputs", "own_check_failure", "gradebook",
    "system_exit", "quits", "segfault", "markup",
)  # fmt: skip


def honest(count: int) -> list[Submission]:
    """Right, wrong, partial and blank work."""
    of = simulated.lesson(LESSON)
    exercises = [find_exercise(name) for name in of.exercise_ids]

    def mixed(exercise: Exercise, rng: random.Random) -> Solution:
        ways = (simulated.solved, simulated.blank, simulated.reformatted)
        if rng.random() < 0.5:
            return simulated.mistaken(exercise, rng.randrange(4), SEED)
        return rng.choice(ways)(exercise)

    pure: tuple[Callable[[Exercise], Solution], ...] = (
        simulated.solved, simulated.noisy, simulated.blank, simulated.broken
    )  # fmt: skip
    made = []
    for index in range(count):
        rng = random.Random(index)
        way = pure[index] if index < len(pure) else None
        solutions = {e.id: way(e) if way else mixed(e, rng) for e in exercises}
        name = way.__name__ if way else f"mixed{index}"
        points = {key: one.points for key, one in solutions.items()}
        made.append(Submission(name, of.name, simulated.notebook(of, solutions), points))
    return made


class Stock:
    """A course folder of stock nbgrader's."""

    def __init__(self, folder: Path, lesson: str) -> None:
        self.folder, self.of = folder, simulated.lesson(lesson)
        source = folder / "source" / self.of.name / f"{self.of.name}.ipynb"
        source.parent.mkdir(parents=True)
        source.write_text(serialise(build(self.of, "instructor")), "utf-8")
        self.run("generate_assignment", self.of.name, "--create")

    def run(self, *arguments: str, limited: bool = False) -> float:
        """One command; returns how long it took. Submissions that it fails on are no error here."""
        scripts = str(Path(sys.executable).parent)
        home = self.folder / "home"
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "nbgrader", *arguments, f"--course-dir={self.folder}"],
            cwd=course_root() / "grading",
            env={
                **kernel_environment(),
                "PATH": scripts + os.pathsep + os.environ["PATH"],
                "COURSE_PROFILE": "smoke",
                "COURSE_HOME": str(home),
                "HOME": str(home),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_limit if limited else None,
        )
        try:
            process.wait(WALL if limited else None)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
        return time.perf_counter() - began

    def scores(self) -> dict[str, dict[str, float]]:
        """By student, the points of each graded cell; none for a submission that it gave up on."""
        from nbgrader.api import Gradebook

        with Gradebook(f"sqlite:///{self.folder / 'gradebook.db'}") as book:
            return {
                submission.student.id: {
                    grade.name: grade.score
                    for notebook in submission.notebooks
                    for grade in notebook.grades
                    if grade.auto_score is not None
                }
                for submission in book.assignment_submissions(self.of.name)
            }


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
    resource.setrlimit(resource.RLIMIT_CPU, (WALL, WALL))


def hand_in(folder: Path, submissions: Sequence[Submission], copies: int = 1) -> None:
    """Into nbgrader's layout; `copies` of each, by students of different names."""
    for one in submissions:
        for copy in range(copies):
            student = one.student if copies == 1 else f"{one.student}-{copy:03d}"
            path = folder / "submitted" / student / one.lesson / f"{one.lesson}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(one.content + b" " * copy)  # no two the same


def course_grade(folder: Path) -> tuple[float, dict[str, dict[str, float]]]:
    """Seconds, and by student the points of each exercise (by nbgrader's names)."""
    began = time.perf_counter()
    arguments = ("--out", str(folder / "graded"), "--jobs", str(JOBS), "--seed", str(SEED))
    command = (sys.executable, "-m", "course_utils.cli", "grade", str(folder / "submitted"))
    subprocess.run([*command, *arguments], check=False, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    found: dict[str, dict[str, float]] = {}
    with (folder / "graded" / "grades.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["exercise"]:
                name = row["exercise"].replace(".", "-").replace("_", "-")
                found.setdefault(row["student"], {})[name] = float(row["score"] or 0)
    return seconds, found


def compare_honest(folder: Path, count: int, copies: int) -> dict[str, Any]:
    """Points of both, by submission, and the seconds that one takes."""
    submissions = honest(count)
    stock = Stock(folder / "stock", LESSON)
    hand_in(stock.folder, submissions)
    stock_seconds = stock.run("autograde", stock.of.name, "--create")
    theirs = stock.scores()
    hand_in(folder / "ours", submissions)
    _, ours = course_grade(folder / "ours")
    hand_in(folder / "many", submissions, copies)
    many_seconds, _ = course_grade(folder / "many")
    return {
        "points": {
            one.student: {
                "deserved": one.expected,
                "nbgrader": sum(theirs[one.student].values()),
                "ours": sum(ours[one.student].values()),
                "equal": theirs[one.student] == ours[one.student],
            }
            for one in submissions
        },
        "stock_s": stock_seconds / count,
        "ours_s": many_seconds / (count * copies),
        "submissions": count * copies,
    }


def compare_attacks(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Each attack of tests/attacks, the points it deserves, and what it got where."""
    sys.path.insert(0, str(course_root() / "tests"))
    from attacks import making

    stock = Stock(folder / "stock", making.LESSON[:2])
    places = {
        "SUBMITTED": str(stock.folder / "submitted"),
        "OUT": str(stock.folder),
        "CANARY": str(folder / "canary"),
        "ROOT": str(course_root()),
        "TCP": "9",
        "UDP": "9",
    }
    chosen = [one for one in making.attacks() if not quick or one.name in QUICK]
    for attack in chosen:
        cells = making.references() | {attack.exercise: making.filled(attack.code, places)}
        made = making.notebook(cells)
        making.put(folder / "ours" / "submitted", attack.name, made)
        if attack.name in SHOWN_TO_STOCK:
            making.put(stock.folder / "submitted", attack.name, made)
    _, ours = course_grade(folder / "ours")
    theirs: dict[str, dict[str, float]] = {}  # each right after its own turn
    others: dict[str, int] = {}  # submissions whose points somebody else's notebook changed
    for attack in chosen:
        if attack.name in SHOWN_TO_STOCK:
            before = stock.scores()
            one = (f"--student={attack.name}", "--create", f"--Execute.timeout={CELL}")
            stock.run("autograde", making.LESSON, *one, limited=True)
            after = stock.scores()
            theirs[attack.name] = after.get(attack.name, {})
            others[attack.name] = sum(
                after[name] != points for name, points in before.items() if name != attack.name
            )

    def row(attack: making.Attack) -> dict[str, Any]:
        cell = attack.exercise.replace(".", "-").replace("_", "-")
        shown = attack.name in SHOWN_TO_STOCK
        return {
            "name": attack.name,
            "says": attack.says,
            "deserved": attack.score,
            "nbgrader": theirs.get(attack.name, {}).get(cell) if shown else "not shown",
            "others": others.get(attack.name, 0),
            "ours": ours[attack.name][cell],
        }

    return [row(attack) for attack in chosen]


def main() -> None:
    quick = quick_option(__doc__)
    record = Record("against-nbgrader", keep=not quick)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count, copies = (3, 2) if quick else (8, COPIES)
        work = record("honest", lambda: compare_honest(folder, count, copies))
        attacked = record("attacks", lambda: compare_attacks(folder / "attacks", quick))
    print("| | deserved | nbgrader | ours |\n|---|--:|--:|--:|")
    for name, row in work["points"].items():
        print(f"| {name} | {row['deserved']:g} | {row['nbgrader']:g} | {row['ours']:g} |")
    ratio = work["stock_s"] / work["ours_s"]
    print(f"{work['stock_s']:.2f} s and {work['ours_s']:.3f} s a submission: {ratio:.0f} times")
    print("| attack | deserved | nbgrader | ours |\n|---|--:|--:|--:|")
    for row in attacked:
        print(f"| {row['name']} | {row['deserved']:g} | {row['nbgrader']} | {row['ours']:g} |")
    record.finish(machine("nbgrader"), jobs=JOBS, ratio=ratio, honest=work, attacks=attacked)


if __name__ == "__main__":
    main()
