"""Asked to stop, a run finishes its step, saves, says how to go on, and exits with its code."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from toy_training import BATCH, Toy, in_processes, toy_model, trace, train

from course_utils.training.config import TrainConfig
from course_utils.training.loop.callbacks import Callback
from course_utils.training.loop.trainer import Trainer

ROOT = Path(__file__).parents[2]


class Send(Callback):
    """A signal from outside, as if by chance after this step, to one of the processes."""

    def __init__(self, number: int, step: int, process: int) -> None:
        self.number, self.step, self.process = number, step, process

    def on_step(self, trainer: Trainer, step: int) -> None:
        if step == self.step and int(os.environ.get("RANK", "0")) == self.process:
            os.kill(os.getpid(), self.number)


def stopped(runs: Path, number: int, step: int, process: int) -> None:
    train(runs, dropout=0.3, callbacks=[Send(number, step, process)])


def go_on(runs: Path) -> None:
    train(runs, dropout=0.3, resume="auto")


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGTERM, 143, "terminated (SIGTERM)"), (signal.SIGINT, 130, "interrupted (Ctrl-C)")],
)
@pytest.mark.parametrize("processes", [1, 2])
def test_stopped_and_gone_on(
    tmp_path: Path, number: int, code: int, name: str, processes: int
) -> None:
    log, broken, whole = tmp_path / "log", tmp_path / "broken", tmp_path / "whole"
    # With two processes only the second one is told: both must stop, after the same step.
    ended = in_processes(stopped, broken, number, 3, processes - 1, count=processes, log=log)
    assert ended.codes == [code] * processes, ended.output
    assert f"stopped at step 3 of 6: {name}" in ended.output
    assert "to continue, run it again with resume='auto' (labs: --resume)" in ended.output
    assert "Traceback" not in ended.output
    assert (broken / "toy" / "checkpoints" / "step-00000003").exists()
    assert in_processes(go_on, broken, count=processes, log=log).codes == [0] * processes
    assert in_processes(go_on, whole, count=processes, log=log).codes == [0] * processes
    assert trace(broken / "toy") == trace(whole / "toy")


def test_a_signal_in_the_last_step_lets_the_run_finish(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ended = in_processes(stopped, tmp_path, signal.SIGTERM, 6, 0, log=log)
    assert ended.code == 143, ended.output
    assert (tmp_path / "toy" / "summary.json").exists()


# ------------------------------------------------------------------ under accelerate launch


class Tell(Callback):
    """Opens the named pipe after the third step; the test waits at its other end."""

    def on_step(self, trainer: Trainer, step: int) -> None:
        if step == 3 and trainer.is_main:
            Path(os.environ["TOLD"]).write_text(str(os.getpid()))


def main() -> None:
    """What the test below launches: a run without end."""
    import torch

    model = toy_model()
    config = TrainConfig(
        name="launched", steps=10**9, batch_size=BATCH, runs_dir=Path(os.environ["RUNS"])
    )
    optimizer = torch.optim.AdamW(model.parameters())
    Trainer(model, optimizer, lambda step: 1.0, Toy(), config, callbacks=[Tell()]).train()


@pytest.mark.slow
@pytest.mark.parametrize(("launch_file", "processes"), [("cpu", 1), ("multi_cpu", 2)])
def test_the_launcher_is_terminated(tmp_path: Path, launch_file: str, processes: int) -> None:
    """As a cluster does it: SIGTERM to the process it started, which is accelerate's."""
    told = tmp_path / "told"
    os.mkfifo(told)
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(ROOT / "labs" / "accelerate" / f"{launch_file}.yaml")]
    environment = os.environ | {
        "RUNS": str(tmp_path / "runs"),
        "TOLD": str(told),
        "OMP_NUM_THREADS": "1",
    }
    with (tmp_path / "log").open("w") as log:
        launcher = subprocess.Popen(
            [*command, __file__], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        child = int(_read_when_told(told))
        launcher.terminate()
        launcher.wait(60)
        _wait_for(child)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
    output = (tmp_path / "log").read_text()
    kind = "1 process " if processes == 1 else "2 processes "
    assert f"Run launched: {kind}" in output, output
    assert ("MULTI_CPU over gloo" in output) == (processes == 2), output
    assert "terminated (SIGTERM). It is saved in" in output, output
    assert len(list((tmp_path / "runs/launched/checkpoints").glob("step-*"))) == 1


def _read_when_told(pipe: Path) -> bytes:
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert select.select([descriptor], [], [], 120)[0], "no step was made"
    return os.read(descriptor, 20)


def _wait_for(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([descriptor], [], [], 60)[0], "the training outlived its launcher"


if __name__ == "__main__":
    main()
