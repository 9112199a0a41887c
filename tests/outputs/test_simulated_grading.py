"""A small class from notebooks to marks: every score is as constructed, marks by hand stay."""

import csv
import json

import pytest

from course_utils.cli import main
from course_utils.grader.autograde import simulated

SEED = 77


def course_grade(folder) -> int:
    options = ("--out", str(folder / "out"), "--jobs", "1", "--seed", str(SEED))
    return main(["grade", str(folder / "submitted"), *options])


def table(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_score_is_as_constructed(tmp_path):
    class_ = list(simulated.make_class(6, judge_seed=SEED, lessons=("00", "03")))
    simulated.write(tmp_path, class_)
    unreadable = tmp_path / "submitted" / "zoe" / "00_start_here" / "00_start_here.ipynb"
    unreadable.parent.mkdir(parents=True)
    unreadable.write_text("{")
    assert course_grade(tmp_path) == 1, "an unreadable notebook is to be looked at"

    rows = table(tmp_path / "out" / "grades.csv")
    found = {(r["student"], r["lesson"], r["exercise"]): r for r in rows}
    for one in class_:
        for name, points in one.scores.items():
            row = found[one.student, one.lesson, name]
            assert float(row["score"]) == pytest.approx(points, abs=1e-3), (one.kinds[name], row)
    assert found["zoe", "00_start_here", ""]["status"] == "unreadable"
    records = [json.loads(line) for line in (tmp_path / "out" / "journal.jsonl").open()]
    assert len(records) == 7 and all(record["sandbox"] for record in records)
    assert records[0]["sandbox"] in (tmp_path / "out" / "report.html").read_text("utf-8")
    for one in class_:
        page = tmp_path / "out" / "feedback" / one.student / f"{one.lesson}.html"
        assert f"{one.expected:g} of " in page.read_text("utf-8")

    waiting = [row for row in rows if row["status"] == "to_mark"]
    assert waiting, "somebody answered lesson 03's question"
    student = waiting[0]["student"]
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{tmp_path / 'out' / 'gradebook.db'}") as book:
        lesson = waiting[0]["lesson"]
        grade = book.find_grade("training-batch-size", lesson, lesson, student)
        grade.manual_score, grade.needs_manual_grade = 2.5, False
        book.db.commit()
    before = (tmp_path / "out" / "journal.jsonl").read_bytes()
    course_grade(tmp_path)
    assert (tmp_path / "out" / "journal.jsonl").read_bytes() == before, "judged again for nothing"
    again = table(tmp_path / "out" / "grades.csv")
    marked = [row for row in again if row["status"] == "marked"]
    assert [(row["student"], row["score"]) for row in marked] == [(student, "2.5")]
