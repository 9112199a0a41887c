"""The index of exercises, read from text, is what the exercise files say when they are imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from course_utils.authoring.lesson import lesson_sources, read_lesson
from course_utils.base.errors import CourseError
from course_utils.exercises.exercise import all_exercises
from course_utils.exercises.index import _SHOWN, _read, entries, find_entry


def test_it_equals_the_imported_exercises_in_the_order_of_the_lessons() -> None:
    known = list(entries())
    imported = list(all_exercises())
    assert [(e.lesson, e.id) for e in known] == [(number, e.id) for number, e in imported]
    for entry, (_, exercise) in zip(known, imported, strict=True):
        assert {name: getattr(entry, name) for name in _SHOWN} == {
            name: getattr(exercise, name) for name in _SHOWN
        }
        assert entry.source == exercise.source
    met = [name for path in lesson_sources().values() for name in read_lesson(path).exercise_ids]
    assert met == [entry.id for entry in known]


@pytest.mark.parametrize(
    "command", [["status"], ["hint", "cnn.conv2d"], ["solution", "cnn.conv2d"], ["--help"]]
)
def test_commands_that_show_do_not_import_torch(command: list[str]) -> None:
    code = (
        "import sys; from course_utils.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'transformers', 'nbformat', 'jupytext', 'matplotlib'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_first_check_imports_its_own_lesson_alone() -> None:
    code = (
        "import sys; from course_utils.exercises.exercise import find_exercise\n"
        "find_exercise('cnn.conv2d')\n"
        "print([name for name in sys.modules if name.startswith('course_exercises.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['course_exercises.lesson_02']"


def test_an_unknown_id_names_the_nearest() -> None:
    with pytest.raises(CourseError, match=r"no exercise 'cnn\.conv2'. Did you mean 'cnn\.conv2d'"):
        find_entry("cnn.conv2")


def test_what_is_no_literal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lesson_99.py"
    path.write_text("A = Exercise(id='a.b', title=make_title())\nEXERCISES = (A,)\n")
    with pytest.raises(CourseError, match=r"lesson_99\.py, line 1: title must be a literal"):
        _read("99", path)


def test_an_exercise_that_its_file_does_not_describe_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lesson_98.py"
    path.write_text("from elsewhere import HIDDEN\nEXERCISES = (HIDDEN,)\n")
    with pytest.raises(CourseError, match=r"lesson_98\.py: EXERCISES names HIDDEN"):
        _read("98", path)
