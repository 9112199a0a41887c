"""One small class for all tests of what is made of records, and quick gradebooks."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_records import class_records

from course_utils.grader.autograde.outputs import gradebook
from course_utils.grader.autograde.outputs.lessons import released
from course_utils.grader.autograde.records import SubmissionGrade


@pytest.fixture(scope="session")
def records() -> list[SubmissionGrade]:
    """Five students, lesson 00 and lesson 03 (with a question that a person marks)."""
    return class_records(10, ("00", "03"))


@pytest.fixture(scope="session")
def empty_gradebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new gradebook, which takes nbgrader seconds; its databases do not wait for the disk."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def quick(connection, _record) -> None:  # type: ignore[no-untyped-def]
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", quick)
    folder = tmp_path_factory.mktemp("gradebook")
    gradebook.update(folder, [], released)
    yield folder / "gradebook.db"
    event.remove(Engine, "connect", quick)


@pytest.fixture
def out(tmp_path: Path, empty_gradebook: Path) -> Path:
    """A folder for reports that has an empty gradebook already."""
    folder = tmp_path / "out"
    folder.mkdir()
    shutil.copy(empty_gradebook, folder)
    return folder
