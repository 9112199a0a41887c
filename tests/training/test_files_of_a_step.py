"""How many of our files a reader must open to follow a launch, and one training step.

A profiler hook notes the file of every function that is called. Code that runs while a module is
imported does not count: nobody has to read it to follow the run.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from course_utils.base.paths import course_root

TRACER = """
import json, os, runpy, sys

PACKAGE = os.path.join(os.getcwd(), "src", "course_utils") + os.sep
LAB, REPORT = sys.argv[1], sys.argv[-1]
sys.argv = sys.argv[1:-1]
seen, steps, launch = set(), [], []
importing = 0

def note(frame, event, argument):
    global importing, seen
    code = frame.f_code
    if code.co_name == "<module>" and not code.co_filename.endswith(LAB):
        importing += {"call": 1, "return": -1}.get(event, 0)
    elif event == "call" and not importing and code.co_filename.startswith(PACKAGE):
        name = code.co_filename.removeprefix(PACKAGE)
        if (name, code.co_name) == ("training/loop/optimizer_step.py", "batches"):
            (steps if launch else launch).append(sorted(seen))
            seen = set()
        seen.add(name)

sys.setprofile(note)
runpy.run_path(LAB, run_name="__main__")
sys.setprofile(None)
with open(REPORT, "w") as file:
    json.dump({"launch": launch[0], "steps": steps}, file)
"""

LANGUAGE = (
    "labs/pretrain.py --recipe pretrain-smoke --steps 8 --precision no --evaluations 1 "
    "--checkpoints 1"
)


def files_of(command: str, folder: Path) -> dict[str, list]:
    report = folder / "report.json"
    subprocess.run(
        [sys.executable, "-c", TRACER, *command.split(), str(report)],
        cwd=course_root(),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    found: dict[str, list] = json.loads(report.read_text("utf-8"))
    return found


@pytest.mark.slow
def test_mnist(tmp_path: Path) -> None:
    found = files_of("labs/mnist.py --recipe mnist-smoke", tmp_path)
    assert len(found["launch"]) <= 32, found["launch"]
    steady = found["steps"][3]
    assert "training/loop/trainer.py" in steady and "models/cnn.py" in steady
    assert len(steady) <= 12, steady


@pytest.mark.slow
def test_a_language_model(tmp_path: Path) -> None:
    """models/gpt has a file for each idea of the model; all the rest is at most twelve."""
    steady = files_of(LANGUAGE, tmp_path)["steps"][3]
    assert "models/gpt/attention.py" in steady
    rest = [name for name in steady if not name.startswith("models/gpt/")]
    assert len(rest) <= 12, rest
