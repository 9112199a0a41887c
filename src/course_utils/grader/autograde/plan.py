"""What the instructor's copy of a lesson says: its exercises in order, its stubs, its set-up."""

import ast
import hashlib
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from course_utils.authoring.build import build
from course_utils.authoring.lesson import find_lesson, lesson_sources
from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root
from course_utils.exercises.cell_text import preload
from course_utils.exercises.exercise import Exercise, find_exercise
from course_utils.exercises.index import lesson_files


@dataclass(frozen=True)
class PlannedExercise:
    """An exercise as it was handed out."""

    exercise: Exercise
    stub: str
    digest: str  # of everything its verdict depends on beside the learner's code


@dataclass(frozen=True)
class Question:
    """A question that a person marks."""

    name: str
    blank: str
    points: float


@dataclass(frozen=True)
class LessonPlan:
    """One lesson to grade."""

    number: str
    name: str
    exercises: tuple[PlannedExercise, ...]
    questions: tuple[Question, ...]
    setup: tuple[str, ...]
    locked: dict[str, str]  # grade id: text
    released: frozenset[str]  # texts of the other code cells
    environment: str  # digest of the library, Python and torch


def lesson_names() -> dict[str, str]:
    """Numbers by name, of all lessons that have something to grade."""
    graded = lesson_files()
    return {path.stem: number for number, path in lesson_sources().items() if number in graded}


def lesson_plan(number: str) -> LessonPlan:
    """
    Raises:
        CourseError: when there is no such lesson, or it has nothing to grade.
    """
    lesson = find_lesson(number)
    notebook = build(lesson, "learner")
    preload()
    helpers = _definitions(lesson_files().get(lesson.number))
    exercises, questions, locked, setup = [], [], {}, []
    for cell in notebook.cells:
        ours = cell.metadata.get("course", {})
        role = ours.get("role")
        if "setup" in cell.metadata.get("tags", []):
            setup.append(cell.source)
        elif role == "solution":
            exercise = find_exercise(ours["exercise"])
            exercises.append(
                PlannedExercise(
                    exercise, cell.source, _exercise_digest(exercise, cell.source, helpers)
                )
            )
        elif role in ("check", "verified"):
            locked[cell.metadata["nbgrader"]["grade_id"]] = cell.source
        elif role == "answer":
            points = float(cell.metadata["nbgrader"]["points"])
            questions.append(Question(ours["question"], cell.source, points))
    if not exercises and not questions:
        raise CourseError(f"Lesson {lesson.number} has nothing to grade.")
    return LessonPlan(
        lesson.number, lesson.name, tuple(exercises), tuple(questions), tuple(setup), locked,
        frozenset(c.source for c in notebook.cells if c.cell_type == "code"),
        environment_digest(),
    )  # fmt: skip


@cache
def environment_digest() -> str:
    """Python, torch and every line of the library: a change there may change any verdict."""
    digest = hashlib.sha256(f"{platform.python_version()} {torch.__version__}".encode())
    library = Path(__file__).resolve().parents[2]
    outputs = Path(__file__).resolve().parent / "outputs"
    for path in sorted(library.rglob("*.py")):
        if outputs not in path.parents:  # how a verdict is shown does not change it
            digest.update(str(path.relative_to(library)).encode() + b"\0" + path.read_bytes())
    hospital = course_root() / "grading" / "hospital.json"
    if hospital.exists():
        digest.update(hospital.read_bytes())
    return digest.hexdigest()[:16]


def _definitions(path: Path | None) -> dict[str, ast.stmt]:
    """The top-level definitions of an exercise file, by name."""
    found: dict[str, ast.stmt] = {}
    for node in ast.parse(path.read_text("utf-8")).body if path else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = node
    return found


def _exercise_digest(exercise: Exercise, stub: str, definitions: dict[str, ast.stmt]) -> str:
    """Of its checks and of what they use, its mutants, hints and points; not of its neighbours'."""
    own = next(
        (
            node
            for node in definitions.values()
            if isinstance(node, ast.Assign) and _is_exercise(node, exercise.id)
        ),
        None,
    )
    waiting: list[ast.stmt] = [own] if own is not None else []
    seen: dict[int, str] = {}
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen[id(node)] = ast.unparse(node)
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        waiting += [definitions[name] for name in names & set(definitions)]
    text = "\n".join([stub, exercise.source, *sorted(seen.values())])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_exercise(node: ast.Assign, exercise_id: str) -> bool:
    call = node.value
    if not isinstance(call, ast.Call):
        return False
    return any(
        word.arg == "id"
        and isinstance(word.value, ast.Constant)
        and word.value.value == exercise_id
        for word in call.keywords
    )
