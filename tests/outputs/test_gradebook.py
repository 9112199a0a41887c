"""The real nbgrader reads what we write, and what people entered there stays."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from course_utils.base.errors import CourseError
from course_utils.grader.autograde.outputs import gradebook, standing, write_all
from course_utils.grader.autograde.outputs.lessons import released
from course_utils.grader.autograde.records import WrittenAnswer

LESSON, QUESTION = "03_training_well", "training-batch-size"


@contextmanager
def opened(out: Path):
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{out / 'gradebook.db'}") as book:
        yield book


def nbgrader(out: Path, *arguments: str) -> None:
    scripts = str(Path(sys.executable).parent)
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=out,
        env={**os.environ, "PATH": scripts + os.pathsep + os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def with_answer(records, text):
    """The class, its first student's answer to lesson 03's question being `text`."""
    answer = WrittenAnswer(question="training.batch_size", text=text, max_score=3.0)
    who = next(record for record in records if record.lesson == LESSON)
    changed = replace(who, answers=(answer,))
    return [changed if record is who else record for record in records], who.student


@pytest.mark.slow
def test_stock_commands_read_it(records, tmp_path):
    records, student = with_answer(records, "Noise <script>alert(1)</script> falls.")
    write_all(tmp_path, records)
    nbgrader(tmp_path, "generate_feedback", LESSON, f"--student={student}", "--course-dir=.")
    page = (tmp_path / "feedback" / student / LESSON / f"{LESSON}.html").read_text()
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page
    assert "points: everything held" in page
    nbgrader(tmp_path, "export", "--to=export.csv")
    rows = [line.split(",") for line in (tmp_path / "export.csv").read_text().splitlines()[1:]]
    ours = {(record.lesson, record.student): record.score for record in records}
    assert {(row[0], row[3]): float(row[9]) for row in rows} == ours


def test_what_formgrader_shows(records, out):
    records, student = with_answer(records, "Half the noise needs four times the batch.")
    write_all(out, records)
    handed_in = out / "submitted" / student / LESSON
    handed_in.mkdir(parents=True)  # formgrader compares the times
    (handed_in / "timestamp.txt").write_text("2026-03-01 10:00:00 UTC")
    from nbgrader.apps.api import NbGraderAPI
    from traitlets.config import Config

    from course_utils.grader.autograde.outputs.autograded import path

    config = Config()
    config.CourseDirectory.root = str(out)
    submission = NbGraderAPI(config=config).get_submission(LESSON, student)
    record = next(r for r in records if (r.student, r.lesson) == (student, LESSON))
    assert submission["score"] == record.score and submission["needs_manual_grade"]
    assert submission["max_score"] == record.max_score + 3 and submission["autograded"]
    assert submission["timestamp"] == "2026-03-01T10:00:00"
    assert path(out, student, LESSON).is_file()


def test_the_notebooks_are_the_released_ones_with_what_was_handed_in(records):
    import nbformat

    from course_utils.grader.autograde.outputs import autograded

    records, student = with_answer(records, "An <b>answer</b>.")
    record = next(r for r in records if (r.student, r.lesson) == (student, LESSON))
    made = nbformat.reads(autograded.notebook(record), as_version=4)
    nbformat.validate(made)
    assert made.metadata == released(LESSON).metadata and made.nbformat_minor >= 5
    graded = {one.exercise: one for one in record.exercises}
    seen = set()
    for cell, handed_out in zip(made.cells, released(LESSON).cells, strict=True):
        ours = cell.metadata.get("course", {})
        if ours.get("role") == "answer":
            assert cell.source == "An &lt;b>answer&lt;/b>."
        elif ours.get("role") == "solution" and ours["exercise"] in graded:
            assert cell.source.strip() == graded[ours["exercise"]].source.strip()
            seen.add(ours["exercise"])
        elif ours.get("role") == "check" and ours["exercise"] in graded:
            [printed, score] = cell.outputs
            assert printed.text == autograded.verdict(graded[ours["exercise"]])
            assert score.data["text/plain"] == str(graded[ours["exercise"]].score)
        else:
            assert cell == handed_out
    assert seen == set(graded)


def test_marks_given_by_hand_stay(records, out):
    records, student = with_answer(records, "An answer.")
    write_all(out, records)
    with opened(out) as book:
        grade = book.find_grade(QUESTION, LESSON, LESSON, student)
        assert grade.needs_manual_grade and grade.auto_score is None
        grade.manual_score, grade.needs_manual_grade, grade.extra_credit = 2.5, False, 0.5
        book.find_comment(QUESTION, LESSON, LESSON, student).manual_comment = "Good."
        book.find_submission(LESSON, student).notebooks[0].late_submission_penalty = 1.0
        book.db.commit()

    write_all(out, records)
    with opened(out) as book:
        grade = book.find_grade(QUESTION, LESSON, LESSON, student)
        assert (grade.manual_score, grade.needs_manual_grade) == (2.5, False)
        assert book.find_comment(QUESTION, LESSON, LESSON, student).comment == "Good."
    record = next(r for r in records if (r.student, r.lesson) == (student, LESSON))
    marks = standing.read(out / "gradebook.db")
    assert marks.totals[student, LESSON] == record.score + 3 - 1
    assert f"{student},{LESSON},training.batch_size,2.5,3,marked" in (
        (out / "grades.csv").read_text()
    )
    assert "2.5 / 3" in (out / "feedback" / student / f"{LESSON}.html").read_text()

    # Another answer: the mark stays, and somebody is asked to look again.
    changed, _ = with_answer(records, "Another answer.")
    write_all(out, changed)
    write_all(out, changed)
    with opened(out) as book:
        grade = book.find_grade(QUESTION, LESSON, LESSON, student)
        assert (grade.manual_score, grade.needs_manual_grade) == (2.5, True)


def test_blank_answers_need_nobody(records, out):
    records, student = with_answer(records, "YOUR ANSWER HERE")
    gradebook.update(out, records, released)
    with opened(out) as book:
        grade = book.find_grade(QUESTION, LESSON, LESSON, student)
        assert (grade.auto_score, grade.needs_manual_grade) == (0.0, False)
        assert book.find_comment(QUESTION, LESSON, LESSON, student).comment == "No response."


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-03-01 10:00:00 UTC", 10),
        ("2026-03-01T10:00:00+02:00", 8),
        ("2026-03-01 10:00:00.123456 +0100", 9),
        ("2026-07-01 10:00:00 Europe/Berlin", 8),
        ("2026-99-01 10:00:00 UTC", None),
        ("yesterday", None),
        ("2026-03-01 10:00:00 /dev/stdin", None),
        ("2026-03-01 10:00:00 ../../../../dev/stdin", None),
        ("", None),
    ],
)
def test_times_are_nbgraders_and_open_no_files(text, hour):
    found = gradebook._moment(text)
    assert (found and found.hour) == hour


def test_a_crash_is_no_zero(records, out):
    first = records[0]
    crashed = replace(first.exercises[0], status="crashed", score=0.0)
    record = replace(first, exercises=(crashed, *first.exercises[1:]))
    gradebook.update(out, [record], released)
    name = crashed.exercise.replace(".", "-").replace("_", "-")
    with opened(out) as book:
        grade = book.find_grade(name, first.lesson, first.lesson, first.student)
        assert grade.needs_manual_grade
        grade.manual_score, grade.needs_manual_grade = 2.0, False
        book.db.commit()
    gradebook.update(out, [record], released)  # nothing new: the decision stands
    assert not standing.read(out / "gradebook.db").to_mark


def test_nbgraders_own_release_and_its_dates_are_kept(records, out):
    from datetime import datetime

    gradebook.update(out, records[:1], released)
    lesson = records[0].lesson
    with opened(out) as book:
        book.update_or_create_assignment(lesson, duedate=datetime(2026, 2, 28, 10))
        book.update_or_create_student(records[0].student, first_name="Ada", last_name="Lovelace")
        ids = {grade.id for grade in book.find_submission(lesson, records[0].student).notebooks}
    write_all(out, records)
    with opened(out) as book:
        submission = book.find_submission(lesson, records[0].student)
        assert submission.total_seconds_late == 24 * 3600
        assert {one.id for one in submission.notebooks} == ids
    assert "Lovelace, Ada" in (out / "canvas.csv").read_text()


def test_cells_are_those_that_nbgrader_would_record(records, out, empty_gradebook):
    """The same grade, solution and source cells as `nbgrader generate_assignment` makes."""
    from nbgrader.preprocessors import SaveCells

    records = [record for record in records if record.lesson == LESSON]
    gradebook.update(out, records, released)

    def cells(folder):
        with opened(folder) as book:
            notebook = book.find_notebook(LESSON, LESSON)
            return (
                {(c.name, c.max_score, c.cell_type) for c in notebook.grade_cells},
                {c.name for c in notebook.solution_cells},
                {
                    (c.name, c.cell_type, c.locked, c.source, c.checksum)
                    for c in notebook.source_cells
                },
            )

    theirs = out / "theirs"
    theirs.mkdir()
    shutil.copy(empty_gradebook, theirs)
    with opened(theirs) as book:
        book.add_assignment(LESSON)
    resources = {
        "nbgrader": {
            "notebook": LESSON,
            "assignment": LESSON,
            "db_url": f"sqlite:///{theirs / 'gradebook.db'}",
        }
    }
    SaveCells().preprocess(released(LESSON), resources)
    assert cells(out) == cells(theirs)


def test_a_file_that_is_no_gradebook_is_left_alone(records, tmp_path):
    (tmp_path / "gradebook.db").write_text("a shopping list\n" * 100)
    with pytest.raises(CourseError, match="gradebook"):
        gradebook.update(tmp_path, records, released)
    assert (tmp_path / "gradebook.db").read_text().startswith("a shopping list")


def test_two_students_with_one_name_are_one(records, out):
    gradebook.update(out, [records[0], records[0]], released)
    with opened(out) as book:
        found = book.find_submission(records[0].lesson, records[0].student)
        assert found.score == records[0].score
