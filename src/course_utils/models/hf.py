"""Our weights as transformers' Qwen3, and back.

The two models compute the same function, so going over is only a matter of names. From there the
weights go wherever Qwen3 does: transformers, vLLM, llama.cpp, ollama.
"""

import re
from typing import Any

import torch
from torch import Tensor

from course_utils.errors import CourseError
from course_utils.models.gpt import GPT, GPTConfig, YaRN

# Ours on the left, theirs on the right; {} is the number of the block.
_NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "blocks.{}.attention_norm.weight": "model.layers.{}.input_layernorm.weight",
    "blocks.{}.attention.query.weight": "model.layers.{}.self_attn.q_proj.weight",
    "blocks.{}.attention.key.weight": "model.layers.{}.self_attn.k_proj.weight",
    "blocks.{}.attention.value.weight": "model.layers.{}.self_attn.v_proj.weight",
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
_BACK = {theirs: ours for ours, theirs in _NAMES.items()}


def hf_config(config: GPTConfig) -> Any:
    """The `Qwen3Config` that describes the same shape."""
    from transformers import Qwen3Config

    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.yarn:
        rope |= {
            "rope_type": "yarn",
            "factor": config.yarn.factor,
            "original_max_position_embeddings": config.yarn.original_context,
            "beta_fast": config.yarn.fast,
            "beta_slow": config.yarn.slow,
        }
    return Qwen3Config(
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
    )


def our_config(theirs: Any) -> GPTConfig:
    """The shape that a `Qwen3Config` describes.

    Raises:
        CourseError: for what our model does not have (other architectures, biases, windows).
    """
    unsupported = {
        "model_type": theirs.model_type != "qwen3",
        "hidden_act": theirs.hidden_act != "silu",
        "attention_bias": theirs.attention_bias,
        "sliding_window": theirs.sliding_window is not None,
        "rope_type": theirs.rope_parameters["rope_type"] not in ("default", "yarn"),
    }
    for name, differs in unsupported.items():
        if differs:
            raise CourseError(f"This model's {name} is not one of Qwen3's dense shape.")
    rope = theirs.rope_parameters
    yarn = None
    if rope["rope_type"] == "yarn":
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
        head_dim=theirs.head_dim,
        d_ff=theirs.intermediate_size,
        context=theirs.max_position_embeddings,
        rope_theta=rope["rope_theta"],
        yarn=yarn,
        norm_eps=theirs.rms_norm_eps,
        tied=theirs.tie_word_embeddings,
    )


def to_hf(model: GPT) -> Any:
    """A `Qwen3ForCausalLM` with the same weights: equal logits up to rounding."""
    from transformers import AutoModelForCausalLM

    # Not `.to(dtype)` afterwards: that would round the rotary frequencies, too.
    dtype = model.embedding.weight.dtype
    theirs = AutoModelForCausalLM.from_config(hf_config(model.config), dtype=dtype)
    theirs.load_state_dict(rename(model.state_dict(), _NAMES), strict=True)
    return theirs.eval()


def from_hf(theirs: Any) -> GPT:
    """Our model with the weights of a `Qwen3ForCausalLM`, bit for bit.

    Raises:
        CourseError: when a weight has no place in our model, or one of ours is missing.
    """
    model = GPT(our_config(theirs.config)).to(theirs.dtype)
    state = rename(theirs.state_dict(), _BACK)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CourseError(f"The weights do not fit: {error}") from None
    return model.eval()


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
