"""The README's figures are those of the measurements, to the last digit."""

import subprocess
import sys

from course_utils.paths import course_root


def test_the_readme_says_what_was_measured():
    report = course_root() / "benchmarks" / "report.py"
    done = subprocess.run([sys.executable, str(report), "--check"])
    assert done.returncode == 0, "run: python benchmarks/report.py"


def test_a_figure_changed_by_hand_is_noticed(tmp_path):
    root = course_root()
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    for file in (root / "benchmarks" / "results").glob("*.json"):
        (results / file.name).write_bytes(file.read_bytes())
    copy = tmp_path / "benchmarks" / "report.py"
    copy.write_bytes((root / "benchmarks" / "report.py").read_bytes())
    readme = (root / "README.md").read_text("utf-8")
    begin = "<!-- figures: written by benchmarks/report.py -->\n"
    (tmp_path / "README.md").write_text(readme.replace(begin, begin + "100 % in 1 s\n"), "utf-8")
    assert subprocess.run([sys.executable, str(copy), "--check"]).returncode == 1
    assert subprocess.run([sys.executable, str(copy)]).returncode == 0
    assert (tmp_path / "README.md").read_text("utf-8") == readme
