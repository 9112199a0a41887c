"""Our weights as transformers' Qwen3, and back.

The two models compute the same function, so going over is only a matter of names. From there the
weights go wherever Qwen3 does: transformers, vLLM, llama.cpp, ollama.

Two older shapes differ from Qwen3 by a detail and fit in as well:

    qwen3     qk_norm, no bias        ours
    llama     neither                 Llama 2, SmolLM2, TinyLlama
    qwen2     a bias, no qk_norm      Qwen2, Qwen2.5

A mixture of experts is Qwen3-MoE's.
"""

import re
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from course_utils.base.errors import CourseError
from course_utils.models.gpt import GPT, GPTConfig, YaRN

# Ours on the left, theirs on the right; {} is the number of the block.
_NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "blocks.{}.attention_norm.weight": "model.layers.{}.input_layernorm.weight",
    **{
        f"blocks.{{}}.attention.{ours}.{kind}": f"model.layers.{{}}.self_attn.{theirs}.{kind}"
        for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))
        for kind in ("weight", "bias")
    },
    "blocks.{}.attention.output.weight": "model.layers.{}.self_attn.o_proj.weight",
    "blocks.{}.attention.query_norm.weight": "model.layers.{}.self_attn.q_norm.weight",
    "blocks.{}.attention.key_norm.weight": "model.layers.{}.self_attn.k_norm.weight",
    "blocks.{}.mlp_norm.weight": "model.layers.{}.post_attention_layernorm.weight",
    "blocks.{}.mlp.gate.weight": "model.layers.{}.mlp.gate_proj.weight",
    "blocks.{}.mlp.up.weight": "model.layers.{}.mlp.up_proj.weight",
    "blocks.{}.mlp.down.weight": "model.layers.{}.mlp.down_proj.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_NAMES_OF_EXPERTS = {
    "blocks.{}.mlp.router.weight": "model.layers.{}.mlp.gate.weight",
    "blocks.{}.mlp.gate_up.weight": "model.layers.{}.mlp.experts.gate_up_proj",
    "blocks.{}.mlp.down.weight": "model.layers.{}.mlp.experts.down_proj",
}
_BACK = {theirs: ours for ours, theirs in (*_NAMES.items(), *_NAMES_OF_EXPERTS.items())}


def architecture(config: GPTConfig) -> str:
    """What transformers calls this shape.

    Raises:
        CourseError: for what nobody there has: QK-norm together with biases, or a mixture of
            experts without the one or with the other, or Llama with a width that its heads do not
            divide.
    """
    if config.n_experts:
        if config.qk_norm and not config.qkv_bias:
            return "qwen3_moe"
        raise CourseError("transformers' experts come with QK-norm, without biases: not these.")
    if config.qk_norm and config.qkv_bias:
        raise CourseError("transformers has no model with QK-norm and biases: this one stays here.")
    if config.qk_norm:
        return "qwen3"
    if not config.qkv_bias and config.d_model % config.n_heads:
        raise CourseError(
            f"transformers' Llama cannot be {config.d_model} wide with {config.n_heads} heads: "
            "it wants a multiple of them."
        )
    return "qwen2" if config.qkv_bias else "llama"


def hf_config(config: GPTConfig) -> Any:
    """The configuration of transformers that describes the same shape."""
    from transformers import AutoConfig

    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.yarn:
        rope |= {
            "rope_type": "yarn",
            "factor": config.yarn.factor,
            "original_max_position_embeddings": config.yarn.original_context,
            "beta_fast": config.yarn.fast,
            "beta_slow": config.yarn.slow,
        }
    experts: dict[str, Any] = {}
    if config.n_experts:
        experts = {
            "moe_intermediate_size": config.d_ff,
            "num_experts": config.n_experts,
            "num_experts_per_tok": config.top_k,
            "norm_topk_prob": config.top_k > 1,
        }
    return AutoConfig.for_model(
        architecture(config),
        vocab_size=config.vocab,
        hidden_size=config.d_model,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        intermediate_size=config.d_ff,
        max_position_embeddings=config.context,
        rope_parameters=rope,
        rms_norm_eps=config.norm_eps,
        tie_word_embeddings=config.tied,
        **experts,
    )


def our_config(theirs: Any) -> GPTConfig:
    """The shape that a configuration of transformers describes.

    Raises:
        CourseError: for what our model does not have (other architectures, biases, windows).
    """
    kind, rope = theirs.model_type, getattr(theirs, "rope_parameters", None) or {}
    mixture = kind == "qwen3_moe"
    several = mixture and theirs.num_experts_per_tok > 1
    unsupported = {
        "model_type": kind not in ("qwen3", "llama", "qwen2", "qwen3_moe"),
        "hidden_act": getattr(theirs, "hidden_act", None) != "silu",
        "attention_bias": getattr(theirs, "attention_bias", False),
        "mlp_bias": getattr(theirs, "mlp_bias", False),
        "sliding_window": getattr(theirs, "sliding_window", None) is not None,
        "rope_type": rope.get("rope_type", "default") not in ("default", "yarn"),
        "norm_topk_prob": mixture and theirs.norm_topk_prob != several,
        "mlp_only_layers": mixture and bool(theirs.mlp_only_layers),
        "decoder_sparse_step": mixture and theirs.decoder_sparse_step != 1,
    }
    for name, differs in unsupported.items():
        if differs:
            raise CourseError(
                f"This model's {name} ({getattr(theirs, name, rope.get(name))!r}) is not one of "
                "the shapes of Qwen3, Qwen2 and Llama that are understood here."
            )
    yarn = None
    if rope.get("rope_type") == "yarn":
        yarn = YaRN(
            rope["factor"],
            rope["original_max_position_embeddings"],
            rope.get("beta_fast") or 32.0,
            rope.get("beta_slow") or 1.0,
        )
    return GPTConfig(
        vocab=theirs.vocab_size,
        d_model=theirs.hidden_size,
        n_layers=theirs.num_hidden_layers,
        n_heads=theirs.num_attention_heads,
        n_kv_heads=theirs.num_key_value_heads,
        head_dim=getattr(theirs, "head_dim", None)
        or theirs.hidden_size // theirs.num_attention_heads,
        d_ff=theirs.moe_intermediate_size if mixture else theirs.intermediate_size,
        context=theirs.max_position_embeddings,
        rope_theta=rope["rope_theta"],
        yarn=yarn,
        norm_eps=theirs.rms_norm_eps,
        tied=theirs.tie_word_embeddings,
        qk_norm=kind in ("qwen3", "qwen3_moe"),
        qkv_bias=kind == "qwen2",
        n_experts=theirs.num_experts if mixture else 0,
        top_k=theirs.num_experts_per_tok if mixture else 1,
    )


def to_hf(model: GPT) -> Any:
    """A model of transformers with the same weights: equal logits up to rounding."""
    from transformers import AutoModelForCausalLM

    # Not `.to(dtype)` afterwards: that would round the rotary frequencies, too.
    dtype = model.embedding.weight.dtype
    theirs = AutoModelForCausalLM.from_config(hf_config(model.config), dtype=dtype)
    names = _NAMES | (_NAMES_OF_EXPERTS if model.config.n_experts else {})
    theirs.load_state_dict(rename(model.state_dict(), names), strict=True)
    return theirs.eval()


def from_hf(theirs: Any) -> GPT:
    """Our model with the weights of a Qwen3, Qwen2 or Llama of transformers, bit for bit.

    Raises:
        CourseError: when a weight has no place in our model, or one of ours is missing.
    """
    return load_state(our_config(theirs.config), theirs.state_dict(), theirs.dtype).eval()


def load_state(config: GPTConfig, state: dict[str, Tensor], dtype: torch.dtype) -> GPT:
    """Our model of a shape with weights that have transformers' names.

    Raises:
        CourseError: when a weight has no place in our model, or one of ours is missing.
    """
    with torch.device("meta"):  # random numbers that nobody will see take seconds to draw
        model = GPT(config).to(dtype)
    model.to_empty(device="cpu")
    if config.tied:  # emptying makes two of what was one, and a file holds it once
        model.output.weight = model.embedding.weight
        state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    try:
        model.load_state_dict(rename(_stacked(state), _BACK), strict=True)
    except RuntimeError as error:
        raise CourseError(f"The weights do not fit: {error}") from None
    return model


def _stacked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A file has the experts one by one; in memory, transformers and we have them in one tensor."""
    single = re.compile(r"(.*\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")
    together: dict[str, Tensor] = {}
    parts: defaultdict[tuple[str, str], dict[int, Tensor]] = defaultdict(dict)
    for name, weight in state.items():
        if match := single.fullmatch(name):
            layer, number, kind = match.groups()
            parts[layer, kind][int(number)] = weight
        else:
            together[name] = weight
    stacks = {key: torch.stack([of[n] for n in sorted(of)]) for key, of in parts.items()}
    for layer in {layer for layer, _ in stacks}:
        together[f"{layer}.gate_up_proj"] = torch.cat(
            (stacks[layer, "gate"], stacks[layer, "up"]), 1
        )
        together[f"{layer}.down_proj"] = stacks[layer, "down"]
    return together


def layer_name(name: str) -> str:
    """transformers' name of one of our layers, such as `blocks.3.attention.query`."""
    [theirs] = rename({f"{name}.weight": torch.empty(0)}, _NAMES)
    return theirs.removesuffix(".weight")


def our_layer_name(name: str) -> str:
    """Our name of one of transformers' layers."""
    [ours] = rename({f"{name}.weight": torch.empty(0)}, _BACK)
    return ours.removesuffix(".weight")


def rename(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Rename weights by a table with `{}` for the block's number.

    Raises:
        CourseError: for a weight that the table does not know.
    """

    def renamed(name: str) -> str:
        number = re.search(r"\.(\d+)\.", name)
        pattern = name.replace(number.group(), ".{}.", 1) if number else name
        if pattern not in names:
            raise CourseError(f"{name} has no counterpart in the other model.")
        return names[pattern].format(number.group(1)) if number else names[pattern]

    with torch.no_grad():
        return {renamed(name): weight for name, weight in state.items()}
