"""What the benchmarks share: the machine they ran on, where results go, how to go on after a stop.

results/NAME-PROCESSOR.json     written at the end, for report.py
results/.NAME.partial.json      what is measured so far; gone when the benchmark is finished
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from course_utils.base.durable import write_whole
from course_utils.base.machine import read_cpu
from course_utils.models.gpt import GPT, GPTConfig

RESULTS = Path(__file__).parent / "results"


def quick_option(description: str | None) -> bool:
    """The benchmarks' only option."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less of it; nothing is written")
    return parser.parse_args().quick


def machine(*packages: str) -> dict[str, object]:
    """What a figure depends on, apart from the code."""
    cpu = read_cpu()
    return {
        "processor": cpu.model,
        "cores": cpu.cores,
        "features": list(cpu.features),
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        **{name: version(name) for name in ("torch", *packages)},
    }


def model_that_varies(config: GPTConfig) -> GPT:
    """Random weights, larger than at the start of training: then what it writes does not repeat."""
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.06)
    return model


def peak_megabytes(make: Callable[..., Callable[[], Any]], *arguments: Any) -> float:
    """What a call needs at the most, above what is resident between calls. (Linux only.)

    That is what the system sees of gradients, activations and workspace. It is measured in a
    process of its own.

    Args:
        make: Called there with the arguments, it builds what is needed and returns the call, which
            is then made three times: the first two make what is made once.
    """
    # The allocator is to give large blocks back to the system at once: then what is resident is
    # what is in use. (It reads this when a process starts.)
    os.environ["MALLOC_MMAP_THRESHOLD_"] = os.environ["MALLOC_TRIM_THRESHOLD_"] = "65536"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (make, arguments, torch.get_num_threads()))


def _peak(make: Callable[..., Callable[[], Any]], arguments: tuple, threads: int) -> float:
    torch.set_num_threads(threads)
    call = make(*arguments)
    for _ in range(2):
        call()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again here
    between = _resident("VmRSS")
    call()
    return (_resident("VmHWM") - between) / 1e6


def _resident(which: str) -> int:
    """Bytes: VmRSS now, VmHWM at the most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(which))


class Record:
    """Measurements by name, kept on the disk as they come.

    Args:
        name: the benchmark's.
        keep: False for a try, which neither reads nor writes anything.
    """

    def __init__(self, name: str, keep: bool) -> None:
        self.name, self.keep = name, keep
        self.partial = RESULTS / f".{name}.partial.json"
        kept = keep and self.partial.is_file()
        self.measured: dict[str, Any] = json.loads(self.partial.read_text()) if kept else {}

    def __call__(self, key: str, measure: Callable[[], Any]) -> Any:
        """The measurement of this name: an earlier one, or `measure()`, which returns JSON."""
        if key not in self.measured:
            self.measured[key] = measure()
            print(f"{key}: {self.measured[key]}", file=sys.stderr, flush=True)
            if self.keep:
                RESULTS.mkdir(exist_ok=True)
                write_whole(self.partial, json.dumps(self.measured))
        return self.measured[key]

    def finish(self, about: dict[str, object], **result: Any) -> None:
        """Write the result with the machine it belongs to, and forget the pieces."""
        if not self.keep:
            return
        slug = re.sub(r"\W+", "-", f"{about['processor']} {about['cores']} cores").lower()
        path = RESULTS / f"{self.name}-{slug}.json"
        write_whole(path, json.dumps({"machine": about, **result}, indent=1) + "\n")
        self.partial.unlink(missing_ok=True)
        print(f"Written to {path}.")
