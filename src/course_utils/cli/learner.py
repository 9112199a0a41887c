"""`course check`, `status`, `hint`, `solution`: a learner's view of the exercises."""

import argparse
from pathlib import Path
from typing import Any

from rich.markup import escape

from course_utils.cli.output import console, print_json, print_table
from course_utils.exercises.index import DIFFICULTIES, entries, find_entry
from course_utils.exercises.progress import Progress

_SIGN = {"passed": "[green]✓[/]", "partial": "[yellow]◐[/]", "failed": "[red]✗[/]"}


def check(arguments: argparse.Namespace) -> int:
    """Check one notebook; 0 only when every exercise passes."""
    from course_utils.exercises.notebook import Checked, check_notebook, read_notebook

    def row(checked: Checked) -> dict[str, Any]:
        exercise, result = checked.exercise, checked.result
        if result is None:
            status, score, message = "failed", 0.0, checked.problem
        else:
            status = _status(result.passed, result.attempted, result.score)
            score = result.score
            failing = [outcome for outcome in result.outcomes if not outcome.passed]
            message = result.says or (failing[0].message if failing else "")
        return {
            "exercise": exercise.id,
            "title": exercise.title,
            "status": status,
            "score": score,
            "max_score": float(exercise.points),
            "message": message,
            "hint": result.hint if result else "",
        }

    path = notebook_path(arguments.notebook)
    rows = [row(checked) for checked in check_notebook(read_notebook(path))]
    passed = all(entry["status"] == "passed" for entry in rows)
    if arguments.json:
        print_json({"notebook": path.name, "passed": passed, "exercises": rows})
        return 0 if passed else 1
    print_table(
        path.name,
        ("", "exercise", ">points", "what the check says"),
        (
            (
                _SIGN.get(entry["status"], "○"),
                entry["exercise"],
                f"{entry['score']:g} / {entry['max_score']:g}",
                escape(entry["message"]),
            )
            for entry in rows
        ),
    )
    done = sum(entry["status"] == "passed" for entry in rows)
    total, best = (sum(entry[key] for entry in rows) for key in ("score", "max_score"))
    console().print(f"{done} of {len(rows)} exercises, {total:g} of {best:g} points")
    return 0 if passed else 1


def _status(passed: bool, attempted: bool, score: float) -> str:
    if passed:
        return "passed"
    if not attempted:
        return "not_attempted"
    return "partial" if score else "failed"


def notebook_path(name: str) -> Path:
    """A notebook by lesson number or by path."""
    if name.isdigit():
        from course_utils.authoring.build import learner_path
        from course_utils.authoring.lesson import find_lesson

        return learner_path(find_lesson(name))
    return Path(name)


def status(arguments: argparse.Namespace) -> int:
    """The learner's progress, lesson by lesson."""
    progress = Progress()
    rows: list[dict[str, Any]] = []
    for exercise in entries():
        standing = progress.standing(exercise.id)
        rows.append(
            {
                "lesson": exercise.lesson,
                "exercise": exercise.id,
                "title": exercise.title,
                "solved": standing.solved,
                "best": standing.best,
                "max_score": float(exercise.points),
                "attempts": standing.attempts,
                "minutes": exercise.minutes,
                "difficulty": DIFFICULTIES[exercise.difficulty],
            }
        )
    if arguments.json:
        print_json(rows)
        return 0
    sign = {True: "[green]✓[/]", False: "○"}
    print_table(
        "Your progress",
        ("", "lesson", "exercise", "title", ">best", ">attempts", ">minutes"),
        (
            (
                sign[entry["solved"]],
                entry["lesson"],
                entry["exercise"],
                escape(entry["title"]),
                f"{entry['best']:g} / {entry['max_score']:g}",
                str(entry["attempts"]),
                str(entry["minutes"]),
            )
            for entry in rows
        ),
    )
    solved = sum(entry["solved"] for entry in rows)
    todo = next((entry for entry in rows if not entry["solved"]), None)
    console().print(f"{solved} of {len(rows)} exercises solved")
    if todo:
        console().print(f"Next: {todo['exercise']} in lesson {todo['lesson']}")
    return 0


def hint(arguments: argparse.Namespace) -> int:
    """Show one more hint each time."""
    exercise = find_entry(arguments.exercise)
    shown = Progress().show_hint(exercise.id, len(exercise.hints))
    for number, words in enumerate(exercise.hints[:shown], start=1):
        console().print(f"{number}. {escape(words)}")
    if shown == len(exercise.hints):
        console().print(f"That was the last hint. The solution: course solution {exercise.id}")
    return 0


def solution(arguments: argparse.Namespace) -> int:
    """Print the library's source: the one solution there is."""
    source = find_entry(arguments.exercise).source
    from rich.syntax import Syntax

    out = console()
    if out.is_terminal:
        out.print(Syntax(source, "python", theme="ansi_light"))
    else:
        print(source, end="")
    return 0
