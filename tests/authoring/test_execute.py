"""Running notebooks in a real kernel, and checking them without one."""

import nbformat
import pytest

from course_utils.authoring.build import build, learner_path, write
from course_utils.authoring.execute import execute, to_html
from course_utils.authoring.lesson import find_lesson
from course_utils.base.errors import CourseError
from course_utils.cli import main
from course_utils.exercises.notebook import check_notebook, read_notebook


@pytest.fixture
def lesson(toy_course):
    return find_lesson("00")


def set_solution(notebook, exercise, source):
    for cell in notebook.cells:
        ours = cell.metadata.get("course", {})
        if ours.get("exercise") == exercise and ours.get("role") == "solution":
            cell.source = source


@pytest.mark.slow
def test_run_all_scores_the_solved_and_the_blank_notebook(lesson, tmp_path):
    solved = execute(build(lesson, "instructor"))
    assert solved.scores == solved.max_scores == {"toy-mean-of-rows": 4.0, "toy-counter": 1.0}
    blank = execute(build(lesson, "learner"))
    assert blank.scores == {"toy-mean-of-rows": 0.0, "toy-counter": 0.0}
    for done in (solved, blank):
        assert not done.errors and not done.stderr
    to_html(blank.notebook, tmp_path / "blank.html")
    assert "not written yet" in (tmp_path / "blank.html").read_text()


@pytest.mark.slow
def test_errors_and_stderr_of_a_run_are_reported(lesson):
    notebook = build(lesson, "instructor")
    notebook.cells[-1].source = "import sys; print('careful', file=sys.stderr); 1 / 0"
    done = execute(notebook)
    assert "ZeroDivisionError" in done.errors[0] and "careful" in done.stderr[0]


def statuses(notebook):
    return {
        c.exercise.id: c.problem or [o.status for o in c.result.outcomes]
        for c in check_notebook(notebook)
    }


def test_a_notebook_is_checked_without_running_its_other_cells(lesson):
    notebook = build(lesson, "instructor")
    notebook.cells[-1].source = "raise SystemExit('a training cell was executed')"
    assert statuses(notebook) == {
        "toy.mean_of_rows": ["passed", "passed"],
        "toy.counter": ["passed"],
    }


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def mean_of_rows(x:\n", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit", "SystemExit"),
        ("something_else = 1", "defines no mean_of_rows"),
        ("mean_of_rows = 3", "defines no mean_of_rows"),
    ],
)
def test_a_broken_cell_takes_only_its_own_exercise_with_it(lesson, source, says):
    notebook = build(lesson, "instructor")
    set_solution(notebook, "toy.mean_of_rows", source)
    found = statuses(notebook)
    assert says in found["toy.mean_of_rows"] and found["toy.counter"] == ["passed"]


def test_an_unsolved_exercise_is_replaced_for_those_that_build_on_it(lesson):
    notebook = build(lesson, "learner")
    uses_it = (
        "class Counter:\n    def __init__(self, start): self.value = start\n"
        "    def step(self, by=1):\n"
        "        self.value += int(mean_of_rows(torch.full((1, 2), float(by)))[0])\n"
        "        return self.value\n"
    )
    set_solution(notebook, "toy.counter", uses_it)
    assert statuses(notebook) == {
        "toy.mean_of_rows": ["not_attempted", "not_run"],
        "toy.counter": ["passed"],
    }


def test_course_check_exits_0_only_when_everything_passes(lesson, capsys):
    write(lesson)
    assert main(["check", "00"]) == 1
    assert "0 of 2 exercises" in capsys.readouterr().out
    path = learner_path(lesson)
    nbformat.write(build(lesson, "instructor"), path)
    assert main(["check", str(path), "--json"]) == 0
    assert '"passed": true' in capsys.readouterr().out
    assert main(["status"]) == 0
    assert "2 of 2 exercises solved" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.ipynb", None, "There is no notebook"),
        ("text.ipynb", b"hello", "not a readable notebook"),
        ("binary.ipynb", b"\xff\xfe\x00", "not a readable notebook"),
        ("other.ipynb", b'{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "no"),
        ("folder", "folder", "is a folder"),
    ],
)
def test_what_is_not_a_lesson_is_refused_in_a_line(toy_course, capsys, name, content, says):
    path = toy_course / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(CourseError, match=says):
        read_notebook(path)
    assert main(["check", str(path)]) == 2
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error and error.count("\n") <= 2
