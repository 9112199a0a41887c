"""`accelerate launch` from a notebook or a benchmark."""

import os
import subprocess
import sys
from collections.abc import Mapping

import torch

from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root


def launch_lab(
    lab: str,
    *arguments: object,
    config: str | None = None,
    processes: int | None = None,
    environment: Mapping[str, str] | None = None,
    show: bool = True,
    timeout: float = 3600.0,
) -> str:
    """Run a lab as its own command would, and return what it printed.

    Args:
        lab: a script in labs/, such as "pretrain.py".
        arguments: of the lab.
        config: a launch configuration of labs/accelerate, such as "zero2"; None runs the script by
            itself, in one process.
        processes: instead of as many as the configuration says.
        environment: variables beside this process's own.
        show: print the command first, and then what the lab prints, line by line.
        timeout: seconds after which it is ended.

    Raises:
        CourseError: with the last lines of what it said, when it fails.
    """
    script = [f"labs/{lab}", *map(str, arguments)]
    command = [sys.executable, *script]
    if config is not None:
        how_many = ["--num_processes", str(processes)] if processes else []
        launcher = ["launch", "-q", "--config_file", f"labs/accelerate/{config}.yaml", *how_many]
        module = ["-m", "accelerate.commands.accelerate_cli"]
        command = [sys.executable, *module, *launcher, *script]
        if show:
            print("$ accelerate", *launcher, *script)
    elif show:
        print("$ python", *script)
    # PyTorch's launcher would set OMP_NUM_THREADS itself and warn. A notebook kernel sets
    # MPLBACKEND for its own plots.
    own = {"OMP_NUM_THREADS": "1", **os.environ, **(environment or {})}
    own.pop("MPLBACKEND", None)
    if not torch.accelerator.is_available():
        own.setdefault(
            "DS_ACCELERATOR", "cpu"
        )  # otherwise DeepSpeed searches for other devices, and warns
    try:
        done = subprocess.run(
            command, cwd=course_root(), env=own, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise CourseError(
            f"labs/{lab} did not finish within {timeout:g} s and was stopped."
        ) from None
    if done.returncode:
        last = [*done.stdout.splitlines(), *done.stderr.splitlines()][-8:]
        raise CourseError("\n".join([f"labs/{lab} failed ({done.returncode}):", *last]))
    if show:
        print(done.stdout.strip())
    return done.stdout
