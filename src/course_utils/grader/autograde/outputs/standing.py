"""What the gradebook says: names, totals with what a person gave, what is still to be marked.

Read with sqlite alone: the exports need no nbgrader.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from course_utils.base.errors import CourseError


@dataclass(frozen=True)
class Name:
    """A student as the roster knows them (`nbgrader db student import`); may all be empty."""

    last: str = ""
    first: str = ""
    email: str = ""
    lms_id: str = ""


@dataclass(frozen=True)
class Standing:
    """A gradebook once it is up to date; students by nbgrader's id (`plain.name`)."""

    names: Mapping[str, Name] = field(default_factory=dict)
    totals: Mapping[tuple[str, str], float] = field(default_factory=dict)  # (student, lesson)
    most: Mapping[str, float] = field(default_factory=dict)  # by lesson
    by_hand: Mapping[tuple[str, str, str], float] = field(default_factory=dict)  # … and grade id
    to_mark: frozenset[tuple[str, str, str]] = frozenset()


_TOTALS = """
SELECT a.student_id, t.name,
       SUM(COALESCE(g.manual_score, g.auto_score, 0)
           + CASE WHEN g.manual_score IS NULL AND g.auto_score IS NULL THEN 0
                  ELSE COALESCE(g.extra_credit, 0) END)
       - COALESCE(MAX(n.late_submission_penalty), 0)
FROM submitted_assignment a
JOIN assignment t ON t.id = a.assignment_id
JOIN submitted_notebook n ON n.assignment_id = a.id
JOIN grade g ON g.notebook_id = n.id
GROUP BY a.id
"""
_CELLS = """
SELECT a.student_id, t.name, c.name, g.manual_score, g.needs_manual_grade
FROM grade g
JOIN base_cell c ON c.id = g.cell_id
JOIN submitted_notebook n ON n.id = g.notebook_id
JOIN submitted_assignment a ON a.id = n.assignment_id
JOIN assignment t ON t.id = a.assignment_id
WHERE g.manual_score IS NOT NULL OR g.needs_manual_grade
"""
_MOST = """
SELECT t.name, SUM(g.max_score) FROM grade_cells g
JOIN base_cell c ON c.id = g.id
JOIN notebook n ON n.id = c.notebook_id
JOIN assignment t ON t.id = n.assignment_id GROUP BY t.id
"""


def read(path: Path) -> Standing:
    """The standing in a gradebook.

    Raises:
        CourseError: when the file is no gradebook.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            roster = db.execute("SELECT id, last_name, first_name, email, lms_user_id FROM student")
            names = {who: Name(*(word or "" for word in words)) for who, *words in roster}
            totals = {(who, what): max(0.0, points) for who, what, points in db.execute(_TOTALS)}
            most = dict(db.execute(_MOST).fetchall())
            cells = db.execute(_CELLS).fetchall()
    except sqlite3.Error as error:
        raise CourseError(f"{path} is not a gradebook that can be read ({error}).") from error
    return Standing(
        names=names,
        totals=totals,
        most=most,
        by_hand={tuple(key): mark for *key, mark, _ in cells if mark is not None},
        to_mark=frozenset(tuple(key) for *key, _, needs in cells if needs),
    )
