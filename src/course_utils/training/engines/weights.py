"""A model's trained weights as a safetensors file; loading compares all names and shapes."""

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
    """The names and shapes of a model's weights, taken before an engine shards them.

    Attributes:
        shapes: The shapes of all weights and buffers in the state_dict, by name.
        frozen: The names of weights that training does not change; see `frozen_names`.
    """

    shapes: Mapping[str, torch.Size]
    frozen: frozenset[str]

    @classmethod
    def of(cls, model: nn.Module) -> "Inventory":
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        return cls(shapes, frozenset(frozen_names(model)))


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's trained weights: see `trained_weights`."""
    write_weights(*trained_weights(model), partial=bool(frozen_names(model)), path=path)


def trained_weights(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Trained weights and buffers by name, and the further names of tied weights.

    If some weights are trained and others are frozen (LoRA), the result omits the frozen ones: they
    are the same as in the base model.
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
    """Write weights by name. The metadata holds the aliases: safetensors refuses shared memory.

    Args:
        partial: Whether the model also has frozen weights, which the file omits.
    """
    metadata = {"format": "pt", "aliases": json.dumps(aliases), "partial": str(partial)}
    save_file(dict(tensors), path, metadata=metadata)
    path.chmod(
        path.parent.stat().st_mode & 0o666
    )  # safetensors makes it readable for the owner only


def load_weights(model: nn.Module, path: Path) -> None:
    """Load what `save_weights` wrote; names and shapes must match one to one.

    Raises:
        CourseError: as for `read_weights`; the model is then unchanged.
    """
    saved = read_weights(Inventory.of(model), path)
    model.load_state_dict(saved, strict=len(saved) == len(model.state_dict()))


def read_weights(inventory: Inventory, path: Path) -> dict[str, Tensor]:
    """Read what `save_weights` wrote, under all names, and compare it with the inventory.

    The file must hold all weights, or, if some are frozen, all weights that are not frozen.

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
            raise CourseError(
                f"{path} has no weights for {name}: the file belongs to another model."
            )
        if name not in own:
            raise CourseError(f"{path} has weights for {name}, which this model lacks.")
        if saved[name].shape != own[name]:
            raise CourseError(
                f"{path} holds {name} with shape {list(saved[name].shape)}; "
                f"this model's is {list(own[name])}."
            )
    return saved


def frozen_names(model: nn.Module) -> set[str]:
    """Names of weights that training does not change: frozen parameters, quantized weights.

    If no parameter requires gradients, the result is empty. Training may change buffers (running
    means), except in modules with `frozen_state = True`.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return set()
    named = model.named_parameters(remove_duplicate=False)
    frozen = {name for name, parameter in named if not parameter.requires_grad}
    for prefix, module in model.named_modules():
        if getattr(module, "frozen_state", False):
            frozen |= {f"{prefix}.{name}" for name in module.state_dict()}
    return frozen
