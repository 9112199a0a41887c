"""docs/architecture.md names the rooms that there are."""

import re
from pathlib import Path

import pytest

from course_utils.authoring.rooms import BEGIN, END, rooms
from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root


def test_the_table_has_every_room_and_its_purpose() -> None:
    text = (course_root() / "docs" / "architecture.md").read_text("utf-8")
    table = text.partition(BEGIN)[2].partition(END)[0]
    written = re.findall(r"^\| `(.+?)/` \| (.+?) \|", table, flags=re.M)
    assert written == [(room.name, room.purpose) for room in rooms()]


def test_the_walks_name_files_that_exist() -> None:
    text = (course_root() / "docs" / "architecture.md").read_text("utf-8")
    package = course_root() / "src" / "course_utils"
    named = re.findall(r"`((?:training|exercises|grader|authoring|models)/[\w/]+\.py)`", text)
    assert len(named) > 15
    assert [name for name in named if not (package / name).is_file()] == []


def test_a_room_without_a_purpose_is_named(tmp_path: Path) -> None:
    (tmp_path / "attic").mkdir()
    (tmp_path / "attic" / "__init__.py").write_text("")
    for divided in ("training", "grader"):
        (tmp_path / divided).mkdir()
    with pytest.raises(CourseError, match=r"attic/__init__\.py needs a docstring"):
        rooms(tmp_path)
