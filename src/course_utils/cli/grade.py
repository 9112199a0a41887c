"""`course grade`: a folder of submissions in, grades and reports out."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from course_utils.cli.output import console, print_table


def grade(arguments: argparse.Namespace) -> int:
    """Grade; 1 when something is left for the instructor to look at."""
    from tqdm import tqdm

    from course_utils.grader.autograde.outputs import plain, write_all
    from course_utils.grader.autograde.records import FLAGGED
    from course_utils.grader.autograde.run import grade_folder

    out = Path(arguments.out)
    update, close = progress_bar()
    try:
        run = grade_folder(
            Path(arguments.submitted),
            out,
            lesson=arguments.lesson,
            jobs=arguments.jobs,
            seed=arguments.seed,
            resume=arguments.resume,
            unsafe=arguments.unsafe,
            progress=update,
        )
    finally:
        close()
    with tqdm(
        total=len(run.records), desc="reports", file=sys.stderr, disable=None, leave=False
    ) as bar:
        write_all(out, run.records, lambda done: bar.update(done - bar.n))
    statuses = run.statuses
    print_table(
        f"{len(run.records)} submissions",
        ("status", ">exercises"),
        [(status.replace("_", " "), str(n)) for status, n in statuses.most_common()],
    )
    for remark in run.remarks:
        console().print(f"passed over: {plain.line(remark)}", markup=False)
    flagged = [
        (record, exercise)
        for record in run.records
        for exercise in record.exercises
        if exercise.status in FLAGGED
    ]
    unreadable = [record for record in run.records if record.status == "unreadable"]
    if flagged or unreadable:
        console().print("[bold]To look at[/]")
    for record, exercise in flagged:
        student, said = (plain.line(s) for s in (record.student, exercise.problem))
        console().print(
            f"  {student}  {exercise.exercise}  {exercise.status}: {said or exercise.status}",
            markup=False,
        )
    for record in unreadable:
        student, said = plain.line(record.student), plain.line(record.problem)
        console().print(f"  {student}  {record.lesson}  {said}", markup=False)
    each = f", {1000 * run.seconds / run.graded:.0f} ms each" if run.graded else ""
    console().print(
        f"{run.graded} graded in {run.seconds:.1f} s{each}; {run.cached} unchanged since last "
        f"time. Sandbox: {run.level.says}."
    )
    console().print(f"report: {out / 'report.html'}", markup=False)
    return 1 if flagged or unreadable else 0


def progress_bar() -> tuple[Callable[[int, int, Counter[str]], None], Callable[[], None]]:
    """A bar on stderr with the time left and running counts, and the function that closes it."""
    from tqdm import tqdm

    bar = tqdm(unit="submission", file=sys.stderr, disable=None, leave=False, smoothing=0.1)

    def update(done: int, total: int, counts: Counter[str]) -> None:
        bar.total = total
        told = ("passed", "partial", "failed", "timeout", "memory", "crashed", "forbidden",
                "unreadable")  # fmt: skip
        bar.set_postfix({name: counts[name] for name in told if counts[name]}, refresh=False)
        bar.update(done - bar.n)

    return update, bar.close
