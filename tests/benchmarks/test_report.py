"""The figures in README.md and docs/measured.md are those of the measurements, to the digit."""

import shutil
import subprocess
import sys

import pytest

from course_utils.base.paths import course_root

PAGES = ("README.md", "docs/measured.md")
BEGIN = "<!-- figures: written by benchmarks/report.py -->\n"


def test_the_pages_say_what_was_measured():
    report = course_root() / "benchmarks" / "report.py"
    done = subprocess.run([sys.executable, str(report), "--check"])
    assert done.returncode == 0, "run: python benchmarks/report.py"


@pytest.mark.parametrize("page", PAGES)
def test_a_figure_changed_by_hand_is_noticed(page, tmp_path):
    root = course_root()
    shutil.copytree(root / "benchmarks", tmp_path / "benchmarks")
    (tmp_path / "docs").mkdir()
    texts = {name: (root / name).read_text("utf-8") for name in PAGES}
    for name, text in texts.items():
        changed = text.replace(BEGIN, BEGIN + "100 % in 1 s\n") if name == page else text
        (tmp_path / name).write_text(changed, "utf-8")
    copy = str(tmp_path / "benchmarks" / "report.py")
    assert subprocess.run([sys.executable, copy, "--check"]).returncode == 1
    assert subprocess.run([sys.executable, copy]).returncode == 0
    assert {name: (tmp_path / name).read_text("utf-8") for name in PAGES} == texts
