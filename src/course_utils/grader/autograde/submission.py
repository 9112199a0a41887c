"""Reading what was handed in: hundreds of notebooks, some of them damaged, some of them hostile.

Only the text of the learner's own cells is taken, by their marks: whatever else was deleted,
doubled, moved or changed comes from the released notebook.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course_utils.base.errors import CourseError
from course_utils.exercises.cell_text import defined, parse, to_python
from course_utils.grader.autograde.plan import LessonPlan, PlannedExercise
from course_utils.grader.autograde.solution_cells import CodeCell, Notebook, Unit

MAX_BYTES, MAX_BRACKETS = 48 * 2**20, 400_000
MAX_SOURCE, MAX_ANSWER, MAX_NOTES = 100_000, 20_000, 20


class Unreadable(Exception):
    """A submission that is no notebook, in a sentence for the instructor."""


@dataclass(frozen=True)
class Found:
    """One notebook's place in the folder of submissions."""

    student: str
    lesson: str
    path: Path


@dataclass
class Submission:
    """What a learner wrote, by exercise and question."""

    units: dict[str, Unit] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    digest: str = ""
    timestamp: str = ""

    @property
    def solutions(self) -> dict[str, str]:
        """The cell that counts for each exercise, as it was handed in."""
        return {name: unit.raw for name, unit in self.units.items()}

    def note(self, text: str) -> None:
        if len(self.notes) < MAX_NOTES:
            self.notes.append(text)


def find_submissions(folder: Path, lessons: set[str]) -> tuple[list[Found], list[str]]:
    """The submissions in nbgrader's layout, `<student>/<lesson>/<lesson>.ipynb`, in order.

    Returns:
        What was found, also what will turn out unreadable, and remarks on what was passed over.

    Raises:
        CourseError: when the folder is not there.
    """
    if not folder.is_dir():
        raise CourseError(f"There is no folder {folder} with submissions.")
    found, remarks = [], []
    for student in _entries(folder):
        if student.is_symlink() or not student.is_dir(follow_symlinks=False):
            remarks.append(f"{student.name} is not a student's folder")
            continue
        try:
            below = list(_entries(Path(student.path)))
        except OSError as error:
            remarks.append(f"{student.name}: {error.strerror}")
            continue
        for lesson in below:
            if lesson.name in lessons:
                notebook = Path(lesson.path) / f"{lesson.name}.ipynb"
                found.append(Found(student.name, lesson.name, notebook))
    return found, remarks


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        yield from sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def read_submission(found: Found, plan: LessonPlan) -> Submission:
    """One notebook's solutions and answers.

    Raises:
        Unreadable: it is no notebook of this lesson that could be read.
    """
    data = _read_bytes(found.path)
    submission = Submission(digest=hashlib.sha256(data).hexdigest())
    cells = _cells(data)
    stamp = _read_bytes(found.path.with_name("timestamp.txt"), 200, missing=b"")
    submission.timestamp = stamp.decode("ascii", "replace").strip()[:60]
    _take_solutions(submission, cells, plan)
    for question in plan.questions:
        texts = [c.text for c in cells if c.question == question.name]
        if texts:
            changed = [text for text in texts if text != question.blank]
            submission.answers[question.name] = (changed or texts)[-1][:MAX_ANSWER]
    if not submission.solutions and not any(cell.exercise for cell in cells):
        raise Unreadable("It holds no exercise of this lesson.")
    _compare_locked(submission, cells, plan)
    return submission


def _read_bytes(path: Path, most: int = MAX_BYTES, missing: bytes | None = None) -> bytes:
    if path.parent.is_symlink():
        raise Unreadable("Its folder is a link to somewhere else.")
    try:
        # Neither follow a link nor wait for a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if missing is not None:
            return missing
        if path.is_symlink():
            raise Unreadable("It is a link to somewhere else.") from None
        raise Unreadable(f"It cannot be opened: {error.strerror}.") from None
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        os.close(descriptor)
        if missing is not None:
            return missing
        what = "a folder" if stat.S_ISDIR(about.st_mode) else "no ordinary file"
        raise Unreadable(f"It is {what}.")
    with os.fdopen(descriptor, "rb") as file:
        if about.st_size > most:
            if missing is not None:
                return missing
            raise Unreadable(
                f"It has {about.st_size / 2**20:,.0f} MB; at most {most >> 20} are read."
            )
        return file.read(most)


@dataclass(frozen=True)
class _Cell:
    """What matters of a cell. `exercise` and `question` are by its marks."""

    kind: str
    text: str
    exercise: str
    role: str
    question: str
    grade_id: str
    own: bool


def _cells(data: bytes) -> list[_Cell]:
    # Half a gigabyte of Python objects can hide in a few megabytes of brackets.
    if data.count(b"{") + data.count(b"[") > MAX_BRACKETS:
        raise Unreadable("It is nested or split in a way that no notebook is.")
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Unreadable("It is not encoded as UTF-8.") from None
    except (ValueError, RecursionError, MemoryError):
        raise Unreadable("It is not JSON, so it is no notebook.") from None
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise Unreadable("It is JSON, but no notebook of format 4.")
    if content.get("nbformat") != 4:
        raise Unreadable(f"Its format is {content.get('nbformat')!r:.20}, not 4.")
    return [_cell(raw) for raw in content["cells"] if isinstance(raw, dict)]


def _cell(raw: dict[str, Any]) -> _Cell:
    source = raw.get("source", "")
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    metadata = raw.get("metadata") if isinstance(raw.get("metadata"), dict) else {}
    ours = metadata.get("course") if isinstance(metadata.get("course"), dict) else {}  # type: ignore[union-attr]
    theirs = metadata.get("nbgrader") if isinstance(metadata.get("nbgrader"), dict) else {}  # type: ignore[union-attr]

    def text(holder: Any, key: str) -> str:
        value = holder.get(key)
        return value if isinstance(value, str) else ""

    grade_id = text(theirs, "grade_id") or text(raw, "id")
    return _Cell(
        kind=text(raw, "cell_type"),
        text=source if isinstance(source, str) else "",
        exercise=text(ours, "exercise"),
        role=text(ours, "role"),
        question=text(ours, "question") if text(ours, "role") == "answer" else "",
        grade_id=grade_id,
        own=not ours and not theirs,
    )


def _take_solutions(submission: Submission, cells: list[_Cell], plan: LessonPlan) -> None:
    """The learner's text for each exercise, wherever it stands."""
    marks: dict[int, str] = {}
    for planned in plan.exercises:
        marks |= dict.fromkeys(_marked(submission, cells, planned), planned.exercise.id)
    code = []
    for index, cell in enumerate(cells):
        mark = marks.get(index, "")
        if len(cell.text) > MAX_SOURCE:
            if mark:
                submission.note(f"{mark}: its cell has {len(cell.text):,} characters, not read")
        elif mark or (cell.kind == "code" and not cell.role and cell.text not in plan.setup):
            own = not mark and cell.text not in plan.released
            code.append(CodeCell(index, cell.text, mark, own))
    symbols = {p.exercise.id: p.exercise.symbol for p in plan.exercises}
    notebook = Notebook(code, symbols)
    for planned in plan.exercises:
        name, slug = planned.exercise.id, planned.exercise.slug
        checks = [
            index
            for index, cell in enumerate(cells)
            if (cell.exercise == name and cell.role == "check") or cell.grade_id == slug
        ]
        unit = notebook.unit(name, checks[-1] if checks else None, planned.stub)
        if unit is None:
            submission.note(f"{name}: there is no cell for it")
            continue
        submission.units[name] = unit


def _marked(submission: Submission, cells: list[_Cell], planned: PlannedExercise) -> list[int]:
    """The places of the cells that are marked as an exercise's solution."""
    name, slug = planned.exercise.id, planned.exercise.slug
    marked = [i for i, c in enumerate(cells) if c.exercise == name and c.role == "solution"]
    marked = marked or [i for i, c in enumerate(cells) if c.grade_id == f"{slug}-solution"]
    if not marked:
        symbol = planned.exercise.symbol
        marked = [i for i, c in enumerate(cells) if c.kind == "code" and _defines(c, symbol)]
        marked = [i for i in marked if cells[i].exercise in ("", name)]
        if marked:
            submission.note(f"{name}: the cell had lost its mark and was found by what it defines")
    if len(marked) > 1:
        submission.note(
            f"{name}: {len(marked)} cells are marked as its solution; the last one counts"
        )
    for index in marked:
        if cells[index].kind != "code":
            submission.note(f"{name}: its cell is of type {cells[index].kind[:20]!r}, read as code")
    return marked


def _defines(cell: _Cell, symbol: str) -> bool:
    if symbol not in cell.text or len(cell.text) > MAX_SOURCE or cell.role:
        return False
    tree = parse(to_python(cell.text))
    return tree is not None and symbol in defined(tree.body)


def _compare_locked(submission: Submission, cells: list[_Cell], plan: LessonPlan) -> None:
    """Say which locked cells were changed; the released ones count whatever was done to them."""
    theirs = {cell.grade_id: cell for cell in cells if cell.role in ("check", "verified")}
    changed, gone = [], []
    for grade_id, text in plan.locked.items():
        if grade_id not in theirs:
            gone.append(grade_id)
        elif theirs[grade_id].text != text:
            changed.append(grade_id)
    if changed:
        submission.note(f"locked cells were changed: {', '.join(changed)[:200]}")
    if gone:
        submission.note(f"locked cells are missing: {', '.join(gone)[:200]}")
    order = [c.exercise for c in cells if c.role == "solution"]
    wanted = [p.exercise.id for p in plan.exercises if p.exercise.id in order]
    if list(dict.fromkeys(order)) != wanted and set(order) <= set(wanted):
        submission.note("the exercises are in another order")
