"""What the sandbox costs: a call through the proxy, a child, a submission beyond its checks.

    python benchmarks/grading.py            and results/grading-….json
    python benchmarks/grading.py --quick    less of it, written nowhere

- A call: the learner's function gets a small tensor and returns one, both ways through the proxy.
- A child: from the connection to its first answer, forked and locked in.
- A submission of lesson 02, all solved: read, judged in the sandbox, and made into a record. Beside
  it the same checks on the same solutions in one process, without any sandbox; what is more than
  that is what `course grade` adds.

Times are medians, in wall time, one submission after another. How many submissions two processes
grade in a minute, and how many stock nbgrader does, is measured by against_nbgrader.py.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import Record, machine, quick_option

from course_utils.authoring.build import build
from course_utils.authoring.lesson import find_lesson
from course_utils.exercises.judge import run_check
from course_utils.grader.autograde.grade import exercise_seed, grade
from course_utils.grader.autograde.plan import LessonPlan, lesson_plan
from course_utils.grader.autograde.submission import Found
from course_utils.grader.sandbox.session import Session, Zygote

LESSON, SECRET = "02", 2026


def milliseconds(call: Callable[[], object], times: int) -> float:
    """The median of `times` calls, after one that does not count."""
    call()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def solved(plan: LessonPlan, folder: Path) -> Found:
    """The lesson with all references in it."""
    notebook = json.loads(json.dumps(build(find_lesson(plan.number), "learner")))
    sources = {p.exercise.id: p.exercise.source for p in plan.exercises}
    for cell in notebook["cells"]:
        ours = cell["metadata"].get("course", {})
        if ours.get("role") == "solution":
            cell["source"] = sources[ours["exercise"]]
    path = folder / "anna" / plan.name / f"{plan.name}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(notebook), "utf-8")
    return Found("anna", plan.name, path)


def one_call(zygote: Zygote, times: int) -> float:
    session = Session(zygote)
    try:
        session.run_cell("def same(x):\n    return x + 1\n", "<benchmark>", "same")
        student, x = session.student(), torch.randn(3, 4)
        with session.time_limit(1000.0, 1000.0):
            return milliseconds(lambda: student(x), times)
    finally:
        session.close()


def one_child(zygote: Zygote) -> None:
    session = Session(zygote)
    session.run_cell("same = abs\n", "<benchmark>", "same")
    session.close()


def checks_alone(plan: LessonPlan) -> None:
    """The same checks, seeds and solutions in this process."""
    for planned in plan.exercises:
        exercise = planned.exercise
        for check in exercise.checks:
            seed = exercise_seed(SECRET, exercise)
            assert run_check(exercise, check, exercise.target, seed).passed


def main() -> None:
    quick = quick_option(__doc__)
    torch.set_num_threads(1)
    about, record = machine(), Record("grading", keep=not quick)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # as a worker of `course grade`
    plan = lesson_plan(LESSON)
    times = 10 if quick else 60
    with (
        tempfile.TemporaryDirectory() as folder,
        Zygote([p.exercise for p in plan.exercises], plan.setup) as zygote,
    ):
        found = solved(plan, Path(folder))

        def submission() -> None:
            assert all(e.status == "passed" for e in grade(found, plan, zygote, SECRET).exercises)

        call = record("call_ms", lambda: one_call(zygote, 200 if quick else 3000))
        child = record("child_ms", lambda: milliseconds(lambda: one_child(zygote), times))
        # In turn, so that a busy minute hits both.
        pairs = record(
            "pairs_ms",
            lambda: [
                [
                    milliseconds(submission, times // 5),
                    milliseconds(lambda: checks_alone(plan), times // 5),
                ]
                for _ in range(5)
            ],
        )
        whole = statistics.median(pair[0] for pair in pairs)
        alone = statistics.median(pair[1] for pair in pairs)
        level = zygote.level.says
    print(f"sandbox: {level}")
    print(f"a call through the proxy       {call:7.3f} ms")
    print(f"a child, forked and locked in  {child:7.1f} ms")
    print(f"a submission of lesson {LESSON}      {whole:7.1f} ms")
    print(f"  its checks alone             {alone:7.1f} ms")
    print(f"  beyond them                  {whole - alone:7.1f} ms")
    record.finish(
        about, sandbox=level, call_ms=call, child_ms=child, submission_ms=whole,
        checks_ms=alone, beyond_ms=whole - alone,
    )  # fmt: skip


if __name__ == "__main__":
    main()
