"""Whatever has happened to a notebook's cells, what the learner wrote is found, once."""

import ast
import copy
import json
from pathlib import Path
from typing import Any

import pytest

from course_utils.exercises.exercise import lesson_exercises
from course_utils.exercises.index import lesson_files
from course_utils.grader.autograde.plan import _definitions, _exercise_digest, lesson_plan
from course_utils.grader.autograde.submission import (
    Found,
    Submission,
    Unreadable,
    find_submissions,
    read_submission,
)

PLAN = lesson_plan("03")  # with a question that a person marks
NAME = PLAN.exercises[1].exercise.id
SYMBOL = PLAN.exercises[1].exercise.symbol
MINE = f"def {SYMBOL}(*anything):\n    return 'mine'\n"


@pytest.fixture
def notebook() -> dict[str, Any]:
    from course_utils.authoring.build import build
    from course_utils.authoring.lesson import find_lesson

    return json.loads(json.dumps(build(find_lesson("03"), "learner")))


def read(tmp_path: Path, notebook: Any) -> Submission:
    path = tmp_path / "anna" / PLAN.name / f"{PLAN.name}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(notebook), "utf-8")
    return read_submission(Found("anna", PLAN.name, path), PLAN)


def solution_cell(notebook: dict[str, Any]) -> dict[str, Any]:
    return next(
        cell
        for cell in notebook["cells"]
        if cell["metadata"].get("course", {}) | {"stub": 0}
        == {"exercise": NAME, "role": "solution", "stub": 0}
    )


def test_untouched_cells_are_the_stubs(tmp_path: Path, notebook: dict[str, Any]) -> None:
    found = read(tmp_path, notebook)
    assert found.solutions == {p.exercise.id: p.stub for p in PLAN.exercises}
    assert found.notes == []


def test_source_may_be_a_list_of_lines(tmp_path: Path, notebook: dict[str, Any]) -> None:
    solution_cell(notebook)["source"] = MINE.splitlines(keepends=True)
    assert read(tmp_path, notebook).solutions[NAME] == MINE


def test_a_deleted_cell_is_missing(tmp_path: Path, notebook: dict[str, Any]) -> None:
    notebook["cells"].remove(solution_cell(notebook))
    found = read(tmp_path, notebook)
    assert NAME not in found.solutions
    assert any(NAME in note for note in found.notes)


def test_of_two_cells_the_written_one_counts(tmp_path: Path, notebook: dict[str, Any]) -> None:
    cell = solution_cell(notebook)
    twin = copy.deepcopy(cell)
    cell["source"] = MINE
    notebook["cells"].append(twin)  # still the stub
    found = read(tmp_path, notebook)
    assert found.solutions[NAME] == MINE
    assert any("2 cells" in note for note in found.notes)


def test_the_order_of_cells_does_not_matter(tmp_path: Path, notebook: dict[str, Any]) -> None:
    solution_cell(notebook)["source"] = MINE
    notebook["cells"].reverse()
    found = read(tmp_path, notebook)
    assert found.solutions[NAME] == MINE
    assert "the exercises are in another order" in found.notes


def test_marks_that_were_lost(tmp_path: Path, notebook: dict[str, Any]) -> None:
    """By nbgrader's mark, by the cell's id, and at last by what the cell defines."""
    for number, kept in enumerate(("nbgrader", "id", "")):
        changed = copy.deepcopy(notebook)
        cell = solution_cell(changed)
        cell["source"] = MINE
        del cell["metadata"]["course"]
        if kept != "nbgrader":
            del cell["metadata"]["nbgrader"]
        if not kept:
            cell["id"] = "another"
        folder = tmp_path / str(number)
        assert read(folder, changed).solutions[NAME] == MINE, kept


def test_a_cell_turned_into_text_is_still_code(tmp_path: Path, notebook: dict[str, Any]) -> None:
    cell = solution_cell(notebook)
    cell["cell_type"], cell["source"] = "markdown", MINE
    found = read(tmp_path, notebook)
    assert found.solutions[NAME] == MINE
    assert any("markdown" in note for note in found.notes)


def test_changed_locked_cells_are_told(tmp_path: Path, notebook: dict[str, Any]) -> None:
    for cell in notebook["cells"]:
        if cell["metadata"].get("course", {}).get("role") == "check":
            cell["source"] = "1.0"
    notes = " ".join(read(tmp_path, notebook).notes)
    assert "locked cells were changed" in notes


def test_answers_for_a_person_to_mark(tmp_path: Path, notebook: dict[str, Any]) -> None:
    [question] = PLAN.questions
    for cell in notebook["cells"]:
        if cell["metadata"].get("course", {}).get("question") == question.name:
            cell["source"] = "Because."
    assert read(tmp_path, notebook).answers == {question.name: "Because."}


@pytest.mark.parametrize(
    "strange",
    [
        {
            "cells": [
                None,
                3,
                "x",
                {"metadata": 7, "source": {"a": 1}},
                {"metadata": {"course": []}},
            ]
        },
        {"cells": {"a": 1}},
        {"cells": [{"source": [1, None, "x"], "metadata": {"nbgrader": "x", "course": None}}]},
    ],
)
def test_strange_json_is_unreadable_and_nothing_worse(tmp_path: Path, strange: Any) -> None:
    with pytest.raises(Unreadable):
        read(tmp_path, {"nbformat": 4, **strange})


def test_only_lessons_of_the_course_are_found(tmp_path: Path) -> None:
    for student, lesson in (("b", PLAN.name), ("a", PLAN.name), ("a", "something_else")):
        (tmp_path / student / lesson).mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("x")
    found, remarks = find_submissions(tmp_path, {PLAN.name})
    assert [one.student for one in found] == ["a", "b"]
    assert remarks == ["notes.txt is not a student's folder"]


def test_a_changed_check_touches_its_own_exercises_only() -> None:
    path = lesson_files()["02"]
    before = _definitions(path)
    digests = {e.id: _exercise_digest(e, "", before) for e in lesson_exercises("02")}
    changed = dict(before)
    # A helper of the two exercises that train and the one that evaluates.
    changed["small_batch"] = ast.parse(
        ast.unparse(before["small_batch"]).replace("=10", "=12")
    ).body[0]
    again = {e.id: _exercise_digest(e, "", changed) for e in lesson_exercises("02")}
    different = {name for name in digests if digests[name] != again[name]}
    assert different == {"cnn.training_step", "cnn.overfit_one_batch", "cnn.evaluate"}
