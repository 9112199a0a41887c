"""What the benchmarks share: the machine they ran on, where results go, how to go on after a stop.

results/NAME-PROCESSOR.json     written at the end, for report.py
results/.NAME.partial.json      what is measured so far; gone when the benchmark is finished
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from course_utils.doctor.machine import read_cpu
from course_utils.training.durable import write_whole

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
