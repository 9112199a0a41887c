"""A check before a lab starts: does the launch configuration fit this machine?"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import DistributedType
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import parse_flag_from_env

from course_utils.base.errors import CourseError


def refuse_missing_gpu() -> None:
    """Refuse a launch configuration that needs a GPU on a machine without one.

    accelerate itself would silently train on the CPU, perhaps for an hour on a rented machine. The
    processes that it starts do not receive its configuration file, so this function reads the
    file's name from the launcher's command line. ZeRO and FSDP are allowed without a GPU, for
    learning, and so is every configuration with ACCELERATE_USE_CPU=true.

    Raises:
        CourseError: naming the configuration, and one that works on this machine.
    """
    if torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU"):
        return
    path = _launch_configuration()
    if path is None:
        return
    configuration = load_config_from_file(str(path))
    if configuration.distributed_type is DistributedType.DEEPSPEED:
        if _offloads(configuration.deepspeed_config):
            raise CourseError(
                f"{path} offloads from GPU memory to main memory, and torch "
                f"{torch.__version__} finds no GPU on this machine.\n"
                f"Launch with {path.with_name('zero3.yaml')} instead."
            )
    elif configuration.distributed_type is not DistributedType.FSDP and not configuration.use_cpu:
        raise CourseError(
            f"{path} is for GPUs and torch {torch.__version__} finds none on this machine.\n"
            f"Launch with {path.with_name('cpu.yaml')} or multi_cpu.yaml instead; "
            "`course doctor` shows what the machine has."
        )


def _offloads(deepspeed: Mapping[str, Any]) -> bool:
    places = (deepspeed.get(f"offload_{what}_device", "none") for what in ("optimizer", "param"))
    return any(place != "none" for place in places)


def _launch_configuration() -> Path | None:
    """The file after `--config_file` of the `accelerate launch` that started this process."""
    for process in psutil.Process(os.getpid()).parents():
        try:
            words = process.cmdline()
        except psutil.Error:  # another user's process, or it has ended
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
