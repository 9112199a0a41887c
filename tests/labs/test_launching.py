"""Launches that fail: refused configurations, lost workers, two machines.

test_every_lab_under_every_engine.py has those that succeed.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from course_utils.base.paths import course_root

LABS = course_root() / "labs"
LAUNCH = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
# Runs the lab; process 1 is taken away at step 25, once.
LOSES_A_WORKER = f"""
import os, pathlib, runpy, signal, sys
from course_utils.training.tasks.images import ImageTask

make_batch, lost = ImageTask.batch, pathlib.Path(os.environ["COURSE_RUNS_DIR"], "lost")

def batch(self, step, part, parts):
    if step == 25 and os.environ["RANK"] == "1" and not lost.exists():
        lost.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return make_batch(self, step, part, parts)

ImageTask.batch = batch
sys.argv[0] = {str(LABS / "mnist.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def command(configuration: str, lab: str | Path, *options: str) -> list[str]:
    """As the README has it; the system chooses the port."""
    file = LABS / "accelerate" / f"{configuration}.yaml"
    return [*LAUNCH, "--config_file", str(file), str(LABS / lab), *options]


def environment(runs: Path, **more: str) -> dict[str, str]:
    own = {"COURSE_RUNS_DIR": str(runs), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **own, **more}


def run(runs: Path, words: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env=environment(runs, **more), capture_output=True, text=True, timeout=600
    )


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_offloading_without_a_gpu_is_refused_before_any_work(tmp_path: Path) -> None:
    done = run(tmp_path, command("zero3_offload", "mnist.py", "--recipe", "mnist-smoke"))
    assert done.returncode != 0
    assert "finds no GPU on this machine" in done.stderr
    assert "zero3.yaml instead" in done.stderr
    assert not (tmp_path / "mnist-smoke").exists()


@pytest.mark.slow
def test_a_lost_worker_ends_the_run_which_then_goes_on(tmp_path: Path) -> None:
    """The launcher does not wait for ever; it takes the run up again itself, or is asked to."""
    script = tmp_path / "lab.py"
    script.write_text(LOSES_A_WORKER)
    options = ["--recipe", "mnist-smoke", "--precision", "no", "--resume"]
    lost = run(tmp_path, command("multi_cpu", script, *options))
    assert lost.returncode != 0
    assert 20 <= metrics(tmp_path / "mnist-smoke")[-1]["step"] < 37
    again = run(tmp_path, command("multi_cpu", script, *options))
    assert again.returncode == 0, again.stderr
    assert "resuming from step-000000" in again.stdout
    words = command("multi_cpu", script, *options, "--name", "restarted")
    (tmp_path / "lost").unlink()
    itself = run(tmp_path, [*words[:4], "--max_restarts", "1", *words[4:]])
    assert itself.returncode == 0, itself.stderr
    assert "resuming from step-000000" in itself.stdout
    assert (tmp_path / "lost").exists()
    whole = run(tmp_path, command("multi_cpu", "mnist.py", *options, "--name", "whole"))
    assert whole.returncode == 0, whole.stderr
    final = metrics(tmp_path / "whole")[-1]
    for name in ("mnist-smoke", "restarted"):
        last = metrics(tmp_path / name)[-1]
        assert last["loss"] == pytest.approx(final["loss"], rel=1e-5)
        assert last["val_loss"] == pytest.approx(final["val_loss"], rel=1e-5)


class TwoMachines:
    """Two network namespaces with a cable between them; where they are not allowed, two addresses
    of this machine."""

    def __init__(self, kind: str) -> None:
        self.kind, self._name = kind, f"course{os.getpid()}"
        self.addresses = (
            ("10.99.0.1", "10.99.0.2") if kind == "namespaces" else ("127.0.0.1", "127.0.0.2")
        )

    def __enter__(self) -> "TwoMachines":
        if self.kind == "namespaces":
            names = [f"{self._name}{side}" for side in "ab"]
            cables = [f"v{os.getpid()}{side}" for side in "ab"]
            for name in names:
                _ip("netns", "add", name)
            _ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
            for name, cable, address in zip(names, cables, self.addresses, strict=True):
                _ip("link", "set", cable, "netns", name)
                _ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
                _ip("-n", name, "link", "set", "lo", "up")
                _ip("-n", name, "link", "set", cable, "up")
        return self

    def __exit__(self, *_: object) -> None:
        if self.kind == "namespaces":
            for side in "ab":
                _ip("netns", "del", f"{self._name}{side}")

    def on(self, rank: int, words: list[str]) -> tuple[list[str], dict[str, str]]:
        """A command and environment variables for one of the machines."""
        if self.kind == "loopback":
            return words, {"GLOO_SOCKET_IFNAME": "lo"}
        cable = f"v{os.getpid()}{'ab'[rank]}"
        name = f"{self._name}{'ab'[rank]}"
        return ["ip", "netns", "exec", name, *words], {"GLOO_SOCKET_IFNAME": cable}


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def network() -> str:
    if shutil.which("ip") is None or os.geteuid() != 0:
        return "loopback"
    probe = f"courseprobe{os.getpid()}"
    added = subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode == 0
    if added:
        subprocess.run(["ip", "netns", "del", probe], capture_output=True)
    return "namespaces" if added else "loopback"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [network()])  # so that the test's name says what it used
def test_two_machines(tmp_path: Path, kind: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with TwoMachines(kind) as machines:
        started = []
        for rank in (1, 0):
            words = command("multi_node", "mnist.py", "--recipe", "mnist-smoke")
            place = ["--main_process_ip", machines.addresses[0], "--main_process_port", port]
            words = [*words[:6], "--machine_rank", str(rank), *place, *words[6:]]
            words, more = machines.on(rank, words)
            own = environment(tmp_path, ACCELERATE_USE_CPU="true", **more)
            pipe = subprocess.PIPE
            started.append(subprocess.Popen(words, env=own, stdout=pipe, stderr=pipe, text=True))
        ends = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], ends
    assert "2 processes (cpu" in ends[1][0] and "MULTI_CPU over gloo" in ends[1][0]
    assert metrics(tmp_path / "mnist-smoke")[-1]["step"] == 37
