"""A model's weights as a file: what training changes, by name, compared one to one on loading."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from course_utils.base.errors import CourseError


@dataclass(frozen=True)
class Inventory:
    """What a model consists of, known before its weights are split over processes.

    Attributes:
        shapes: Of all weights and buffers in its state, by name.
        frozen: Those that training does not change, if it changes anything.
    """

    shapes: Mapping[str, torch.Size]
    frozen: frozenset[str]

    @classmethod
    def of(cls, model: nn.Module) -> "Inventory":
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        return cls(shapes, frozenset(frozen_names(model)))


def save_weights(model: nn.Module, path: Path) -> None:
    """Write what training changes of a model: see `trained_weights`."""
    write_weights(*trained_weights(model), partial=bool(frozen_names(model)), path=path)


def trained_weights(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights and buffers by name, and the second names of tensors that have two (tied weights).

    Where some weights are trained and others frozen (LoRA), the frozen ones are left out: they are
    those of the model that the run began with.
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
    return tensors, aliases


def write_weights(
    tensors: Mapping[str, Tensor], aliases: Mapping[str, str], *, partial: bool, path: Path
) -> None:
    """Write weights by name; the second names go into the file's metadata, as safetensors holds no
    shared memory.

    Args:
        partial: Whether the model has frozen weights, which are not in the file.
    """
    metadata = {"format": "pt", "aliases": json.dumps(aliases), "partial": str(partial)}
    save_file(dict(tensors), path, metadata=metadata)
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors lets only the owner read it


def load_weights(model: nn.Module, path: Path) -> None:
    """Load what `save_weights` wrote; names and shapes must match one to one.

    Raises:
        CourseError: as `read_weights`; the model is then unchanged.
    """
    saved = read_weights(Inventory.of(model), path)
    model.load_state_dict(saved, strict=len(saved) == len(model.state_dict()))


def read_weights(inventory: Inventory, path: Path) -> dict[str, Tensor]:
    """What `save_weights` wrote, under all names, if it fits a model of this inventory.

    The names are those of all weights, or, where some are frozen, of the others.

    Raises:
        CourseError: naming the first weight that is missing, unexpected or of another shape.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    saved = load_file(path)
    aliases = json.loads(metadata.get("aliases", "{}"))
    saved |= {alias: saved[name] for alias, name in aliases.items()}
    own = dict(inventory.shapes)
    if metadata.get("partial") == "True":
        own = {name: shape for name, shape in own.items() if name not in inventory.frozen}
    for name in [*own, *(name for name in saved if name not in own)]:
        if name not in saved:
            raise CourseError(f"{path} has no weights for {name}: it is of another model.")
        if name not in own:
            raise CourseError(f"{path} has weights for {name}, which this model lacks.")
        if saved[name].shape != own[name]:
            raise CourseError(
                f"{path} holds {name} with shape {list(saved[name].shape)}; "
                f"this model's is {list(own[name])}."
            )
    return saved


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
