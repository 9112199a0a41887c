"""Everything that is made of grading records: gradebook, tables, pages, exports.

    OUT/gradebook.db                        nbgrader's; marks given by hand stay
    OUT/autograded/STUDENT/LESSON/…         notebooks for nbgrader's own pages
    OUT/feedback/STUDENT/LESSON.html        for the student
    OUT/report.html                         for the instructor
    OUT/grades.csv, canvas.csv, moodle.csv  for spreadsheets and learning platforms

Equal records give equal files, and a file that would be equal is not written again. Each is whole
or not there, so that grading can be stopped at any moment.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from course_utils.grader.autograde.records import SubmissionGrade


def write_all(
    out: Path,
    records: Sequence[SubmissionGrade],
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write everything for a class.

    Args:
        out: the folder; made when it is not there.
        records: one for each submission, in any order.
        progress: told how many submissions' files are written.

    Raises:
        CourseError: a file could not be written; the records still make it another time.
    """
    # Imported here: reading the lessons takes a second, and nbgrader nearly two.
    from course_utils.grader.autograde.outputs import autograded, gradebook, standing, tables
    from course_utils.grader.autograde.outputs.class_report import report
    from course_utils.grader.autograde.outputs.feedback_page import feedback
    from course_utils.grader.autograde.outputs.files import write
    from course_utils.grader.autograde.outputs.lessons import grade_id, known_sources, released
    from course_utils.grader.autograde.outputs.plain import name
    from course_utils.grader.autograde.outputs.similarity import groups

    records = sorted(records, key=lambda record: (record.lesson, record.student))
    # The gradebook first: it looks at the answers that were there before.
    gradebook.update(out, records, released)
    marks = standing.read(out / "gradebook.db")
    links: dict[int, str] = {}
    for done, record in enumerate(records, 1):
        notebook = released(record.lesson)
        if notebook is not None:
            path = autograded.path(out, record.student, record.lesson)
            write(path, autograded.notebook(record))
        student = name(record.student)
        by_hand = {
            answer.question: marks.by_hand[key]
            for answer in record.answers
            if (key := (student, record.lesson, grade_id(answer.question))) in marks.by_hand
        }
        links[id(record)] = f"feedback/{student}/{name(record.lesson)}.html"
        title = notebook.metadata["course"]["title"] if notebook else ""
        write(out / links[id(record)], feedback(record, title, by_hand))
        progress(done)
    for file, table in (
        ("grades.csv", tables.grades),
        ("canvas.csv", tables.canvas),
        ("moodle.csv", tables.moodle),
    ):
        write(out / file, table(records, marks))
    write(out / "report.html", report(records, groups(records, known_sources), links))
