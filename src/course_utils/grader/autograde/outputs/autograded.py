"""autograded/<student>/<lesson>/<lesson>.ipynb: where stock nbgrader looks for what it shows.

`nbgrader generate_feedback` and formgrader read these notebooks beside the gradebook. Ours are the
released notebook with the learner's solutions and answers in it, and with the judge's verdict as
the output of the check cells. Nothing else of a submission gets in: no output, no metadata, no
cell of the learner's own.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import nbformat

from course_utils.authoring.build import UNANSWERED
from course_utils.grader.autograde.outputs import plain
from course_utils.grader.autograde.outputs.feedback_page import WORDS
from course_utils.grader.autograde.outputs.lessons import Cell, marked_cells, released
from course_utils.grader.autograde.records import ExerciseGrade, SubmissionGrade

_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_MOST_CHARACTERS = 50_000


def path(out: Path, student: str, lesson: str) -> Path:
    """Where a student's notebook lies."""
    folder = out / "autograded" / plain.name(student) / plain.name(lesson)
    return folder / f"{plain.name(lesson)}.ipynb"


@cache
def _released_parts(lesson: str) -> tuple[list[tuple[str, Cell | None]], str]:
    """A lesson's cells, each as JSON and with what it is to the judge; and the rest of the file.

    Of thousands of notebooks only a few cells differ, so the others become JSON once.
    """
    book = released(lesson)
    assert book is not None
    nbformat.validate(book)
    marked = {id(one.cell): one for one in marked_cells(book)}
    cells = [(json.dumps(cell, ensure_ascii=False), marked.get(id(cell))) for cell in book.cells]
    return cells, json.dumps({key: value for key, value in book.items() if key != "cells"})


def notebook(record: SubmissionGrade) -> str:
    """The notebook as text.

    Args:
        record: of a lesson that the course has.
    """
    exercises = {exercise.exercise: exercise for exercise in record.exercises}
    answers = {answer.question: answer.text for answer in record.answers}
    cells, rest = _released_parts(record.lesson)
    made = []
    for text, marked in cells:
        changed = marked and _changed(marked, exercises.get(marked.name), answers)
        if marked and changed:
            text = json.dumps(marked.cell | changed, ensure_ascii=False)
        made.append(text)
    return '{"cells": [\n' + ",\n".join(made) + "\n], " + rest.removeprefix("{") + "\n"


def _changed(
    marked: Cell, exercise: ExerciseGrade | None, answers: Mapping[str, str]
) -> dict[str, Any]:
    """What of a cell is not as it was handed out."""
    if marked.role == "answer":
        return {"source": answer_text(answers.get(marked.name, UNANSWERED))}
    if exercise is None:
        return {}
    if marked.role == "solution":
        return {"source": plain.plain(exercise.source, _MOST_CHARACTERS)} if exercise.source else {}
    printed = {"output_type": "stream", "name": "stdout", "text": verdict(exercise)}
    score = {
        "output_type": "execute_result", "execution_count": 1, "metadata": {},
        "data": {"text/plain": str(exercise.score)},
    }  # fmt: skip
    return {"outputs": [printed, score], "execution_count": 1}


def answer_text(text: str) -> str:
    """An answer as Markdown that stays Markdown: formgrader shows HTML in it as HTML."""
    return _TAG.sub("&lt;", plain.plain(text, _MOST_CHARACTERS))


def earlier_answers(file: Path) -> dict[str, str]:
    """The answers in a notebook that was written before, by question; none when there is none."""
    try:
        cells = json.loads(file.read_bytes())["cells"]
        ours = [(cell["metadata"].get("course", {}), cell["source"]) for cell in cells]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {
        mark["question"]: "".join(source) for mark, source in ours if mark.get("role") == "answer"
    }


def verdict(exercise: ExerciseGrade) -> str:
    """What the judge found, as text."""
    lines = [f"{exercise.score:g} of {exercise.max_score:g} points: {WORDS[exercise.status]}"]
    for check in exercise.checks:
        sign = {"passed": "✓", "not_run": "–", "not_attempted": "○"}.get(check.status, "✗")
        lines.append(f"{sign} {plain.line(check.title)}")
        if check.status not in ("passed", "not_run"):
            found = (
                check.message,
                check.where and f"in your {check.where}",
                check.expected and f"expected  {check.expected}",
                check.actual and f"got       {check.actual}",
            )
            lines += [f"    {plain.line(words)}" for words in found if words]
    said = (exercise.problem, exercise.misconception, exercise.hint and f"Hint: {exercise.hint}")
    lines += [plain.line(words, 500) for words in said if words]
    return "\n".join(lines) + "\n"
