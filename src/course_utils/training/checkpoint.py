"""What a checkpoint holds, and how a run takes it up again.

    step-00000200/
      model.safetensors   weights and buffers, in the precision the optimiser keeps them (fp32)
      optimizer.pt        its state (momenta, step counts)
      generators.pt       the state of every random number generator, of every process
      state.json          step, items, seconds, loss scale, and the settings of the run
      manifest.json       sizes and hashes (see snapshots)

The data position needs no entry: it is the step (see data_order). Nor does a counter of
micro-batches: saving happens between steps. Nothing is pickled that could run code on loading:
`torch.load` is used with `weights_only=True`.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from course_utils.errors import CourseError
from course_utils.training import rng, snapshots
from course_utils.training.processes import Processes
from course_utils.training.run_folder import refuse_other_settings

WEIGHTS, OPTIMIZER, GENERATORS, STATE = (
    "model.safetensors",
    "optimizer.pt",
    "generators.pt",
    "state.json",
)


@dataclass
class Position:
    """How far a run is: optimiser steps, items its loss summed over, seconds of training."""

    step: int = 0
    items: int = 0
    elapsed_s: float = 0.0


class Checkpoints:
    """The checkpoints of one run.

    Args:
        root: Their folder.
        keep: How many stay.
        identity: The settings that a run which goes on must share.
        model: Unwrapped. Under ZeRO-3 or FSDP no process holds all of it; there, this class will
            hand over to `accelerator.save_state`, inside the same snapshot.
    """

    def __init__(
        self,
        root: Path,
        keep: int,
        identity: Mapping[str, Any],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        processes: Processes,
    ) -> None:
        self._root, self._keep = root, keep
        self._identity = json.loads(json.dumps(identity))  # as a checkpoint will give it back
        self._model, self._optimizer = model, optimizer
        self._scaler = accelerator.scaler
        self._processes = processes

    def save(self, position: Position) -> Path:
        """Write a checkpoint; all processes call it, the main one writes.

        Raises:
            CourseError: when the disk is full or may not be written; the older ones are intact.
        """
        generators = self._processes.gather(rng.capture())

        def fill(folder: Path) -> None:
            save_weights(self._model, folder / WEIGHTS)
            torch.save(_plain(self._optimizer.state_dict(), "optimizer"), folder / OPTIMIZER)
            torch.save(generators, folder / GENERATORS)
            state = asdict(position) | {
                "scaler": self._scaler.state_dict() if self._scaler else None,
                "identity": self._identity,
            }
            (folder / STATE).write_text(json.dumps(state, indent=1))

        def write() -> Path:
            try:
                return snapshots.write(self._root, position.step, fill, self._keep)
            # A full disk is an OSError in Python, and these two in the libraries' own writers.
            except (OSError, SafetensorError, RuntimeError) as error:
                older = snapshots.versions(self._root)
                last = f"{older[-1].name} is intact" if older else "There is none before it"
                free = shutil.disk_usage(self._root).free / 1e6
                raise CourseError(
                    f"Could not save step {position.step} in {self._root} ({free:.0f} MB are free "
                    f"there): {error}\n{last}. Make room and start the same again to go on."
                ) from error

        return self._processes.on_main(write)

    def newest(self) -> tuple[Path | None, list[str]]:
        """The newest intact checkpoint, and what is wrong with each newer one.

        Raises:
            CourseError: when there are checkpoints and none is intact.
        """
        version, damage = self._processes.on_main(lambda: snapshots.newest_intact(self._root))
        if version is None and damage:
            raise CourseError(
                f"No checkpoint in {self._root} is intact: {'; '.join(damage)}.\n"
                "Restore one from a copy, or start over with resume='never'."
            )
        return version, damage

    def load(self, version: Path) -> Position:
        """Put model, optimiser, loss scale and random numbers back to where they were.

        Raises:
            CourseError: when the checkpoint belongs to a run with other settings, or to another
                model; it names the setting or the weight.
        """
        state = json.loads((version / STATE).read_text())
        refuse_other_settings(state["identity"], self._identity, self._root.parent.name)
        load_weights(self._model, version / WEIGHTS)
        optimizer_state = torch.load(version / OPTIMIZER, map_location="cpu", weights_only=True)
        self._optimizer.load_state_dict(optimizer_state)
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
    version, damage = snapshots.newest_intact(run / "checkpoints")
    if version is None:
        raise CourseError("; ".join([f"{run} has no intact checkpoint", *damage]) + ".")
    load_weights(model, version / WEIGHTS)
    return snapshots.step_of(version)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's weights and buffers; a tensor with two names (tied weights) is written once.

    The second name goes into the file's metadata, as safetensors holds no shared memory. Where some
    weights are trained and others frozen (LoRA), the frozen ones are left out: they are those of
    the model that the run began with.
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    name_of: dict[tuple, str] = {}
    frozen = frozen_names(model)
    for name, tensor in model.state_dict().items():
        if name in frozen:
            continue
        memory = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and memory in name_of:
            aliases[name] = name_of[memory]
        else:
            name_of[memory] = name
            tensors[name] = tensor.contiguous()
    metadata = {"format": "pt", "aliases": json.dumps(aliases), "partial": str(bool(frozen))}
    save_file(tensors, path, metadata=metadata)
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors lets only the owner read it


def load_weights(model: nn.Module, path: Path) -> None:
    """Load what `save_weights` wrote; names and shapes must match one to one.

    The names are those of all weights, or, where some are frozen, of the others.

    Raises:
        CourseError: naming the first weight that is missing, unexpected or of another shape.
            The model is then unchanged.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    saved = load_file(path)
    aliases = json.loads(metadata.get("aliases", "{}"))
    saved |= {alias: saved[name] for alias, name in aliases.items()}
    own, frozen = model.state_dict(), frozen_names(model)
    if metadata.get("partial") == "True":
        own = {name: tensor for name, tensor in own.items() if name not in frozen}
    for name in [*own, *(name for name in saved if name not in own)]:
        if name not in saved:
            raise CourseError(f"{path} has no weights for {name}: it is of another model.")
        if name not in own:
            raise CourseError(f"{path} has weights for {name}, which this model lacks.")
        if saved[name].shape != own[name].shape:
            raise CourseError(
                f"{path} holds {name} with shape {list(saved[name].shape)}; "
                f"this model's is {list(own[name].shape)}."
            )
    model.load_state_dict(saved, strict=len(own) == len(model.state_dict()))


def frozen_names(model: nn.Module) -> set[str]:
    """What training does not change, if it changes anything: frozen parameters, quantized weights.

    Buffers change in training (running means), except in modules that say `frozen_state = True`.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return set()
    named = model.named_parameters(remove_duplicate=False)
    frozen = {name for name, parameter in named if not parameter.requires_grad}
    for prefix, module in model.named_modules():
        if getattr(module, "frozen_state", False):
            frozen |= {f"{prefix}.{name}" for name in module.state_dict()}
    return frozen


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
            "keep tensors, numbers and strings in the optimiser's state."
        )
    return value
