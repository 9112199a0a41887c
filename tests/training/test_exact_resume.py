"""Killed at any moment and started again, a run goes on as if nothing had happened."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_training import in_processes, trace, train

from course_utils.training.loop.callbacks import Callback
from course_utils.training.storage import checkpoint, snapshots

SETTINGS: dict[str, Any] = {"dropout": 0.3, "masked": True, "save_every": 2, "eval_every": 3}


class Kill(Callback):
    """The process's own kill -9, after a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step(self, trainer: object, step: int) -> None:
        if step == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def killed_after_step(runs: Path, step: int, settings: dict) -> None:
    train(runs, callbacks=[Kill(step)], **settings)


def killed_at_file_operation(runs: Path, number: int, counter: Path | None) -> None:
    """Train, and be killed at the n-th operation on a file of the run; or count them all."""
    seen = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal seen
        about_files = event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
        if about_files and str(arguments[0]).startswith(str(runs)):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    train(runs, **SETTINGS)
    if counter is not None:
        counter.write_text(str(seen))


def go_on(runs: Path, settings: dict) -> None:
    train(runs, **settings)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    runs = tmp_path_factory.mktemp("undisturbed")
    assert in_processes(go_on, runs, SETTINGS, log=runs / "log").code == 0
    return trace(runs / "toy")


@pytest.mark.parametrize("step", [1, 2, 3, 5, 6])
def test_killed_after_a_step(tmp_path: Path, undisturbed: list, step: int) -> None:
    ended = in_processes(killed_after_step, tmp_path, step, SETTINGS, log=tmp_path / "log")
    assert ended.code == -signal.SIGKILL
    assert in_processes(go_on, tmp_path, SETTINGS, log=tmp_path / "log").code == 0
    assert trace(tmp_path / "toy") == undisturbed


def test_killed_in_the_middle_of_file_operations(tmp_path: Path, undisturbed: list) -> None:
    """Creating the run, appending a line, writing, renaming and removing checkpoints."""
    counter = tmp_path / "count"
    whole = (tmp_path / "whole", 0, counter)
    assert in_processes(killed_at_file_operation, *whole, log=tmp_path / "log").code == 0
    operations = int(counter.read_text())
    assert operations > 60, "the hook sees too little: it proves nothing"
    for number in range(1, operations + 1, 6):
        runs = tmp_path / f"killed-{number}"
        ended = in_processes(killed_at_file_operation, runs, number, None, log=tmp_path / "log")
        assert ended.code == -signal.SIGKILL
        ended = in_processes(go_on, runs, SETTINGS, log=tmp_path / "log")
        assert ended.code == 0, ended.output
        assert trace(runs / "toy") == undisturbed, f"killed at operation {number}"
        left = {path.name for path in (runs / "toy" / "checkpoints").iterdir()}
        assert left == {"step-00000004", "step-00000006"}, f"killed at operation {number}"


def killed_while_writing_the_optimizer(runs: Path) -> None:
    """Half a file, and then the end."""

    def save(value: object, path: Path) -> None:
        path.write_bytes(b"half of")
        if "step-00000004" in str(path):
            os.kill(os.getpid(), signal.SIGKILL)
        real_save(value, path)

    real_save, checkpoint.torch.save = torch.save, save
    train(runs, **SETTINGS)


def test_killed_in_the_middle_of_a_checkpoint(tmp_path: Path, undisturbed: list) -> None:
    ended = in_processes(killed_while_writing_the_optimizer, tmp_path, log=tmp_path / "log")
    assert ended.code == -signal.SIGKILL
    checkpoints = tmp_path / "toy" / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {
        "step-00000002",
        ".step-00000004.writing",
    }
    assert in_processes(go_on, tmp_path, SETTINGS, log=tmp_path / "log").code == 0
    assert trace(tmp_path / "toy") == undisturbed
    assert {path.name for path in checkpoints.iterdir()} == {"step-00000004", "step-00000006"}


def test_half_a_line_of_metrics_is_written_again(tmp_path: Path, undisturbed: list) -> None:
    in_processes(killed_after_step, tmp_path, 5, SETTINGS, log=tmp_path / "log")
    with (tmp_path / "toy" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "ima')
    assert in_processes(go_on, tmp_path, SETTINGS, log=tmp_path / "log").code == 0
    assert trace(tmp_path / "toy") == undisturbed


@pytest.mark.parametrize("step", [3, 4])
def test_two_processes_killed(tmp_path: Path, step: int) -> None:
    def runs(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    log, whole, broken = tmp_path / "log", runs("whole"), runs("broken")
    assert in_processes(go_on, whole, SETTINGS, count=2, log=log).codes == [0, 0]
    ended = in_processes(killed_after_step, broken, step, SETTINGS, count=2, log=log)
    assert ended.codes == [-signal.SIGKILL] * 2
    ended = in_processes(go_on, broken, SETTINGS, count=2, log=log)
    assert ended.codes == [0, 0], ended.output
    assert trace(broken / "toy") == trace(whole / "toy")


def test_another_number_of_processes_takes_over(tmp_path: Path) -> None:
    """Without dropout, the trace is that of one process, but for rounding."""
    settings = SETTINGS | {"dropout": 0.0}
    log = tmp_path / "log"
    assert in_processes(go_on, tmp_path / "one", settings, log=log).code == 0
    in_processes(killed_after_step, tmp_path / "two", 3, settings, count=2, log=log)
    ended = in_processes(go_on, tmp_path / "two", settings | {"accumulation": 4}, log=log)
    assert ended.code == 0, ended.output
    one, two = trace(tmp_path / "one" / "toy"), trace(tmp_path / "two" / "toy")
    assert [line["step"] for line in two] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-5)


def test_elapsed_time_goes_on(tmp_path: Path) -> None:
    in_processes(killed_after_step, tmp_path, 5, SETTINGS, log=tmp_path / "log")
    version, _ = snapshots.newest_intact(tmp_path / "toy" / "checkpoints")
    assert version is not None
    resumed = snapshots.step_of(version)
    before = elapsed(tmp_path / "toy")
    in_processes(go_on, tmp_path, SETTINGS, log=tmp_path / "log")
    after = elapsed(tmp_path / "toy")
    assert after[:resumed] == before[:resumed]
    assert len(after) == 6 and after == sorted(after)


def elapsed(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["elapsed_s"] for line in lines]
