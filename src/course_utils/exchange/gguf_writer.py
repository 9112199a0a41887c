"""A model as one GGUF file, which llama.cpp and what is built upon it (ollama, LM Studio) run.

    shape        {llama, qwen2, qwen3}.block_count, …      our three shapes are theirs
    tokenizer    tokenizer.ggml.tokens, merges, …          and the chat template
    weights      token_embd.weight, blk.0.attn_q.weight, …

Matrices may be stored in blocks of 32 numbers of a row: Q8_0 and Q4_0 are symmetric integers with a
16-bit scale for each block. Norms and biases stay in float32.
"""

import json
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from course_utils.base.durable import disk_errors, flush_file, flush_folder
from course_utils.base.errors import CourseError
from course_utils.exchange.hf import architecture, rename
from course_utils.models.gpt import GPT, GPTConfig
from course_utils.tokenizer.bpe import PIECES
from course_utils.tokenizer.fast import FastBPE, onigmo

Precision = Literal["f32", "f16", "q8_0", "q4_0"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
BLOCK = 32

_NAMES = {
    "embedding.weight": "token_embd.weight",
    "blocks.{}.attention_norm.weight": "blk.{}.attn_norm.weight",
    **{
        f"blocks.{{}}.attention.{ours}.{kind}": f"blk.{{}}.attn_{theirs}.{kind}"
        for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"))
        for kind in ("weight", "bias")
    },
    "blocks.{}.attention.output.weight": "blk.{}.attn_output.weight",
    "blocks.{}.attention.query_norm.weight": "blk.{}.attn_q_norm.weight",
    "blocks.{}.attention.key_norm.weight": "blk.{}.attn_k_norm.weight",
    "blocks.{}.mlp_norm.weight": "blk.{}.ffn_norm.weight",
    "blocks.{}.mlp.gate.weight": "blk.{}.ffn_gate.weight",
    "blocks.{}.mlp.up.weight": "blk.{}.ffn_up.weight",
    "blocks.{}.mlp.down.weight": "blk.{}.ffn_down.weight",
    "norm.weight": "output_norm.weight",
    "output.weight": "output.weight",
}


def write_gguf(
    model: GPT,
    tokenizer: FastBPE,
    file: Path,
    *,
    precision: Precision = "f16",
    name: str = "model",
    chat_template: str | None = None,
    start: str | None = None,
    end: str | None = None,
) -> Path:
    """Write a model and its tokenizer, whole or not at all; an older file is replaced.

    Args:
        precision: of the matrices. A matrix whose rows are no multiple of 32 stays in f16.
        chat_template: in Jinja.
        start, end: the special tokens that begin a text and end an answer, by name. llama.cpp puts
            none in front by itself here.

    Raises:
        CourseError: for a model that GGUF has no name for, or when the disk is full.
    """
    from gguf import GGML_QUANT_VERSION, GGUFWriter, LlamaFileType

    _understood(model.config)
    kind = {"f32": "ALL_F32", "f16": "MOSTLY_F16"}.get(precision, f"MOSTLY_{precision.upper()}")
    draft = file.with_name(f".{file.name}.writing")
    with disk_errors(f"write {file}"):
        file.parent.mkdir(parents=True, exist_ok=True)
        writer = GGUFWriter(draft, architecture(model.config))
        writer.add_name(name)
        writer.add_file_type(LlamaFileType[kind])
        writer.add_quantization_version(GGML_QUANT_VERSION)
        _add_shape(writer, model.config)
        _add_tokenizer(writer, tokenizer, model.config.vocab)
        _add_special(writer, tokenizer, start, end)
        if chat_template:
            writer.add_chat_template(plain_template(chat_template))
        for theirs, weight in gguf_state(model).items():
            _add_tensor(writer, theirs, weight, precision)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        flush_file(draft)
        draft.replace(file)
        flush_folder(file.parent)
    return file


def gguf_state(model: GPT) -> dict[str, Tensor]:
    """The weights under GGUF's names, and in its order of features."""
    state, config = model.state_dict(), model.config
    if config.tied:
        del state["output.weight"]  # what is missing is the embedding's
    if architecture(config) == "llama":
        for name in state:
            if ".attention.query." in name or ".attention.key." in name:
                state[name] = pairs_side_by_side(state[name], config.head_dim)
    return rename(state, _NAMES)


def pairs_side_by_side(weight: Tensor, head_dim: int) -> Tensor:
    """Reorder each head's outputs, so that the two that RoPE turns together are neighbours.

    We pair feature i with i + head_dim/2. For `llama`, llama.cpp pairs 2i with 2i + 1, the order of
    Meta's own files (for `qwen2` and `qwen3` it pairs as we do). Queries and keys are reordered
    alike, so their products stay what they were.
    """
    heads = weight.unflatten(0, (-1, 2, head_dim // 2))
    return heads.transpose(1, 2).reshape(weight.shape)


def plain_template(template: str) -> str:
    """A chat template without the marks of what the assistant says: only training reads them."""
    return template.replace("{% generation %}", "").replace("{% endgeneration %}", "")


def _understood(config: GPTConfig) -> None:
    if config.n_experts:
        raise CourseError("Mixtures of experts cannot be written as GGUF here.")
    if architecture(config) == "llama" and config.yarn:
        raise CourseError("YaRN on a model of Llama's shape cannot be written as GGUF here.")


def _add_shape(writer: Any, config: GPTConfig) -> None:
    from gguf import RopeScalingType

    writer.add_vocab_size(config.vocab)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    if config.yarn:
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(config.yarn.factor)
        writer.add_rope_scaling_orig_ctx_len(config.yarn.original_context)


def _add_tokenizer(writer: Any, tokenizer: FastBPE, vocab: int) -> None:
    from gguf import TokenType

    described = json.loads(tokenizer.tokenizer.to_str())
    by_id = {number: token for token, number in tokenizer.tokenizer.get_vocab().items()}
    # A model's table is often larger than its vocabulary, for the sake of round numbers.
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(vocab)]
    types = [TokenType.NORMAL if number in by_id else TokenType.UNUSED for number in range(vocab)]
    for added in described["added_tokens"]:
        control = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        types[added["id"]] = control
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut_name(described["pre_tokenizer"]))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = described["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])


def cut_name(cut: dict[str, Any] | None) -> str:
    """llama.cpp's name for a way to cut text into words before merging.

    llama.cpp has a fixed list of them, and the course's own is not on it. GPT-4o's is the nearest:
    what it cuts elsewhere are names like "McDonald", so nearly all texts get the same tokens.

    Raises:
        CourseError: for a way that is not known to be one of llama.cpp's.
    """
    steps = (cut or {}).get("pretokenizers", [cut])
    match [step and step["type"] for step in steps]:
        case ["Split", "ByteLevel"] if steps[0]["pattern"] == {"Regex": onigmo(PIECES)}:
            return "gpt-4o"
        case ["Digits", "ByteLevel"] if steps[0]["individual_digits"] and steps[1]["use_regex"]:
            return "smollm"
        case ["ByteLevel"] if steps[0]["use_regex"]:
            return "gpt-2"
    raise CourseError("llama.cpp has no name for how this model's tokenizer cuts text into words.")


def _add_special(writer: Any, tokenizer: FastBPE, start: str | None, end: str | None) -> None:
    special = tokenizer.special
    writer.add_add_bos_token(False)
    for name, add in (
        (start, writer.add_bos_token_id), (start, writer.add_pad_token_id),
        (end, writer.add_eos_token_id),
    ):  # fmt: skip
        if name is not None:
            add(special[name])


def _add_tensor(writer: Any, name: str, weight: Tensor, precision: Precision) -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    values = weight.detach().float().cpu().contiguous().numpy()
    if values.ndim == 1:
        writer.add_tensor(name, values)
        return
    if precision.startswith("q") and values.shape[-1] % BLOCK == 0:
        kind = GGMLQuantizationType[precision.upper()]
        writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, values.astype(np.float32 if precision == "f32" else np.float16))
