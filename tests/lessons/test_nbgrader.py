"""Stock nbgrader takes our notebooks: release, autograde, and the scores we would give."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from course_utils.authoring.build import build, serialise
from course_utils.authoring.execute import kernel_environment
from course_utils.authoring.lesson import find_lesson
from course_utils.base.paths import course_root

ASSIGNMENT = "02_mnist_cnn"


def nbgrader(folder: Path, *arguments: str) -> None:
    # nbgrader calls `alembic`, which lies beside the interpreter and is not always on PATH.
    scripts = str(Path(sys.executable).parent)
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments, f"--course-dir={folder}"],
        cwd=course_root() / "grading",
        env={**kernel_environment(), "PATH": scripts + os.pathsep + os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def submit(folder: Path, student: str, edition: str) -> None:
    path = folder / "submitted" / student / ASSIGNMENT / f"{ASSIGNMENT}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(serialise(build(find_lesson("02"), edition)))


@pytest.mark.slow
def test_release_and_autograde_with_the_real_nbgrader(tmp_path):
    source = tmp_path / "source" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb"
    source.parent.mkdir(parents=True)
    source.write_text(serialise(build(find_lesson("02"), "instructor")))
    nbgrader(tmp_path, "generate_assignment", ASSIGNMENT, "--create")

    released = nbformat.read(tmp_path / "release" / ASSIGNMENT / source.name, as_version=4)
    ours = build(find_lesson("02"), "learner")
    assert [cell.source for cell in released.cells] == [cell.source for cell in ours.cells]
    marks = [[cell.metadata.get("nbgrader") for cell in book.cells] for book in (released, ours)]
    assert marks[0] == marks[1], "our checksums and locks are not the ones nbgrader writes"

    # Ada hands in the solutions in our learner's notebook; Ben hands in the untouched one.
    submit(tmp_path, "ada", "instructor")
    submit(tmp_path, "ben", "learner")
    nbgrader(tmp_path, "autograde", ASSIGNMENT, "--create")

    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as book:
        assignment = book.find_assignment(ASSIGNMENT)
        scores = {
            student: book.find_submission(ASSIGNMENT, student).score for student in ("ada", "ben")
        }
        assert assignment.max_score > 0
        assert scores == {"ada": assignment.max_score, "ben": 0.0}
