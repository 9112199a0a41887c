"""`course doctor` and `course data`: the machine, and what is stored on it."""

import argparse
from typing import Any

from course_utils.base.errors import CourseError
from course_utils.cli.output import console, print_json, print_table

_SIGN = {
    "ready": "[green]✓ ready[/]",
    "damaged": "[red]✗ damaged[/]",
    "missing": "○ not here",
    "streamed": "⇣ streamed",
}


def doctor(arguments: argparse.Namespace) -> int:
    """Measure the machine and say what it can do."""
    from course_utils.doctor import examine, render, to_json

    report = examine()
    print(to_json(report) if arguments.json else render(report))
    return 0


def data(arguments: argparse.Namespace) -> int:
    """List, fetch or verify data sets; verify exits 1 when one is damaged."""
    if arguments.action == "list" and arguments.names:
        raise CourseError("`course data list` takes no names; it lists everything.")
    if arguments.action == "get" and not arguments.names:
        raise CourseError("Say which: `course data get mnist`. The names: `course data list`.")
    return {"list": _list, "get": _get, "verify": _verify}[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    from course_utils.data.store import status

    rows: list[dict[str, Any]] = [
        {
            "name": row.name,
            "title": row.title,
            "megabytes": round(row.bytes / 1e6, 1),
            "licence": row.licence,
            "state": row.state,
            "folder": str(row.folder) if row.folder else None,
        }
        for row in status()
    ]
    if arguments.json:
        print_json(rows)
        return 0
    print_table(
        "Data sets",
        ("name", "state", ">MB", "what it is", "licence"),
        (
            (
                row["name"],
                _SIGN[row["state"]],
                f"{row['megabytes']:g}",
                row["title"],
                row["licence"],
            )
            for row in rows
        ),
    )
    return 0


def _get(arguments: argparse.Namespace) -> int:
    from course_utils.data.store import fetch

    for name in arguments.names:
        folder = fetch(name, force=arguments.force)
        console().print(f"{name}: ready in {folder}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from course_utils.data.store import status, verify

    here = ("ready", "damaged")
    names = arguments.names or [row.name for row in status() if row.state in here]
    reports = {name: verify(name) for name in names}
    if arguments.json:
        print_json(
            {name: {"state": r.state, "problems": r.problems} for name, r in reports.items()}
        )
    for name, report in () if arguments.json else reports.items():
        console().print(f"{_SIGN[report.state]} {name}")
        for file, problem in report.problems.items():
            console().print(f"    {file}: {problem}")
        if not report.ok:
            console().print(f"    to repair it: course data get {name}")
    return 0 if all(report.ok for report in reports.values()) else 1
