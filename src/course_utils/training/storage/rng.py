"""Seed, save and restore the global random number generators.

Dropout draws from global generators. A resumed run draws the same numbers as an uninterrupted one
only if its checkpoint holds the states of the generators.
"""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

State = dict[str, Any]


def seed_everything(*key: int) -> None:
    """Seed Python's, NumPy's and torch's generators (CPU and this process's GPU).

    Args:
        key: Non-negative numbers; different keys give independent streams. The trainer's key is the
            seed and the rank: with one stream for all, every rank would use the same dropout mask.
    """
    python, numpy, torch_seed = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(python))
    np.random.seed(numpy)
    torch.manual_seed(int(torch_seed))


def capture() -> State:
    """The state of all generators, in types that `torch.load(weights_only=True)` accepts."""
    name, keys, *rest = np.random.get_state(legacy=True)
    state = {
        "python": random.getstate(),
        "numpy": (name, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.accelerator.is_available():
        state["gpu"] = _gpu().get_rng_state()
    return state


def restore(state: State) -> None:
    """Put back what `capture` returned. A GPU's state is skipped on a machine without one."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "gpu" in state and torch.accelerator.is_available():
        _gpu().set_rng_state(state["gpu"])


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Restore the generators' states after the block, whatever the block draws."""
    state = capture()
    try:
        yield
    finally:
        restore(state)


def _gpu() -> Any:
    return torch.get_device_module(torch.accelerator.current_accelerator())
