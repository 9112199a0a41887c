"""What a run is of: its data and its base by what they hold, and settings that cannot work."""

import json
import os
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root, runs_dir
from course_utils.training.lab.language_run import load_base, load_language_model
from course_utils.training.lab.recipes import load_recipe
from course_utils.training.loop.trainer import Trainer

LABS = course_root() / "labs"
SHORT = ("--steps", "2", "--evaluations", "1", "--checkpoints", "1", "--precision", "no")


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "data"))


def made(lab: str, *options: str | Path) -> Trainer:
    """The trainer that a lab makes of its smoke recipe and some options."""
    module = runpy.run_path(str(LABS / f"{lab}.py"))
    argv = ["--recipe", f"{lab}-smoke", *map(str, options)]
    found: Any = module["make_trainer"](
        load_recipe(module[f"{lab.capitalize()}Config"], argv, LABS / "recipes")
    )
    return found[0] if isinstance(found, tuple) else found


def text(path: Path, word: str = "word") -> Path:
    path.write_text("\n\n".join(f"{word} {i} " * 400 for i in range(20)))
    return path


def base(seed: int = 0) -> None:
    made("pretrain", *SHORT, "--name", "base", "--seed", str(seed)).train()


@pytest.mark.parametrize(
    ("lab", "options", "told"),
    [
        ("pretrain", ["--prompts", "The year|"], "is empty"),
        ("pretrain", ["--prompts", "2889 " * 80], "no room in a context of 80"),
        ("pretrain", ["--evaluation-rows", "0"], "--evaluation-rows must be at least 1; found 0"),
        ("sft", ["--exam", "-1"], "exam must be at least 0; found -1"),
        ("lora", ["--exam", "-1"], "exam must be at least 0; found -1"),
        ("dpo", ["--exam", "0"], "exam must be at least 1; found 0"),
        ("grpo", ["--exam", "0"], "exam must be at least 1; found 0"),
        ("distill", ["--exam", "0"], "exam must be at least 1; found 0"),
    ],
)
def test_what_would_fail_at_the_first_evaluation_is_refused_before_training(
    lab: str, options: list[str], told: str
) -> None:
    with pytest.raises(CourseError, match=told):
        made(lab, *options)


def test_lora_without_an_exam() -> None:
    base()
    summary = made("lora", *SHORT, "--base", "base", "--exam", "0").train()
    assert summary.finished and "val_exact_match" not in summary.metrics


def test_pretraining_goes_on_with_as_many_documents_alone() -> None:
    options = [*SHORT, "--max-documents", "50"]
    made("pretrain", *options).train()
    assert made("pretrain", *options, "--resume").train().finished
    with pytest.raises(CourseError, match="max_documents = 50; now it is 49"):
        made("pretrain", *SHORT, "--resume", "--max-documents", "49").train()


def test_pretraining_goes_on_with_the_same_text_alone(tmp_path: Path) -> None:
    mine = text(tmp_path / "mine.txt")
    options = [*SHORT, "--data", mine, "--name", "mine"]
    made("pretrain", *options).train()
    text(mine)  # other times, the same content: nothing has changed
    os.utime(mine, (1, 1))
    assert made("pretrain", *options, "--resume").train().finished
    text(mine, "words")
    with pytest.raises(CourseError, match="started with other data under the same name"):
        made("pretrain", *options, "--resume").train()


def test_preferences_are_the_same_on_resume(tmp_path: Path) -> None:
    base()
    pairs = tmp_path / "pairs.jsonl"

    def answer(rejected: str) -> None:
        lines = [{"prompt": f"{i}?", "chosen": "yes", "rejected": rejected} for i in range(30)]
        pairs.write_text("\n".join(map(json.dumps, lines)))

    answer("no")
    options = [*SHORT, "--base", "base", "--data", pairs]
    made("dpo", *options).train()
    assert made("dpo", *options, "--resume").train().finished
    answer("never")
    with pytest.raises(CourseError, match="started with other data under the same name"):
        made("dpo", *options, "--resume").train()


@pytest.mark.parametrize(
    ("lab", "options"),
    [
        ("sft", ["--base", "base"]),
        ("lora", ["--base", "base"]),
        ("grpo", ["--base", "base"]),
        ("distill", ["--teacher", "base"]),
    ],
)
def test_a_run_goes_on_with_the_same_weights_of_its_base_alone(
    lab: str, options: list[str]
) -> None:
    base()
    made(lab, *SHORT, *options).train()
    assert made(lab, *SHORT, *options, "--resume").train().finished
    base(seed=1)
    whose = "teacher" if lab == "distill" else "base"
    with pytest.raises(CourseError, match=f"started with other weights of its {whose}"):
        made(lab, *SHORT, *options, "--resume").train()


def test_an_adapter_is_used_on_the_weights_it_was_learned_for() -> None:
    base()
    made("lora", *SHORT, "--base", "base", "--quantize", "nf4").train()
    before, _ = load_language_model("lora-smoke")
    same, _, weights = load_base("lora-smoke")
    assert same.output.weight.equal(before.output.weight) and weights == load_base("lora-smoke")[2]
    base(seed=1)
    with pytest.raises(
        CourseError, match=r"adapter for base, which has other weights now.*previous"
    ):
        load_language_model("lora-smoke")
    shutil.rmtree(runs_dir() / "base")
    (runs_dir() / ".previous" / "base").rename(runs_dir() / "base")
    after, _ = load_language_model("lora-smoke")
    assert all(after.state_dict()[name].equal(w) for name, w in before.state_dict().items())
