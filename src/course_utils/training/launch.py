"""What a lab asks of the machine before any work starts."""

import os
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from accelerate.commands.config.config_args import load_config_from_file

from course_utils.doctor.machine import read_cpu
from course_utils.errors import CourseError
from course_utils.training.config import Precision


def refuse_missing_gpu() -> None:
    """Stop when `accelerate launch` was given a configuration for GPUs and there is none.

    accelerate itself goes on without a word, on the CPU: an hour of renting is gone before somebody
    looks at the images per second. Its configuration does not reach the processes it starts, so it
    is read from the launcher's command line.

    Raises:
        CourseError: naming the configuration.
    """
    if torch.accelerator.is_available():
        return
    path = _launch_configuration()
    if path is not None and not load_config_from_file(str(path)).use_cpu:
        raise CourseError(
            f"{path} is for GPUs and torch {torch.__version__} finds none on this machine.\n"
            f"Launch with {path.with_name('cpu.yaml')} or multi_cpu.yaml instead; "
            "`course doctor` shows what the machine has."
        )


def native_precision(device: torch.device) -> Precision:
    """The 16-bit format that the device computes in fastest; elsewhere it is imitated, slowly.

    bf16 on GPUs since Ampere and on CPUs with AMX or AVX-512 BF16, fp16 on older GPUs, else "no".
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and read_cpu().bf16 else "no"


def _launch_configuration() -> Path | None:
    """The file after `--config_file` of the `accelerate launch` that started this process."""
    for process in psutil.Process(os.getpid()).parents():
        try:
            words = process.cmdline()
        except psutil.Error:  # it belongs to somebody else, or is gone
            continue
        if "launch" in words and (file := _option(words, "--config_file")):
            return Path(file) if Path(file).is_file() else None
    return None


def _option(words: Sequence[str], name: str) -> str | None:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return None
