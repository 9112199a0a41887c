"""The labs of lesson 13 as people start them: pairs of their own or given, rewards, a student."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from forked_labs import ForkedLabs

from course_utils.base.paths import course_root
from course_utils.training.lab.language_run import is_chat_model, load_language_model

pytestmark = pytest.mark.slow  # each lab starts from a fine-tuned model

LABS = course_root() / "labs"


class World:
    """A data cache and a folder of runs that the tests of this module share."""

    def __init__(self, folder: Path, labs: ForkedLabs) -> None:
        self.folder, self.runs, self._labs = folder, folder / "runs", labs

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        own = {"COURSE_RUNS_DIR": str(self.runs), "COURSE_DATA_DIR": str(self.folder / "data")}
        environment = os.environ | own | {"OMP_NUM_THREADS": "1", "COURSE_OFFLINE": "1"}
        return self._labs.run([*map(str, command)], environment)

    def done(self, *command: str | Path) -> str:
        finished = self.run(*command)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    def measured(self, name: str) -> list[dict[str, Any]]:
        lines = (self.runs / name / "metrics.jsonl").read_text().splitlines()
        return [row for row in map(json.loads, lines) if "val_loss" in row]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, forked_labs: ForkedLabs) -> World:
    world = World(tmp_path_factory.mktemp("preference_labs"), forked_labs)
    world.done(LABS / "pretrain.py", "--recipe", "pretrain-smoke", "--steps", "3")
    world.done(LABS / "sft.py", "--recipe", "sft-smoke")
    return world


def test_dpo_on_given_pairs_says_what_it_was_before_and_after(world: World) -> None:
    pairs = world.folder / "pairs.jsonl"
    lines = [{"prompt": f"{i}?", "chosen": "yes", "rejected": "no way"} for i in range(30)]
    pairs.write_text("\n".join(map(json.dumps, lines)))
    command = [LABS / "dpo.py", "--recipe", "dpo-smoke", "--data", pairs]
    said = world.done(*command)
    assert "before" in said and "after; KL to sft-smoke" in said and "ranked correctly" in said
    rows = world.measured("dpo-smoke")
    assert rows[-1]["val_loss"] < 0.6931 and rows[-1]["val_kl"] > 0
    assert rows[-1]["val_chosen_reward"] > rows[-1]["val_rejected_reward"]
    again = world.run(*command, "--resume", "--beta", "0.1")
    assert again.returncode == 2 and "recipe.beta = 0.5; now it is 0.1" in again.stderr


def test_without_pairs_of_its_own_dpo_says_what_to_do(world: World) -> None:
    failed = world.run(LABS / "dpo.py", "--recipe", "dpo-smoke", "--n-tasks", "4", "--name", "own")
    assert failed.returncode == 2 and "a model that is wrong more often" in failed.stderr
    assert "Traceback" not in failed.stderr and not (world.runs / "own").exists()


def test_grpo_keeps_what_it_tried_and_goes_on(world: World) -> None:
    command = [LABS / "grpo.py", "--recipe", "grpo-smoke"]
    said = world.done(*command)
    assert "Held-out tasks right" in said and "KL to sft-smoke" in said
    lines = (world.runs / "grpo-smoke" / "rollouts.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["step"] == 6 and len(last["answers"]) == 4 and 0 <= last["reward"] <= 1
    assert "step 6" in world.done(*command, "--resume")


def test_distillation_makes_a_smaller_chat_model(world: World) -> None:
    said = world.done(LABS / "distill.py", "--recipe", "distill-smoke")
    assert "the teacher" in said and "the student" in said
    teacher, student = (
        load_language_model(world.runs / name)[0] for name in ("sft-smoke", "distill-smoke")
    )
    assert student.config.n_parameters() < teacher.config.n_parameters()
    assert is_chat_model(world.runs / "distill-smoke")
    rows = world.measured("distill-smoke")
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]
