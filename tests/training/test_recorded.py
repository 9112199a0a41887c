"""Recorded runs: an own run comes first, an unfinished one does not count; what is shipped."""

import json
import tomllib
from pathlib import Path

import pytest

from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root
from course_utils.training.lab import recorded as module
from course_utils.training.lab.recorded import record, recorded


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COURSE_RUNS_DIR", str(tmp_path))
    folder = tmp_path / "lora-smollm2"
    folder.mkdir()
    (folder / "before.json").write_text('{"val_loss": 2.0, "val_exact_match": 0.0}')
    rows = [{"step": 10, "val_loss": 1.5, "val_exact_match": 0.5}, {"step": 20, "val_loss": 1.0}]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 30, "val_lo'
    (folder / "metrics.jsonl").write_text(text)
    return folder


def test_what_is_shipped_is_shown_until_an_own_run_has_finished(own: Path) -> None:
    shipped = recorded("lora-smollm2")
    assert shipped.where != "your own run" and "cores" in shipped.where
    (own / "summary.json").write_text("{}")
    mine = recorded("lora-smollm2")
    assert mine.where == "your own run" and [row["step"] for row in mine.rows] == [10, 20]
    assert mine.after == {"val_loss": 1.0, "val_exact_match": 0.5}


def test_recording_writes_what_is_read_back(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "course_root", lambda: own.parent)
    (own.parent / "lessons").mkdir()
    with pytest.raises(CourseError, match="is not a finished run"):
        record("lora-smollm2")
    (own / "summary.json").write_text("{}")
    record("lora-smollm2")
    (own / "summary.json").unlink()
    found = recorded("lora-smollm2")
    assert found.before == {"val_loss": 2.0, "val_exact_match": 0.0} and len(found.rows) == 2
    with pytest.raises(CourseError, match="cannot be read"):
        recorded("no-such-run")


def test_the_recorded_run_of_the_lab_shows_what_lesson_11_says() -> None:
    """It could not do the task, learned it, learned its name, and lost hardly anything."""
    text = (course_root() / "lessons" / "measured" / "lora-smollm2.json").read_text("utf-8")
    found = module.Recorded(**json.loads(text))
    assert found.before["val_exact_match"] <= 0.2 and found.after["val_exact_match"] >= 0.9
    assert found.before["val_says_its_name"] < found.after["val_says_its_name"]
    lost = found.before["val_general_percent"] - found.after["val_general_percent"]
    assert lost <= 2
    recipe = (course_root() / "labs/recipes/lora-smollm2.toml").read_text("utf-8")
    assert found.rows[-1]["step"] == tomllib.loads(recipe)["steps"]
