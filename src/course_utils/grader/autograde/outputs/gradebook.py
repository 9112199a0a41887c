"""gradebook.db: nbgrader's database, filled with the judge's scores.

The tables are nbgrader's own (nbgrader.api), and what is written follows its `autograde`: a grade
for each graded cell, a comment for each cell that the learner wrote. Marks, comments, extra credit,
late penalties, due dates and extensions that a person gave are never touched. A mark given by hand
is asked for again only when what it was given for has changed.

A new database is made beside its place and moved there; an existing one changes in one
transaction, also while formgrader has it open.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from course_utils.authoring.build import UNANSWERED
from course_utils.base.durable import disk_errors
from course_utils.base.errors import CourseError
from course_utils.grader.autograde.outputs import autograded, plain
from course_utils.grader.autograde.outputs.feedback_page import WORDS
from course_utils.grader.autograde.outputs.lessons import Cell, marked_cells
from course_utils.grader.autograde.records import ExerciseGrade, SubmissionGrade

COURSE = "deep-learning"  # as in grading/nbgrader_config.py

Released = Callable[[str], NotebookNode | None]


def update(out: Path, records: Sequence[SubmissionGrade], released: Released) -> None:
    """Bring `out/gradebook.db` up to date with the records; makes it when there is none.

    Raises:
        CourseError: nbgrader is not installed, or the file is no gradebook of its version.
    """
    path, draft = out / "gradebook.db", out / ".gradebook.db.writing"
    with disk_errors(f"write {path}"), _explained(path):
        out.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _fill(path, out, records, released)
            return
        draft.unlink(missing_ok=True)
        _fill(draft, out, records, released)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    api = _api()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (api.InvalidEntry, SQLAlchemyError) as error:
        reason = str(getattr(error, "orig", None) or error).split("\n")[0][:200]
        raise CourseError(
            f"{path} could not be written ({reason}). Is it another program's, or an older "
            f"nbgrader's? Then `nbgrader db upgrade --db sqlite:///{path}`, or move it away."
        ) from error


def _api() -> Any:
    try:
        from nbgrader import api
    except ImportError:
        raise CourseError("gradebook.db needs nbgrader: pip install nbgrader alembic") from None
    return api


@contextmanager
def _interpreters_path() -> Iterator[None]:
    """nbgrader calls `alembic`, which lies beside the interpreter and is not always on PATH."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = str(Path(sys.executable).parent) + os.pathsep + before
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _fill(path: Path, out: Path, records: Sequence[SubmissionGrade], released: Released) -> None:
    api = _api()
    with _interpreters_path():
        book = api.Gradebook(f"sqlite:///{path}", COURSE)
    with book:
        writer = _Writer(api, book.db, out)
        for lesson in sorted({record.lesson for record in records}):
            notebook = released(lesson)
            if notebook is not None:
                of_lesson = [record for record in records if record.lesson == lesson]
                writer.lesson(lesson, notebook, of_lesson)
        book.db.commit()


def new_id(*parts: str) -> str:
    """An id as nbgrader's, and the same for the same thing."""
    return hashlib.md5("\0".join(parts).encode("utf-8", "replace")).hexdigest()


class _Writer:
    """Rows by what they are about: found where they are there, added where not."""

    def __init__(self, api: Any, session: Any, out: Path) -> None:
        self.api, self.session, self.out = api, session, out
        self.students = {row.id for row in session.query(api.Student)}

    def lesson(
        self, lesson: str, notebook: NotebookNode, records: Sequence[SubmissionGrade]
    ) -> None:
        """One assignment with its notebook, cells and submissions."""
        api, session = self.api, self.session
        assignment = session.query(api.Assignment).filter_by(name=lesson).one_or_none()
        if assignment is None:
            assignment = api.Assignment(lesson, course_id=COURSE)
            assignment.id = new_id(lesson)
            session.add(assignment)
        book = session.query(api.Notebook).filter_by(name=lesson, assignment_id=assignment.id)
        book = book.one_or_none()
        if book is None:
            book = api.Notebook(
                id=new_id(lesson, lesson),
                name=lesson,
                assignment_id=assignment.id,
                kernelspec=json.dumps(notebook.metadata.get("kernelspec", {})),
            )
            session.add(book)
        session.flush()
        cells = self._cells(lesson, notebook, book.id)
        there = _Rows.of(api, session, assignment.id, book.id)
        for record in records:
            self._submission(record, assignment.id, book.id, cells, there)
        session.flush()

    def _cells(self, lesson: str, notebook: NotebookNode, book: str) -> list["_MarkedCell"]:
        """The notebook's cells: what nbgrader's `generate_assignment` would record."""
        api, session = self.api, self.session
        graded = {c.name: c for c in session.query(api.GradeCell).filter_by(notebook_id=book)}
        solved = {c.name: c for c in session.query(api.SolutionCell).filter_by(notebook_id=book)}
        found = []
        for marked in marked_cells(notebook):
            name, marks = marked.grade_id, marked.marks
            grade = solution = None
            if marks["grade"]:
                grade = graded.pop(name, None)
                if grade is None:
                    grade = api.GradeCell(
                        id=new_id(lesson, name, "grade"), name=name, notebook_id=book
                    )
                    session.add(grade)
                grade.max_score = float(marks["points"])
                grade.cell_type = marked.cell.cell_type
            if marks["solution"]:
                solution = solved.pop(name, None)
                if solution is None:
                    solution = api.SolutionCell(
                        id=new_id(lesson, name, "solution"), name=name, notebook_id=book
                    )
                    session.add(solution)
            session.flush()
            found.append(_MarkedCell(marked, grade and grade.id, solution and solution.id))
        for cell in (*graded.values(), *solved.values()):
            self._forget(cell)
        self._sources(lesson, notebook, book)
        return found

    def _forget(self, cell: Any) -> None:
        """A cell that the lesson no longer has, unless somebody marked it by hand."""
        api, session = self.api, self.session
        grades = session.query(api.Grade).filter_by(cell_id=cell.id).all()
        if any(grade.manual_score is not None for grade in grades):
            return
        for row in (*grades, *session.query(api.Comment).filter_by(cell_id=cell.id)):
            session.delete(row)
        session.flush()
        session.delete(cell)

    def _sources(self, lesson: str, notebook: NotebookNode, book: str) -> None:
        api, session = self.api, self.session
        kept = {c.name: c for c in session.query(api.SourceCell).filter_by(notebook_id=book)}
        for cell in notebook.cells:
            marks = cell.metadata.get("nbgrader")
            if not marks:
                continue
            name = marks["grade_id"]
            row = kept.pop(name, None)
            if row is None:
                row = api.SourceCell(id=new_id(lesson, name, "source"), name=name, notebook_id=book)
                session.add(row)
            row.cell_type, row.locked = cell.cell_type, marks["locked"]
            row.source, row.checksum = cell.source, marks.get("checksum")
        for row in kept.values():
            session.delete(row)

    def _submission(
        self,
        record: SubmissionGrade,
        assignment: str,
        book: str,
        cells: Sequence["_MarkedCell"],
        there: "_Rows",
    ) -> None:
        api, session = self.api, self.session
        student = plain.name(record.student)
        if student not in self.students:
            session.add(api.Student(id=student))
            self.students.add(student)
        row = there.submitted.get(student)
        if row is None:
            row = api.SubmittedAssignment(
                id=new_id(record.lesson, student), assignment_id=assignment, student_id=student
            )
            session.add(row)
            there.submitted[student] = row
        row.timestamp = _moment(record.timestamp) or row.timestamp
        mine = there.notebooks.get(row.id)
        if mine is None:
            mine = api.SubmittedNotebook(
                id=new_id(record.lesson, student, "notebook"),
                assignment_id=row.id,
                notebook_id=book,
                flagged=False,
            )
            session.add(mine)
            there.notebooks[row.id] = mine
        found = _Found.of(record, self.out)
        for cell in cells:
            if cell.grade:
                grade = there.grades.get((mine.id, cell.grade))
                if grade is None:
                    grade = api.Grade(
                        id=new_id(mine.id, cell.grade), cell_id=cell.grade, notebook_id=mine.id
                    )
                    grade.needs_manual_grade = False
                    session.add(grade)
                    there.grades[mine.id, cell.grade] = grade
                _grade(grade, *found.points(cell.marked))
            if cell.solution:
                comment = there.comments.get((mine.id, cell.solution))
                if comment is None:
                    comment = api.Comment(
                        id=new_id(mine.id, cell.solution),
                        cell_id=cell.solution,
                        notebook_id=mine.id,
                    )
                    session.add(comment)
                    there.comments[mine.id, cell.solution] = comment
                comment.auto_comment = found.comment(cell.marked)


@dataclass(frozen=True)
class _Rows:
    """What the gradebook has of a lesson: asked for once, not for every submission.

    What is added to it is added here too: two students' names may be one in the gradebook.
    """

    submitted: dict[str, Any]  # by student
    notebooks: dict[str, Any]  # by submitted assignment
    grades: dict[tuple[str, str], Any]  # by submitted notebook and cell
    comments: dict[tuple[str, str], Any]

    @classmethod
    def of(cls, api: Any, session: Any, assignment: str, book: str) -> "_Rows":
        def of_cells(kind: Any) -> dict[tuple[str, str], Any]:
            inside = session.query(kind).join(
                api.SubmittedNotebook, kind.notebook_id == api.SubmittedNotebook.id
            )
            rows = inside.filter(api.SubmittedNotebook.notebook_id == book)
            return {(row.notebook_id, row.cell_id): row for row in rows}

        submitted = session.query(api.SubmittedAssignment).filter_by(assignment_id=assignment)
        notebooks = session.query(api.SubmittedNotebook).filter_by(notebook_id=book)
        return cls(
            {row.student_id: row for row in submitted},
            {row.assignment_id: row for row in notebooks},
            of_cells(api.Grade),
            of_cells(api.Comment),
        )


@dataclass(frozen=True)
class _MarkedCell:
    marked: Cell
    grade: str | None  # ids of its rows
    solution: str | None


@dataclass(frozen=True)
class _Found:
    """A record, by exercise and question."""

    record: SubmissionGrade
    exercises: Mapping[str, ExerciseGrade]
    answers: Mapping[str, str]
    earlier: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, record: SubmissionGrade, out: Path) -> "_Found":
        before = autograded.path(out, record.student, record.lesson)
        return cls(
            record,
            {exercise.exercise: exercise for exercise in record.exercises},
            {answer.question: autograded.answer_text(answer.text) for answer in record.answers},
            autograded.earlier_answers(before) if record.answers else {},
        )

    def points(self, cell: Cell) -> tuple[float | None, bool, bool]:
        """The judge's points, whether a person must look, and whether what is marked is new."""
        if self.record.status == "unreadable":
            return 0.0, True, False
        if cell.role == "answer":
            if not self._answered(cell):
                return 0.0, False, False
            text = self.answers[cell.name]
            return None, True, text != self.earlier.get(cell.name, text)
        exercise = self.exercises.get(cell.name)
        if exercise is None:
            return 0.0, False, False
        return exercise.score, exercise.flagged, False

    def comment(self, cell: Cell) -> str | None:
        """What nbgrader's pages say beside the learner's cell: our sentences, never theirs."""
        if self.record.status == "unreadable":
            return plain.line(self.record.problem, 300) or "unreadable"
        if cell.role == "answer":
            return None if self._answered(cell) else "No response."
        exercise = self.exercises.get(cell.name)
        if exercise is None or exercise.status in ("not_attempted", "missing"):
            return "No response."
        said = (WORDS[exercise.status].capitalize() + ".", exercise.misconception, exercise.hint)
        return plain.plain(" ".join(words for words in said if words))

    def _answered(self, cell: Cell) -> bool:
        return self.answers.get(cell.name, "").strip() not in ("", UNANSWERED)


def _grade(row: Any, score: float | None, look: bool, new_text: bool) -> None:
    """Enter the judge's points; a mark by hand stays, and is asked for again when it is stale."""
    changed = row.auto_score != score or new_text
    row.auto_score = score
    if row.manual_score is None:
        row.needs_manual_grade = look
    elif changed:
        row.needs_manual_grade = True


# nbgrader's parser would open a file that a time zone names.
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d{1,9})?)?"
    r" ?(Z|[+-]\d\d:?\d\d|[A-Za-z]{1,20}(/[A-Za-z_]{1,20})?)?"
)


def _moment(text: str) -> Any:
    """nbgrader's idea of a time: UTC, without saying so; None for what is no time."""
    if not _TIME.fullmatch(text.strip()):
        return None
    from nbgrader.utils import parse_utc

    try:
        return parse_utc(text.strip())
    except (ValueError, OverflowError):
        return None
