"""Eight runs killed at random moments; `stress.py` does hundreds."""

import random
from pathlib import Path

import pytest
from stress import reference, trial


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "trials"), [("one", 4), ("ddp", 2), ("zero2", 1), ("zero3", 1)])
def test_killed_at_random_moments(tmp_path: Path, engine: str, trials: int) -> None:
    expected = reference(tmp_path / "reference", engine)
    rng = random.Random(0)
    for number in range(trials):
        trial(tmp_path / str(number), engine, expected, rng, kills=1 if "zero" in engine else 2)
