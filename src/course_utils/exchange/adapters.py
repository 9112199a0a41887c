"""LoRA adapters as files, in PEFT's format: what it saves loads here, and the other way round.

    adapter_config.json           rank, alpha, dropout, rsLoRA, which layers
    adapter_model.safetensors     the low-rank matrices alone

An adapter of one of our GPTs is written with transformers' names for the layers, so that PEFT puts
it onto the exported model; any other model keeps its own names.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from course_utils.base.errors import CourseError
from course_utils.exchange.hf import layer_name, our_layer_name
from course_utils.models import lora
from course_utils.models.gpt import GPT
from course_utils.models.lora import LoRAConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."

# What PEFT can do and `LoRALinear` cannot: refused unless it is off.
_UNSUPPORTED = (
    "use_dora", "use_qalora", "lora_bias", "fan_in_fan_out", "rank_pattern", "alpha_pattern",
    "modules_to_save", "layer_replication", "megatron_config", "trainable_token_indices",
    "target_parameters", "alora_invocation_tokens", "arrow_config",
)  # fmt: skip


def save_adapter(model: nn.Module, folder: Path, base: str | None = None) -> Path:
    """Write the adapter of a model, and nothing of the model itself.

    Args:
        base: The name of the model that the adapter belongs to, for the reader's information.

    Raises:
        CourseError: when the model has none, or its layers differ in rank or scale.
    """
    layers = dict(lora.adapters(model))
    if not layers:
        raise CourseError("This model has no LoRA layers to save.")
    [first, *others] = [layer.config for layer in layers.values()]
    if any(other != first for other in others):
        raise CourseError("The LoRA layers have different settings: one file holds one of them.")
    names = {name: _their_name(model, name) for name in layers}
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        tensors[f"{PREFIX}{names[name]}.lora_A.weight"] = layer.down.detach().cpu().contiguous()
        tensors[f"{PREFIX}{names[name]}.lora_B.weight"] = layer.up.detach().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": first.rank,
        "lora_alpha": first.alpha,
        "lora_dropout": first.dropout,
        "use_rslora": first.rslora,
        "target_modules": sorted(names.values()),
        "bias": "none",
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


def load_adapter(model: nn.Module, folder: Path) -> LoRAConfig:
    """Inject an adapter that PEFT or `save_adapter` wrote into a model.

    Returns:
        Its settings; the targets are the layers' full names.

    Raises:
        CourseError: when the files are missing or damaged, ask for what is not supported here, or
            do not fit the model.
    """
    try:
        described = json.loads((folder / CONFIG).read_text("utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CourseError(f"{folder} holds no readable LoRA adapter: {error}") from None
    _refuse_unsupported(described, folder)
    pairs = _pairs(tensors, model, folder)
    config = LoRAConfig(
        rank=described["r"],
        alpha=described["lora_alpha"],
        dropout=described.get("lora_dropout", 0.0),
        rslora=described.get("use_rslora", False),
        targets=tuple(sorted(pairs)),
    )
    _refuse_misfits(model, pairs, config, folder)
    lora.inject(model, config)
    with torch.no_grad():
        for name, layer in lora.adapters(model):
            down, up = pairs[name]
            layer.down.copy_(down)
            layer.up.copy_(up)
    return config


def _their_name(model: nn.Module, name: str) -> str:
    return layer_name(name) if isinstance(model, GPT) else name


def _our_name(model: nn.Module, name: str) -> str:
    return our_layer_name(name) if isinstance(model, GPT) else name


def _refuse_unsupported(described: dict[str, Any], folder: Path) -> None:
    asked = [name for name in _UNSUPPORTED if described.get(name)]
    if described.get("peft_type") != "LORA":
        asked.append(f"peft_type {described.get('peft_type')}")
    if described.get("bias", "none") != "none":
        asked.append(f"bias {described['bias']!r}")
    if asked:
        raise CourseError(f"{folder} asks for what plain LoRA has not: {', '.join(asked)}.")


def _pairs(tensors: dict[str, Tensor], model: nn.Module, folder: Path) -> dict[str, list[Tensor]]:
    """The two low-rank matrices of each layer, by the layer's name in `model`."""
    pairs: dict[str, list[Tensor]] = {}
    for key in sorted(tensors):  # A before B
        name, _, kind = key.removeprefix(PREFIX).rpartition(".lora_")
        if kind not in ("A.weight", "B.weight"):
            raise CourseError(f"{folder / WEIGHTS} holds {key}, which is no part of plain LoRA.")
        pairs.setdefault(_our_name(model, name), []).append(tensors[key])
    return pairs


def _refuse_misfits(
    model: nn.Module, pairs: dict[str, list[Tensor]], config: LoRAConfig, folder: Path
) -> None:
    layers = dict(model.named_modules())
    for name, pair in pairs.items():
        layer = layers.get(name)
        if layer is None or not hasattr(layer, "in_features"):
            raise CourseError(f"{folder} adapts {name}, which this model has not.")
        wanted = [[config.rank, layer.in_features], [layer.out_features, config.rank]]
        if [list(matrix.shape) for matrix in pair] != wanted:
            found = " and ".join(str(list(matrix.shape)) for matrix in pair)
            raise CourseError(f"{folder}: {name} needs matrices {wanted[0]} and {wanted[1]}, "
                              f"not {found}: it is of another model.")  # fmt: skip
