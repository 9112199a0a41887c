"""kill -9 at random moments, as often as you like: a run must go on as if nothing had happened.

    python tests/training/stress.py --trials 300
    python tests/training/stress.py --trials 20 --engine zero2

A trial starts a run, kills one of its processes after a random time, starts it again, kills it
again, and lets it come to its end. The run saves at every step and evaluates at every other, so
that kills fall into steps, evaluations and files that are being written. Its losses must be those
of a run that nobody disturbed: to the last digit with one process, to 1e-5 with several.
"""

import argparse
import itertools
import os
import random
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from test_engines import launched, train_gpt
from toy_training import in_processes, trace
from tqdm import tqdm

SETTINGS: dict[str, Any] = {"save_every": 1, "eval_every": 2}
PROCESSES = {"one": 1, "ddp": 2, "zero2": 2, "zero3": 2, "fsdp": 2}
RELATIVE = {"one": 0.0}  # what losses may differ by; else:
ROUNDING = 1e-5


@dataclass(frozen=True)
class Reference:
    """An undisturbed run."""

    lines: list[dict[str, float]]
    seconds: float


def disturbed(runs: Path, engine: str, after: float, victim: int) -> None:
    """Train, and be killed after so many seconds, if this process is the victim."""
    if int(os.environ.get("RANK", "0")) == victim:
        timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    undisturbed(runs, engine)


def undisturbed(runs: Path, engine: str) -> None:
    started = time.monotonic()
    launched("ddp" if engine == "one" else engine)
    train_gpt(runs, "run", **SETTINGS)
    (runs / "seconds").write_text(str(time.monotonic() - started))


def reference(runs: Path, engine: str) -> Reference:
    """Train once in peace."""
    runs.mkdir()
    ended = in_processes(undisturbed, runs, engine, count=PROCESSES[engine], log=runs / "log")
    assert ended.code == 0, ended.output
    return Reference(without_speed(runs), float((runs / "seconds").read_text()))


def trial(runs: Path, engine: str, expected: Reference, rng: random.Random, kills: int = 2) -> int:
    """Disturb a run, and hold it to the reference; returns how often it was really killed."""
    killed, count = 0, PROCESSES[engine]
    runs.mkdir(parents=True)
    for number in range(kills):
        arguments = (runs, engine, rng.uniform(0, expected.seconds), rng.randrange(count))
        log = runs / f"log-{number}"
        ended = in_processes(disturbed, *arguments, count=count, log=log, fall_together=True)
        killed += -signal.SIGKILL in ended.codes
    ended = in_processes(
        undisturbed, runs, engine, count=count, log=runs / "log", fall_together=True
    )
    assert set(ended.codes) == {0}, ended.output
    for line, other in itertools.zip_longest(without_speed(runs), expected.lines):
        for name in other:
            allowed = RELATIVE.get(engine, ROUNDING) * abs(other[name])
            assert abs(line[name] - other[name]) <= allowed, (line, other)
    kept = sorted(path.name for path in (runs / "run" / "checkpoints").iterdir())
    assert kept[-2:] == ["step-00000005", "step-00000006"], kept
    assert len(kept) <= 3, kept  # killed between the last save and the removal of the oldest
    return killed


def without_speed(runs: Path) -> list[dict[str, float]]:
    return [
        {key: value for key, value in line.items() if key != "tokens_per_s"}
        for line in trace(runs / "run")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--engine", choices=PROCESSES, default="one")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        expected = reference(Path(folder) / "reference", options.engine)
        killed = 0
        for number in tqdm(range(options.trials), unit="trial", disable=not sys.stderr.isatty()):
            killed += trial(Path(folder) / str(number), options.engine, expected, rng)
    print(
        f"{options.engine}: {options.trials} runs, {killed} kills, all ended like the undisturbed."
    )


if __name__ == "__main__":
    main()
