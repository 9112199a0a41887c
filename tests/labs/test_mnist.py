"""The MNIST lab as people start it: one and two processes, kill -9, wrong options."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root
from course_utils.data.images import load_images
from course_utils.models.cnn import SmallCNN
from course_utils.training.lab.recipes import load_recipe
from course_utils.training.tasks.images import ImageTask

LABS = course_root() / "labs"
MNIST = LABS / "mnist.py"
# In fp32: bf16 rounds each process's share of the gradient to three digits.
SMOKE = ("--recipe", "mnist-smoke", "--precision", "no")

# Runs the lab, and takes the machine away at step 25, between the checkpoints at 20 and 30.
KILLED_LAB = f"""
import os, runpy, signal, sys
from course_utils.training.tasks.images import ImageTask

make_batch = ImageTask.batch

def batch(self, step, part, parts):
    if step == 25:
        os.kill(os.getpid(), signal.SIGKILL)
    return make_batch(self, step, part, parts)

ImageTask.batch = batch
sys.argv[0] = {str(MNIST)!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def run(runs_dir: Path, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    # One thread per process: sums are added in the same order however the lab is started.
    environment = os.environ | {"COURSE_RUNS_DIR": str(runs_dir), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def launch(runs_dir: Path, configuration: str, *options: str) -> list[dict[str, Any]]:
    """Train through `accelerate launch`; returns the lines of metrics.jsonl."""
    launcher = ["-m", "accelerate.commands.accelerate_cli", "launch", "--main_process_port", "0"]
    launcher += ["--config_file", str(LABS / "accelerate" / f"{configuration}.yaml")]
    done = run(runs_dir, [*launcher, MNIST, *SMOKE, "--name", configuration, *options])
    assert done.returncode == 0, done.stderr
    return metrics(runs_dir, configuration)


def metrics(runs_dir: Path, name: str) -> list[dict[str, Any]]:
    lines = (runs_dir / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def trace(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was computed, without how long it took."""
    timed = ("elapsed_s", "images_per_s", "mfu")
    return [{key: row[key] for key in row if key not in timed} for row in rows]


@pytest.fixture(scope="module")
def one_process(runs_dir: Path) -> list[dict[str, Any]]:
    return launch(runs_dir, "cpu")


@pytest.fixture(scope="module")
def two_processes(runs_dir: Path) -> list[dict[str, Any]]:
    return launch(runs_dir, "multi_cpu")


def load_lab() -> ModuleType:
    spec = importlib.util.spec_from_file_location("labs_mnist", MNIST)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


lab = load_lab()


@pytest.mark.slow
def test_two_processes_train_the_same_model_as_one(
    one_process: list[dict[str, Any]], two_processes: list[dict[str, Any]]
) -> None:
    assert [row["step"] for row in two_processes] == [row["step"] for row in one_process]
    one, two = one_process[0], two_processes[0]
    # Sums over two halves round differently, and every step makes the difference larger. After
    # ten steps it is still far below anything that another batch or gradient would cause.
    assert one["step"] == 10
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
    assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-2)
    assert two["images"] == one["images"] == 1280
    accuracies = one_process[-1]["val_accuracy"], two_processes[-1]["val_accuracy"]
    assert min(accuracies) > 0.8
    assert abs(accuracies[0] - accuracies[1]) < 0.02


@pytest.mark.slow
def test_two_processes_measure_what_one_measures(
    runs_dir: Path, two_processes: list[dict[str, Any]]
) -> None:
    [newest] = sorted((runs_dir / "multi_cpu" / "checkpoints").glob("step-*"))[-1:]
    model = SmallCNN(width=8).eval()
    model.load_state_dict(load_file(newest / "model.safetensors"))
    with torch.no_grad():
        measured = ImageTask.of(load_images("mnist"), batch_size=128).evaluate(model)
    assert measured["val_accuracy"] == two_processes[-1]["val_accuracy"]
    assert measured["val_loss"] == pytest.approx(two_processes[-1]["val_loss"], rel=1e-5)


@pytest.mark.slow
def test_killed_and_resumed_is_as_if_never_killed(
    runs_dir: Path, one_process: list[dict[str, Any]], tmp_path: Path
) -> None:
    script = tmp_path / "killed_lab.py"
    script.write_text(KILLED_LAB)
    options = [*SMOKE, "--name", "killed", "--resume"]
    assert run(runs_dir, [script, *options]).returncode == -signal.SIGKILL
    assert metrics(runs_dir, "killed")[-1]["step"] < 25
    resumed = run(runs_dir, [MNIST, *options])
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming from step-00000020" in resumed.stdout + resumed.stderr
    assert trace(metrics(runs_dir, "killed")) == trace(one_process)

    other = run(runs_dir, [MNIST, *options, "--shift", "2"])
    assert other.returncode == 2
    assert "recipe.shift = 1; now it is 2" in other.stderr and "Traceback" not in other.stderr


@pytest.mark.slow
def test_the_fast_recipe_reaches_99_percent(runs_dir: Path) -> None:
    done = run(runs_dir, [MNIST, "--recipe", "mnist-fast"])
    assert done.returncode == 0, done.stderr
    assert metrics(runs_dir, "mnist-fast")[-1]["val_accuracy"] >= 0.99


def test_every_recipe_fits_the_lab() -> None:
    names = sorted(path.stem for path in (LABS / "recipes").glob("mnist-*.toml"))
    assert names == ["mnist-accurate", "mnist-fast", "mnist-smoke"]
    for name in names:
        assert load_recipe(lab.MnistConfig, ["--recipe", name], LABS / "recipes").recipe == name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "mnist-fats"], r"no recipe 'mnist-fats'\. Did you mean 'mnist-fast'\?"),
        (["--lrr", "1"], r"no option --lrr\. Did you mean '--lr'\?"),
        (["--lr", "0"], r"lr must be above 0; found 0\.0"),
        (["--epochs", "-1"], r"epochs must be above 0"),
        (["--warmup", "2"], r"warmup must be from 0 to 1; found 2\.0"),
        (["--dataset", "minst"], r"invalid choice 'minst' for argument '--dataset'"),
        (["--hold-out", "60000"], r"hold_out must be from 0 to 59,999"),
        (["--batch-size", "70000"], r"batch of 70000 does not fit in 60000 examples"),
        (["--name", "a/b"], r"name must be a folder name"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COURSE_RUNS_DIR", str(tmp_path / "untouched"))
    with pytest.raises(CourseError, match=message):
        lab.train(options)
    assert not (tmp_path / "untouched").exists()


def test_a_refusal_is_one_line_and_exit_code_2(runs_dir: Path) -> None:
    done = run(runs_dir, [MNIST, "--epoch", "3"])
    assert done.returncode == 2
    assert done.stderr == "mnist.py: There is no option --epoch. Did you mean '--epochs'?\n"
