"""A GGUF file holds the model: read back with llama.cpp's own package, and with transformers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from course_utils.base.errors import CourseError
from course_utils.data.chat import END, END_OF_TEXT, SPECIAL, TEMPLATE, render_chat
from course_utils.data.text import sample_text
from course_utils.exchange.gguf_writer import BLOCK, PRECISIONS, gguf_state, write_gguf
from course_utils.exchange.hf import hf_config
from course_utils.models.gpt import GPT, GPTConfig, YaRN
from course_utils.tokenizer.fast import FastBPE

# Heads of 128 are what transformers takes for granted in a qwen3's file.
QWEN3 = GPTConfig(
    vocab=400, d_model=64, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=128, d_ff=96, context=64
)
LLAMA = replace(QWEN3, qk_norm=False, n_heads=4, n_kv_heads=2, head_dim=16)
SHAPES = {
    "qwen3": QWEN3,
    "llama": LLAMA,
    "qwen2": replace(LLAMA, qkv_bias=True),
    "untied": replace(QWEN3, tied=False),
}
each = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@pytest.fixture(scope="module")
def tokenizer() -> FastBPE:
    return FastBPE.train([sample_text()], 400, SPECIAL)


def random_model(config: GPTConfig) -> GPT:
    """With norms and biases that are not all ones and zeros, so that a swapped one shows."""
    generator = torch.Generator().manual_seed(0)
    model = GPT(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data = 1 + 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def written(model: GPT, tokenizer: FastBPE, folder: Path, precision: str = "f32") -> Path:
    return write_gguf(
        model, tokenizer, folder / "model.gguf", precision=precision, chat_template=TEMPLATE,
        start=END_OF_TEXT, end=END,
    )  # type: ignore[arg-type]  # fmt: skip


@each
def test_transformers_reads_the_same_model(
    shape: GPTConfig, tokenizer: FastBPE, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, GgufConfig

    model = random_model(shape)
    file = written(model, tokenizer, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True)
    ).eval()
    tokens = torch.randint(400, (2, 33), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, model(tokens), rtol=1e-4, atol=1e-4)
    assert theirs.config.max_position_embeddings == 64
    assert list(tmp_path.iterdir()) == [file]


def test_heads_of_another_size_need_the_configuration(tokenizer: FastBPE, tmp_path: Path) -> None:
    """transformers overlooks a qwen3's `key_length`; given the shape, it reads the file."""
    from transformers import AutoModelForCausalLM, GgufConfig

    model = random_model(replace(QWEN3, n_heads=4, n_kv_heads=2, head_dim=32))
    file = written(model, tokenizer, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        gguf_file=file.name,
        config=hf_config(model.config),
        quantization_config=GgufConfig(dequantize=True),
    ).eval()
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, model(tokens), rtol=1e-4, atol=1e-4)


def test_transformers_reads_the_same_tokenizer(tokenizer: FastBPE, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    file = written(random_model(LLAMA), tokenizer, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    text = sample_text() + "\n  It's 12,345.6 €  <|im_start|> 你好\t!\r\n"
    assert theirs(text)["input_ids"] == tokenizer.encode(text)
    assert theirs.decode(tokenizer.encode(text)) == text
    assert (theirs.eos_token, theirs.bos_token) == (END, END_OF_TEXT)
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    rendered = theirs.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert rendered == render_chat(talk, add_generation_prompt=True)


@each
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_file_holds_every_weight(
    precision: str, shape: GPTConfig, tokenizer: FastBPE, tmp_path: Path
) -> None:
    from gguf import GGUFReader
    from gguf.quants import dequantize

    model = random_model(shape)
    reader = GGUFReader(written(model, tokenizer, tmp_path, precision))
    expected = gguf_state(model)
    assert ("output.weight" in expected) is not shape.tied
    assert [tensor.name for tensor in reader.tensors] == list(expected)
    for tensor in reader.tensors:
        weight = expected[tensor.name].detach().numpy()
        found = dequantize(tensor.data, tensor.tensor_type)
        assert tensor.tensor_type.name == ("F32" if weight.ndim == 1 else precision.upper())
        if precision == "f32" or weight.ndim == 1:
            assert np.array_equal(found, weight)
        elif precision == "f16":
            assert np.array_equal(found, weight.astype(np.float16))
        else:
            blocks = np.abs(weight).reshape(-1, BLOCK)
            # Half a step, and its scale is rounded to 16 bits; Q4_0 clips by up to a whole step.
            steps = {"q8_0": 0.57 / 127, "q4_0": 1.01 / 8}[precision]
            errors = np.abs(found - weight).reshape(-1, BLOCK)
            assert (errors <= steps * blocks.max(axis=1, keepdims=True)).all()


def test_llama_turns_neighbours_and_qwen_halves(tokenizer: FastBPE) -> None:
    weight = torch.arange(8.0)[:, None].expand(8, 64)
    for qk_norm, order in ((False, [0, 2, 1, 3, 4, 6, 5, 7]), (True, list(range(8)))):
        model = GPT(replace(LLAMA, qk_norm=qk_norm, n_heads=2, n_kv_heads=1, head_dim=4))
        model.blocks[0].attention.query.weight.data = weight.clone()
        assert gguf_state(model)["blk.0.attn_q.weight"][:, 0].tolist() == order


def test_rows_that_blocks_do_not_fit_stay_in_sixteen_bits(
    tokenizer: FastBPE, tmp_path: Path
) -> None:
    from gguf import GGUFReader

    model = random_model(replace(LLAMA, d_ff=90))
    reader = GGUFReader(written(model, tokenizer, tmp_path, "q4_0"))
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blk.0.ffn_down.weight"] == "F16" and kinds["blk.0.ffn_up.weight"] == "Q4_0"


def test_what_gguf_has_no_name_for_is_refused(tokenizer: FastBPE, tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    for change, said in (
        ({"n_experts": 2}, "Mixtures"),
        ({"qk_norm": False, "yarn": YaRN(2.0, 64)}, "YaRN"),
    ):
        with pytest.raises(CourseError, match=said):
            written(GPT(replace(QWEN3, **change)), tokenizer, tmp_path)
    other = FastBPE.train(["a b"], 256)
    other.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(CourseError, match="no name for how"):
        write_gguf(GPT(QWEN3), other, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()
