"""Grading a simulated class: is every score as constructed, how long does it take, how much memory?

    python benchmarks/simulated_class.py                      300 students, each lesson of each
    python benchmarks/simulated_class.py --submissions 300    of all lessons; written nowhere
    python benchmarks/simulated_class.py --quick              30 submissions, written nowhere
    python benchmarks/simulated_class.py --quick --keep DIR   keep submissions and reports there

The class is made of the library's solutions, known mistakes, blanks, broken cells and notebooks
that cannot be read (course_utils.grader.autograde.simulated), and of the hostile notebooks of
tests/attacks (not with --quick). `course grade` grades it in a
process of its own, in the sandbox, two submissions at a time. Memory is what that process and all
below it have for themselves and share among them (PSS), at the most.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from measuring import Record, machine

from course_utils.base.paths import course_root
from course_utils.exercises.exercise import find_exercise
from course_utils.grader.autograde import simulated
from course_utils.grader.autograde.plan import lesson_names

STUDENTS = 300
SEED = 2026  # the grader's; no submission can know it
JOBS = 2


class Memory(threading.Thread):
    """The most that a process and its descendants take, looked at twice a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root, self.most, self.over = psutil.Process(pid), 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.5):
            total = 0
            try:
                family = [self.root, *self.root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for process in family:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.most = max(self.most, total)


def grade(folder: Path) -> dict[str, Any]:
    """Grade `folder/submitted` into `folder/graded`."""
    command = (
        *(sys.executable, "-m", "course_utils.cli", "grade", str(folder / "submitted")),
        *("--out", str(folder / "graded"), "--jobs", str(JOBS), "--seed", str(SEED)),
    )
    began = time.perf_counter()
    process = subprocess.Popen(command)
    memory = Memory(process.pid)
    memory.start()
    code = process.wait()
    seconds = time.perf_counter() - began
    memory.over.set()
    if code not in (0, 1):
        raise SystemExit(f"course grade ended with exit code {code}")
    return {"seconds": seconds, "megabytes": memory.most / 1e6}


def attacks() -> list[simulated.Submission]:
    """The hostile notebooks of tests/attacks, and what they deserve."""
    sys.path.insert(0, str(course_root() / "tests"))
    from attacks import making

    nowhere = dict.fromkeys(("SUBMITTED", "OUT", "CANARY", "ROOT"), "/nowhere")
    made = []
    for one in making.attacks():
        code = making.filled(one.code, {**nowhere, "TCP": "9", "UDP": "9"})
        cells = making.references()
        content = json.dumps(making.notebook(cells | {one.exercise: code})).encode()
        points = {name: float(find_exercise(name).points) for name in cells}
        points[one.exercise] = one.score
        kinds = dict.fromkeys(points, "solved") | {one.exercise: f"attack {one.name}"}
        made.append(simulated.Submission(one.name, making.LESSON, content, points, kinds))
    return made


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def differences(folder: Path) -> list[str]:
    """Every exercise whose score is not what it was made to be."""
    found = {
        (row["student"], row["lesson"], row["exercise"]): row["score"]
        for row in read(folder / "graded" / "grades.csv")
    }
    wrong = []
    for row in read(folder / "expected.csv"):
        place = row["student"], row["lesson"], row["exercise"]
        unreadable = (row["student"], row["lesson"], "") in found
        score = "0" if unreadable else found.get(place)
        if score is None or abs(float(score) - float(row["score"])) > 1e-3:
            wrong.append(f"{' '.join(place)} ({row['kind']}): {row['score']} became {score}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="30 submissions; nothing is written")
    parser.add_argument("--submissions", type=int, help="so many in all; nothing is written")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="an empty folder for the class")
    arguments = parser.parse_args()
    count = arguments.submissions or (30 if arguments.quick else STUDENTS * len(lesson_names()))
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        hostile = [] if arguments.quick else attacks()
        others = count - len(hostile)
        class_ = hostile + list(simulated.make_class(others, judge_seed=SEED))
        simulated.write(folder, class_)
        taken = grade(folder)
        wrong = differences(folder)
        exercises = sum(len(one.scores) for one in class_)
        lessons = len({one.lesson for one in class_})
        print("\n".join(wrong))
        print(f"{count} submissions, {lessons} lessons, {exercises} exercises, {len(wrong)} wrong:")
        print(f"{taken['seconds']:.0f} s, {taken['megabytes']:,.0f} MB", flush=True)
        again = grade(folder)
    print(f"once more, with nothing changed: {again['seconds']:.1f} s")
    record = Record("simulated-class", keep=not (arguments.quick or arguments.submissions))
    record.finish(
        machine(),
        submissions=count,
        hostile=len(hostile),
        lessons=lessons,
        exercises=exercises,
        jobs=JOBS,
        wrong=len(wrong),
        again_s=again["seconds"],
        **taken,
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
