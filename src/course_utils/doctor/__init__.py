"""What this machine can do, measured in about a second, and whether each lesson will run on it.

    report = examine()
    print(render(report))       tables for a terminal; to_json(report) for a program
    capability_card(report)     a card for a notebook

Nothing here imports torch before `examine` is called, and that works without torch too: a broken
installation is one of the things it is asked about.
"""

from course_utils.doctor.card import capability_card
from course_utils.doctor.needs import Need, Verdict
from course_utils.doctor.render import render
from course_utils.doctor.report import Report, examine, to_json

__all__ = ["Need", "Report", "Verdict", "capability_card", "examine", "render", "to_json"]
