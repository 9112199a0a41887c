"""The matrix: each lab under each launch configuration that runs on two CPU processes.

One launch runs all labs of a configuration; a launch that hangs is ended with all its processes.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from every_lab import RECIPES

from course_utils.base.paths import course_root

ROOT = course_root()
LAUNCH = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
ENGINES = {
    "cpu": r"1 process \(cpu, threads: \d+\), precision \w+;",
    "multi_cpu": r"2 processes \(cpu, threads: 1\), precision \w+, MULTI_CPU over gloo;",
    "zero1": r"2 processes \(cpu, threads: 1\), precision \w+, DeepSpeed ZeRO-1 over gloo;",
    "zero2": r"2 processes \(cpu, threads: 1\), precision \w+, DeepSpeed ZeRO-2 over gloo;",
    "zero3": r"2 processes \(cpu, threads: 1\), precision \w+, DeepSpeed ZeRO-3 over gloo;",
    "fsdp": r"2 processes \(cpu, threads: 1\), precision \w+, FSDP over gloo;",
}
# GRPO generates in every step, which takes whole weights.
REFUSED = {("zero3", "grpo"), ("fsdp", "grpo")}
LIMIT_S = 500


def launched(configuration: str, runs: Path) -> str:
    """What one launch of all labs printed.

    Raises:
        pytest.fail: when it takes too long; nothing of it is left running.
    """
    file = ROOT / "labs" / "accelerate" / f"{configuration}.yaml"
    process = subprocess.Popen(
        [*LAUNCH, "--config_file", str(file), str(Path(__file__).with_name("every_lab.py"))],
        env=os.environ | {"COURSE_RUNS_DIR": str(runs), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        pytest.fail(f"{configuration} hangs; it had said:\n{said[-3000:]}")
    assert process.returncode == 0, said[-3000:]
    return said


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("configuration", ENGINES)
def test_labs_under(configuration: str, tmp_path: Path) -> None:
    said = launched(configuration, tmp_path)
    for lab, recipe in RECIPES.items():
        if (configuration, lab) in REFUSED:
            assert "GroupTask" in said and "zero1.yaml or zero2.yaml" in said
            continue
        assert re.search(rf"Run {recipe}: {ENGINES[configuration]}", said), (lab, said[-3000:])
        run = tmp_path / recipe
        assert json.loads((run / "summary.json").read_text("utf-8"))["finished"]
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        evaluated = [line["step"] for line in lines if "val_loss" in line]
        assert len(evaluated) > 1, (lab, evaluated)  # in the middle, too
        assert len(list((run / "checkpoints").glob("step-*"))) > 1, lab
    samples = (tmp_path / "pretrain-smoke" / "samples.jsonl").read_text("utf-8").splitlines()
    assert len(samples) > 1
