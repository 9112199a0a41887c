"""What a checkpoint holds, and how a run takes it up again.

    step-00000200/
      model.safetensors   weights and buffers, in the precision the optimizer keeps them (fp32)
      optimizer.pt        its state (momenta, step counts)
      generators.pt       the state of every random number generator, of every process
      state.json          step, items, seconds, loss scale, and the settings of the run
      manifest.json       sizes and hashes (see snapshots)

It is the same file whatever the engine (see engines), so another may go on from it.

The data position needs no entry: it is the step (see data_order). Nor does a counter of
micro-batches: saving happens between steps. Nothing is pickled that could run code on loading:
`torch.load` is used with `weights_only=True`.
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
    """How far a run is: optimizer steps, items its loss summed over, seconds of training."""

    step: int = 0
    items: int = 0
    elapsed_s: float = 0.0


class Checkpoints:
    """The checkpoints of one run.

    Saving copies the state into main memory, which training waits for, and writes the copy in a
    thread, which it does not. A copy is of one step, so the file is too.

    Args:
        root: Their folder.
        keep: How many stay.
        identity: The settings that a run which goes on must share.
        inventory: Of the model, taken before `engine` split its weights.
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
        self._identity = json.loads(json.dumps(identity))  # as a checkpoint will give it back
        self._inventory, self._engine, self._scaler = inventory, engine, scaler
        self._processes = processes
        self._writer: threading.Thread | None = None
        self._failure: CourseError | None = None

    def save(self, position: Position, whole: Whole | None) -> Path:
        """Begin to write a checkpoint; all processes call it, the main one writes.

        Args:
            whole: What `engine.whole()` returned.

        Raises:
            CourseError: when the checkpoint before this one could not be written, or the optimizer
                keeps something that a checkpoint cannot hold.
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
        """Until the checkpoint that is being written is on the disk; all processes call it.

        Raises:
            CourseError: when the disk is full or may not be written; the older ones are intact.
        """

        def join() -> None:
            self.drain()
            failure, self._failure = self._failure, None
            if failure:
                raise failure

        self._processes.on_main(join)

    def drain(self) -> None:
        """Let this process's writer come to its end, whatever that is."""
        if self._writer:
            self._writer.join()
            self._writer = None

    @property
    def failed(self) -> bool:
        """Whether this process could not write; `wait` says why."""
        return self._failure is not None

    def _write(self, step: int, whole: Whole, generators: list, state: dict[str, Any]) -> None:
        def fill(folder: Path) -> None:
            partial = bool(self._inventory.frozen)
            write_weights(whole.weights, whole.aliases, partial=partial, path=folder / WEIGHTS)
            torch.save(whole.optimizer, folder / OPTIMIZER)
            torch.save(generators, folder / GENERATORS)
            (folder / STATE).write_text(json.dumps(state, indent=1))

        try:
            snapshots.write(self._root, step, fill, self._keep)
        # A full disk is an OSError in Python, and these two in the libraries' own writers.
        except (OSError, SafetensorError, RuntimeError) as error:
            older = snapshots.versions(self._root)
            last = f"{older[-1].name} is intact" if older else "There is none before it"
            free = shutil.disk_usage(self._root).free / 1e6
            self._failure = CourseError(
                f"Could not save step {step} in {self._root} ({free:.0f} MB are free "
                f"there): {error}\n{last}. Make room and start the same again to go on."
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
                "Restore one from a copy, or start over with resume='never'."
            )
        return version, damage

    def load(self, version: Path) -> Position:
        """Put model, optimizer, loss scale and random numbers back to where they were.

        Raises:
            CourseError: when the checkpoint belongs to a run with other settings, or to another
                model; it names the setting or the weight.
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
        else:  # Other machines took over: there is nothing to restore for some of the processes.
            rng.seed_everything(
                self._identity["train"]["seed"], self._processes.index, state["step"]
            )
        return Position(state["step"], state["items"], state["elapsed_s"])


def load_run(model: nn.Module, run: Path) -> int:
    """Load the weights of a run's newest intact checkpoint into `model`.

    Args:
        model: Built as it was for the run.
        run: The run's folder, runs/<name>.

    Returns:
        The step they are from.

    Raises:
        CourseError: when the run has no intact checkpoint, or one of another model.
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
            continue  # the run is going on, and has dropped it for newer ones
        return snapshots.step_of(version)


def _plain(value: Any, name: str) -> Any:
    # What weights_only refuses to load must not get into a checkpoint in the first place.
    if isinstance(value, Mapping):
        for key, item in value.items():
            _plain(item, f"{name}[{key!r}]")
    elif isinstance(value, list | tuple):
        for item in value:
            _plain(item, name)
    elif not isinstance(value, Tensor | str | int | float | None):
        raise CourseError(
            f"{name} is a {type(value).__name__}, which a checkpoint cannot hold: "
            "keep tensors, numbers and strings in the optimizer's state."
        )
    return value
