"""The loop in one file takes the same steps as the Trainer."""

import json
from pathlib import Path

import pytest
from every_lab import LABS, load

from course_utils.base.paths import runs_dir

SHAPE = [
    "--data",
    "sample",
    "--vocab",
    "400",
    "--context",
    "40",
    "--n-layers",
    "2",
    "--batch-size",
    "8",
    "--steps",
    "12",
]


@pytest.mark.parametrize("accumulation", ["1", "2"])
def test_its_losses_are_the_trainers_in_fp32(accumulation: str) -> None:
    plain = load("pretrain_plain").train([*SHAPE, "--accumulation", accumulation])
    load("pretrain").train(
        [
            *("--recipe", "nano", "--name", "beside", "--precision", "no", "--prompts", ""),
            *("--evaluations", "12", "--checkpoints", "1", "--accumulation", accumulation),
            *SHAPE,
        ]
    )
    lines = (runs_dir() / "beside" / "metrics.jsonl").read_text("utf-8").splitlines()
    assert plain == pytest.approx([json.loads(line)["loss"] for line in lines], rel=1e-6)
    assert plain[-1] < plain[0]


def test_its_held_out_loss_is_the_trainers(capsys: pytest.CaptureFixture) -> None:
    load("pretrain_plain").train(SHAPE)
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("step   12 ")
    load("pretrain").train(
        [*("--recipe", "nano", "--name", "beside", "--precision", "no", "--prompts", ""), *SHAPE]
    )
    last = (runs_dir() / "beside" / "metrics.jsonl").read_text("utf-8").splitlines()[-1]
    assert f"held-out {json.loads(last)['val_loss']:.4f}" in said


def test_it_is_short_and_has_no_trainer() -> None:
    text = Path(LABS / "pretrain_plain.py").read_text("utf-8")
    assert len(text.splitlines()) <= 120
    code = text[text.index("import") :]
    assert "trainer" not in code.lower() and "accelerate" not in code.lower()


def test_unknown_data_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from course_utils.base.errors import CourseError

    with pytest.raises(CourseError, match="did you mean wiki"):
        load("pretrain_plain").train(["--data", "wikki"])
