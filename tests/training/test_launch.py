"""A launch configuration for GPUs is refused where there is none; others pass."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from course_utils.base.machine import Cpu
from course_utils.base.paths import course_root
from course_utils.models import autocast
from course_utils.models.autocast import native_precision

CONFIGURATIONS = course_root() / "labs" / "accelerate"
LAUNCH = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
LAB = """
from course_utils.training.lab.recipes import run_lab
from course_utils.training.engines.launch import refuse_missing_gpu
run_lab(lambda argv: (refuse_missing_gpu(), print("work starts")))
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    ("configuration", "refused"), [("multi_cpu", False), ("gpu", True), ("multi_gpu", True)]
)
def test_a_gpu_configuration_without_a_gpu_is_refused(
    tmp_path: Path, configuration: str, refused: bool
) -> None:
    (tmp_path / "lab.py").write_text(LAB)
    path = CONFIGURATIONS / f"{configuration}.yaml"
    done = subprocess.run(
        [*LAUNCH, "--config_file", path, "--main_process_port", "0", "lab.py"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "ACCELERATE_USE_CPU"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ("work starts" in done.stdout) is not refused
    assert (done.returncode != 0) is refused
    if refused:
        assert f"lab.py: {path} is for GPUs" in done.stderr
        assert f"Launch with {path.with_name('cpu.yaml')}" in done.stderr
        assert 'lab.py", line' not in done.stderr  # no traceback of the lab's own


def test_bf16_only_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    for features, expected in (
        (("AVX2", "AMX BF16"), "bf16"),
        (("AVX-512 BF16",), "bf16"),
        (("AVX2", "AVX-512"), "no"),
    ):
        monkeypatch.setattr(autocast, "read_cpu", lambda f=features: Cpu("a processor", 2, f))
        assert native_precision(torch.device("cpu")) == expected
    assert native_precision(torch.device("mps")) == "no"
