"""The command line: quick to answer, clear when it cannot."""

import subprocess
import sys

import pytest

from course_utils.cli import main

HEAVY = ("torch", "transformers", "numpy", "matplotlib", "jupytext", "nbformat", "rich", "wandb")


@pytest.mark.parametrize(
    "statement", ["import course_utils", "import course_utils.cli as c; c._parser()"]
)
def test_neither_the_package_nor_the_parser_imports_anything_heavy(statement):
    code = f"{statement}\nimport sys\nprint([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    for name in [
        "lab",
        "check",
        "status",
        "hint",
        "solution",
        "run",
        "runs",
        "doctor",
        "data",
        "build",
    ]:
        assert f"\n    {name} " in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["hint", "cnn.conv2"], "Did you mean 'cnn.conv2d'?"),
        (["solution", "nothing.like_it"], "There is no exercise"),
        (["check", "77"], "There is no lesson 77"),
        (["run", "77"], "There is no lesson 77"),
        (["run", "00", "--solutions", "--blank"], "Choose one"),
        (["lab", "77"], "There is no lesson 77"),
        (["build", "77"], "There is no lesson 77"),
        (["runs", "no-such-run"], "There is no run"),
        (["data", "get", "mnits"], "mnist"),
    ],
)
def test_a_wrong_name_is_a_line_that_helps_not_a_traceback(arguments, says, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.startswith("course: ") and error.count("\n") <= 2


def test_an_unknown_command_or_option_is_refused(capsys):
    for arguments in (["lsit"], ["check"], ["build", "--chekc"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2


def test_hints_come_one_by_one_and_end_with_the_way_to_the_solution(capsys):
    from course_utils.exercises.exercise import find_exercise

    exercise = find_exercise("cnn.conv2d")
    for shown in range(1, len(exercise.hints) + 2):
        assert main(["hint", exercise.id]) == 0
        out = capsys.readouterr().out
        assert f"{min(shown, len(exercise.hints))}. " in out
        assert ("course solution cnn.conv2d" in out) == (shown >= len(exercise.hints))


def test_the_solution_is_the_librarys_own_source(capsys):
    from course_utils.exercises.exercise import find_exercise

    assert main(["solution", "cnn.conv2d"]) == 0
    assert capsys.readouterr().out == find_exercise("cnn.conv2d").source


def test_a_course_that_is_not_there_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COURSE_ROOT", str(tmp_path))
    assert main(["status"]) == 2
    assert "holds no course" in capsys.readouterr().err
