"""Tables for spreadsheets and learning platforms.

grades.csv     a row for each exercise and question of each submission
canvas.csv     for Canvas, Grades > Import. The columns are those of its export: Student, ID,
               SIS User ID, SIS Login ID, Section, then the assignments, with a second row "Points
               Possible" (Instructure, "How do I import grades in the Gradebook?"). A student is
               found by the first of the identifiers that is filled in: ID is `lms_user_id` of
               nbgrader's roster, SIS Login ID the name of the student's folder.
moodle.csv     for Moodle, Grades > Import > CSV file (docs.moodle.org, "Grade import"). Choose
               there which column is mapped to which: username or email to the user, each lesson to
               its grade item and "… feedback" to its feedback; Moodle loses grades when feedback is
               imported without them, so both are there.

An empty field means that there is nothing to import: no submission, or one that a person has yet to
look at.
"""

import csv
import io
from collections.abc import Iterable, Sequence

from course_utils.grader.autograde.outputs import plain
from course_utils.grader.autograde.outputs.lessons import grade_id
from course_utils.grader.autograde.outputs.standing import Name, Standing
from course_utils.grader.autograde.records import SubmissionGrade


def grades(records: Iterable[SubmissionGrade], standing: Standing) -> str:
    """grades.csv. `score` is the mark that was given by hand where there is one."""
    columns = ("student", "lesson", "exercise", "score", "max_score", "status")
    rows: list[tuple[str, ...]] = []
    for record in records:
        place = plain.field(record.student), plain.field(record.lesson)

        def by_hand(name: str, record: SubmissionGrade = record) -> float | None:
            who = plain.name(record.student)
            return standing.by_hand.get((who, record.lesson, grade_id(name)))

        if record.status == "unreadable":
            rows.append((*place, "", "", "", "unreadable"))
        for exercise in record.exercises:
            mark = by_hand(exercise.exercise)
            score = exercise.score if mark is None else mark
            points = f"{score:g}", f"{exercise.max_score:g}"
            rows.append((*place, plain.field(exercise.exercise), *points, exercise.status))
        for answer in record.answers:
            mark = by_hand(answer.question)
            points = ("" if mark is None else f"{mark:g}"), f"{answer.max_score:g}"
            status = "to_mark" if mark is None else "marked"
            rows.append((*place, plain.field(answer.question), *points, status))
    return _csv(columns, sorted(rows, key=lambda row: tuple(row[:3])))


def canvas(records: Sequence[SubmissionGrade], standing: Standing) -> str:
    """canvas.csv."""
    lessons = sorted({record.lesson for record in records})
    most = _most(records, standing)
    columns = (
        "Student",
        "ID",
        "SIS User ID",
        "SIS Login ID",
        "Section",
        *map(plain.field, lessons),
    )
    rows = [("    Points Possible", "", "", "", "", *(f"{most[name]:g}" for name in lessons))]
    for student, points in _by_student(records, standing):
        name = standing.names.get(student, Name())
        full = ", ".join(word for word in (name.last, name.first) if word) or student
        who = (full, name.lms_id, "", student, "")
        rows.append((*map(plain.field, who), *(points.get(lesson, "") for lesson in lessons)))
    return _csv(columns, rows)


def moodle(records: Sequence[SubmissionGrade], standing: Standing) -> str:
    """moodle.csv."""
    lessons = sorted({record.lesson for record in records})
    of = {(plain.name(record.student), record.lesson): record for record in records}
    columns = ["username", "email", "firstname", "lastname"]
    for lesson in lessons:
        columns += [plain.field(lesson), plain.field(f"{lesson} feedback")]
    rows = []
    for student, points in _by_student(records, standing):
        name = standing.names.get(student, Name())
        row = [plain.field(word) for word in (student, name.email, name.first, name.last)]
        for lesson in lessons:
            record = of.get((student, lesson))
            row += [points.get(lesson, ""), plain.field(_summary(record)) if record else ""]
        rows.append(tuple(row))
    return _csv(columns, rows)


def _summary(record: SubmissionGrade) -> str:
    if record.status == "unreadable":
        return "This submission could not be read."
    passed = sum(exercise.status == "passed" for exercise in record.exercises)
    open_ = [e.title for e in record.exercises if e.status != "passed"]
    still = f" Still open: {', '.join(open_)}." if open_ else ""
    return f"{passed} of {len(record.exercises)} exercises held in full.{still}"


def _most(records: Iterable[SubmissionGrade], standing: Standing) -> dict[str, float]:
    """The points of each lesson: the gradebook's, or the largest that a record names."""
    most = dict(standing.most)
    for record in records:
        if record.lesson not in standing.most:
            written = sum(answer.max_score for answer in record.answers)
            most[record.lesson] = max(most.get(record.lesson, 0.0), record.max_score + written)
    return most


def _by_student(
    records: Iterable[SubmissionGrade], standing: Standing
) -> list[tuple[str, dict[str, str]]]:
    """Students in their order, each with the points that may be handed on."""
    waiting = {(who, lesson) for who, lesson, _ in standing.to_mark}
    points: dict[str, dict[str, str]] = {}
    for record in records:
        who = plain.name(record.student)
        of = points.setdefault(who, {})
        flagged = record.status == "unreadable" or any(e.flagged for e in record.exercises)
        key = who, record.lesson
        if key in standing.totals:
            flagged = key in waiting
        if not flagged:
            of[record.lesson] = f"{standing.totals.get(key, record.score):g}"
    return sorted(points.items())


def _csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")  # RFC 4180
    writer.writerow(columns)
    writer.writerows(rows)
    return file.getvalue()
