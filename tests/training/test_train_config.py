"""Settings that make no sense are refused with a sentence that names the field."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from course_utils.base.errors import CourseError
from course_utils.training.config import TrainConfig
from course_utils.training.storage.run_folder import as_toml

GOOD: dict[str, Any] = {"name": "run", "steps": 10, "batch_size": 12}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", 2.5),
        ("steps", True),
        ("batch_size", -1),
        ("accumulation", 0),
        ("precision", "fp4"),
        ("clip", 0.0),
        ("clip", "1"),
        ("eval_every", 0),
        ("save_every", 1.0),
        ("log_every", None),
        ("keep", 0),
        ("seed", -1),
        ("compile", "yes"),
        ("checkpoint_activations", "yes"),
        ("tracking", "tensorboard"),
        ("resume", True),
        ("progress", "on"),
        ("name", "../elsewhere"),
        ("name", ""),
    ],
)
def test_a_value_that_makes_no_sense(field: str, value: object) -> None:
    with pytest.raises(CourseError, match=f"TrainConfig.{field} must be .* found {value!r}"):
        TrainConfig(**GOOD | {field: value})


def test_the_batch_must_divide_by_processes_and_accumulation() -> None:
    config = TrainConfig(**GOOD | {"accumulation": 3})
    assert config.parts(processes=2) == 6
    with pytest.raises(
        CourseError, match=r"batch_size=12 .* 5 process.* 3 = 15: use batch_size=15"
    ):
        config.parts(processes=5)


def test_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TrainConfig(**GOOD, runs_dir=tmp_path).folder == tmp_path / "run"
    monkeypatch.setenv("COURSE_RUNS_DIR", str(tmp_path / "elsewhere"))
    assert TrainConfig(**GOOD).folder == tmp_path / "elsewhere" / "run"


def test_what_is_written_as_toml_is_read_back() -> None:
    settings = {
        "train": {"name": 'a "run"', "lr": 1e-05, "compile": True, "steps": 3},
        "recipe": {"sizes": [1, 2.5], "odd key": {"deep": {"β": "ü\n"}}, "groups": [{"lr": 1.0}]},
        "nothing": {},
    }
    assert tomllib.loads(as_toml(settings)) == settings
    assert tomllib.loads(as_toml({"clip": None, "keep": (1, 2)})) == {"keep": [1, 2]}
