"""`course doctor` and `course data`: the machine, and what is stored on it."""

import argparse


def doctor(arguments: argparse.Namespace) -> int:
    """Measure the machine; 1 when a lesson lacks something."""
    from course_utils.doctor import examine, render, to_json

    report = examine()
    print(to_json(report) if arguments.json else render(report))
    return 0
