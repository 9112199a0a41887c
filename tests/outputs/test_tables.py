"""What spreadsheets and learning platforms are given."""

import csv
from dataclasses import replace

from course_utils.grader.autograde.outputs import tables
from course_utils.grader.autograde.outputs.standing import Name, Standing
from course_utils.grader.autograde.records import ExerciseGrade, SubmissionGrade, WrittenAnswer


def exercise(status="passed", score=3.0):
    return ExerciseGrade(
        exercise="start.accuracy", title="Accuracy", status=status, score=score, max_score=3.0
    )


def graded(student, *exercises, lesson="00_start_here", answers=()):
    return SubmissionGrade(
        student=student, lesson=lesson, status="graded", exercises=exercises, answers=answers
    )


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


def test_grades_are_sorted_and_complete():
    answer = WrittenAnswer(question="training.batch_size", text="…", max_score=3.0)
    class_ = [
        graded("eve", exercise("crashed", 0.0)),
        graded("ada", exercise("partial", 1.5), lesson="03_training_well", answers=(answer,)),
        SubmissionGrade(student="bob", lesson="00_start_here", status="unreadable"),
    ]
    given = {("ada", "03_training_well", "training-batch-size"): 2.0}
    expected = [
        ["student", "lesson", "exercise", "score", "max_score", "status"],
        ["ada", "03_training_well", "start.accuracy", "1.5", "3", "partial"],
        ["ada", "03_training_well", "training.batch_size", "", "3", "to_mark"],
        ["bob", "00_start_here", "", "", "", "unreadable"],
        ["eve", "00_start_here", "start.accuracy", "0", "3", "crashed"],
    ]
    assert rows(tables.grades(class_, Standing())) == expected
    expected[2][3], expected[2][5] = "2", "marked"
    assert rows(tables.grades(class_[::-1], Standing(by_hand=given))) == expected


def test_no_cell_of_any_table_is_a_formula():
    class_ = [graded(name, exercise()) for name in ("=1+1", "+1", "-1", "@x", "ada\r\n=1")]
    for table in (tables.grades, tables.canvas, tables.moodle):
        for row in rows(table(class_, Standing())):
            assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row), row


def test_canvas_has_its_columns_and_its_points_row():
    standing = Standing(
        names={"ada": Name("Lovelace", "Ada", "ada@x.org", "4711")},
        totals={("ada", "00_start_here"): 2.5},
        most={"00_start_here": 3.0},
    )
    head, most, ada, bob = rows(
        tables.canvas([graded("ada", exercise()), graded("bob", exercise(score=1.0))], standing)
    )
    assert head == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "00_start_here"]
    assert most == ["    Points Possible", "", "", "", "", "3"]
    assert ada == ["Lovelace, Ada", "4711", "", "ada", "", "2.5"]
    assert bob == ["bob", "", "", "bob", "", "1"]


def test_moodle_has_a_grade_beside_every_feedback():
    class_ = [graded("ada", exercise("partial", 1.0)), graded("bob", exercise(), lesson="01_x")]
    head, ada, bob = rows(tables.moodle(class_, Standing()))
    assert head[:4] == ["username", "email", "firstname", "lastname"]
    assert head[4:] == ["00_start_here", "00_start_here feedback", "01_x", "01_x feedback"]
    assert ada[4:] == ["1", "0 of 1 exercises held in full. Still open: Accuracy.", "", ""]
    assert bob[4:] == ["", "", "3", "1 of 1 exercises held in full."]


def test_nothing_is_handed_on_before_somebody_has_looked():
    crashed = graded("ada", exercise("crashed", 0.0))
    unread = SubmissionGrade(student="bob", lesson="00_start_here", status="unreadable")
    points = [row[-1] for row in rows(tables.canvas([crashed, unread], Standing()))[2:]]
    assert points == ["", ""]
    decided = Standing(totals={("ada", "00_start_here"): 2.0})
    assert rows(tables.canvas([crashed], decided))[2][-1] == "2"
    waiting = replace(decided, to_mark=frozenset({("ada", "00_start_here", "start-accuracy")}))
    assert rows(tables.canvas([crashed], waiting))[2][-1] == ""
