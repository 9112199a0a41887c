"""Checkpoints: what they hold, and how a run saves and loads them.

    step-00000200/
      model.safetensors   weights and buffers, in the precision the optimizer keeps them (fp32)
      optimizer.pt        the optimizer state (running means, step counts)
      generators.pt       the state of every random number generator of every rank
      state.json          step, items, seconds, loss scale, and the settings of the run
      manifest.json       sizes and hashes (see `storage.snapshots`)

All engines write the same files, so a run can resume under another engine (see `engines`).

The position in the data needs no entry: it is the step (see `parts.data_order`). Nor does the
position within a step: a run saves only between two steps. A checkpoint contains no pickled code:
`torch.load` is called with `weights_only=True`.
"""

import json
import shutil
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from course_utils.base.errors import CourseError
from course_utils.training.engines import Engine, Whole
from course_utils.training.engines.processes import Processes
from course_utils.training.engines.weights import (
    Inventory,
    load_weights,
    read_weights,
    write_weights,
)
from course_utils.training.storage import rng, snapshots
from course_utils.training.storage.run_folder import refuse_other_settings

WEIGHTS, OPTIMIZER, GENERATORS, STATE = (
    "model.safetensors",
    "optimizer.pt",
    "generators.pt",
    "state.json",
)


@dataclass
class Position:
    """A run's progress: optimizer steps, items in the loss, and seconds of training."""

    step: int = 0
    items: int = 0
    elapsed_s: float = 0.0


class Checkpoints:
    """The checkpoints of one run.

    Saving copies the state into main memory while training waits. A thread then writes the copy to
    the disk while training continues.

    Args:
        root: The folder of the checkpoints.
        keep: How many of the newest checkpoints to keep.
        identity: The settings that must be equal when the run resumes.
        inventory: The model's names and shapes, taken before `engine` sharded its weights.

    Attributes:
        failure: Why this process could not write a checkpoint; `wait` raises it.
    """

    def __init__(
        self,
        root: Path,
        keep: int,
        identity: Mapping[str, Any],
        inventory: Inventory,
        engine: Engine,
        scaler: Any,
        processes: Processes,
    ) -> None:
        self._root, self._keep = root, keep
        self._identity = json.loads(json.dumps(identity))  # as JSON returns it
        self._inventory, self._engine, self._scaler = inventory, engine, scaler
        self._processes = processes
        self._writer: threading.Thread | None = None
        self.failure: CourseError | None = None

    def save(self, position: Position, whole: Whole | None) -> Path:
        """Start to write a checkpoint; every rank calls this method, and rank 0 writes.

        Args:
            whole: The full state that `engine.whole()` returned.

        Raises:
            CourseError: when the previous checkpoint could not be written, or the optimizer state
                has a type that a checkpoint cannot hold.
        """
        self.wait()
        generators = self._processes.gather(rng.capture())
        version = self._root / snapshots.name_of(position.step)

        def begin() -> None:
            assert whole is not None
            _plain(whole.optimizer, "optimizer")
            state = asdict(position) | {
                "scaler": self._scaler.state_dict() if self._scaler else None,
                "identity": self._identity,
            }
            arguments = (position.step, whole, generators, state)
            self._writer = threading.Thread(target=self._write, args=arguments, name="checkpoint")
            self._writer.start()

        self._processes.on_main(begin)
        return version

    def wait(self) -> None:
        """Wait until the current checkpoint is on the disk; every rank calls this method.

        Raises:
            CourseError: when the disk is full or read-only; older checkpoints stay intact.
        """

        def join() -> None:
            self.drain()
            failure, self.failure = self.failure, None
            if failure:
                raise failure

        self._processes.on_main(join)

    def drain(self) -> None:
        """Wait for this process's writer thread, whether it succeeds or fails."""
        if self._writer:
            self._writer.join()
            self._writer = None

    def _write(self, step: int, whole: Whole, generators: list, state: dict[str, Any]) -> None:
        def fill(folder: Path) -> None:
            partial = bool(self._inventory.frozen)
            write_weights(whole.weights, whole.aliases, partial=partial, path=folder / WEIGHTS)
            torch.save(whole.optimizer, folder / OPTIMIZER)
            torch.save(generators, folder / GENERATORS)
            (folder / STATE).write_text(json.dumps(state, indent=1))

        try:
            snapshots.write(self._root, step, fill, self._keep)
        # For a full disk, Python raises OSError; safetensors and torch raise the other two.
        except (OSError, SafetensorError, RuntimeError) as error:
            older = snapshots.versions(self._root)
            last = f"{older[-1].name} is intact" if older else "There is no earlier checkpoint"
            free = shutil.disk_usage(self._root).free / 1e6
            self.failure = CourseError(
                f"Could not save step {step} in {self._root} ({free:.0f} MB are free "
                f"there): {error}\n{last}. Free disk space, then resume the run (labs: --resume)."
            )

    def newest(self) -> tuple[Path | None, list[str]]:
        """The newest intact checkpoint, and what is wrong with each newer one.

        Raises:
            CourseError: when there are checkpoints and none is intact.
        """

        def look() -> tuple[Path | None, list[str]]:
            snapshots.sweep(self._root)
            return snapshots.newest_intact(self._root)

        version, damage = self._processes.on_main(look)
        if version is None and damage:
            raise CourseError(
                f"No checkpoint in {self._root} is intact: {'; '.join(damage)}.\n"
                "Restore one from a backup, or start from the beginning with resume='never' (labs: "
                "without --resume)."
            )
        return version, damage

    def load(self, version: Path) -> Position:
        """Load the model, the optimizer, the loss scale and the random number generators.

        Raises:
            CourseError: when the checkpoint belongs to a run with other settings or to another
                model; the message names the setting or the weight.
        """
        state = json.loads((version / STATE).read_text())
        refuse_other_settings(state["identity"], self._identity, self._root.parent.name)
        weights = read_weights(self._inventory, version / WEIGHTS)
        optimizer = torch.load(version / OPTIMIZER, map_location="cpu", weights_only=True)
        self._engine.load(weights, optimizer)
        if self._scaler:
            self._scaler.load_state_dict(state["scaler"])
        generators = torch.load(version / GENERATORS, weights_only=True)
        if len(generators) == self._processes.count:
            rng.restore(generators[self._processes.index])
        else:  # The world size has changed: seed new generators for all ranks.
            rng.seed_everything(
                self._identity["train"]["seed"], self._processes.index, state["step"]
            )
        return Position(state["step"], state["items"], state["elapsed_s"])


def load_run(model: nn.Module, run: Path) -> int:
    """Load the weights of a run's newest intact checkpoint into `model`.

    Args:
        model: A model of the same shape as the run's.
        run: The run's folder, runs/<name>.

    Returns:
        The checkpoint's step.

    Raises:
        CourseError: when the run has no intact checkpoint, or its model has another shape.
    """
    while True:
        version, damage = snapshots.newest_intact(run / "checkpoints")
        if version is None:
            raise CourseError("; ".join([f"{run} has no intact checkpoint", *damage]) + ".")
        try:
            load_weights(model, version / WEIGHTS)
        except OSError:
            if version.exists():
                raise
            continue  # the run is still training and has replaced this checkpoint
        return snapshots.step_of(version)


def _plain(value: Any, name: str) -> Any:
    # Do not save values that torch.load(weights_only=True) would refuse to load.
    if isinstance(value, Mapping):
        for key, item in value.items():
            _plain(item, f"{name}[{key!r}]")
    elif isinstance(value, list | tuple):
        for item in value:
            _plain(item, name)
    elif not isinstance(value, Tensor | str | int | float | None):
        raise CourseError(
            f"{name} is a {type(value).__name__}, which a checkpoint cannot hold: "
            "keep only tensors, numbers and strings in the optimizer state."
        )
    return value
