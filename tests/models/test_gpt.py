"""The model against transformers' Qwen3, and the properties its parts promise."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import AutoConfig

from course_utils.base.errors import CourseError
from course_utils.exchange.hf import from_hf, hf_config, our_config, to_hf
from course_utils.models.gpt import (
    GPT,
    PRESETS,
    GPTConfig,
    KVCache,
    RMSNorm,
    SwiGLU,
    YaRN,
    attend,
    rope_frequencies,
    rotate,
    rotation_tables,
)

SMALL = GPTConfig(
    vocab=97, d_model=48, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=80, context=64
)


def random_model(config: GPTConfig, seed: int = 0) -> GPT:
    """Weights large enough that every part matters, norms included."""
    torch.manual_seed(seed)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(std=0.3)
    return model


# --- transformers -----------------------------------------------------------------------------

shapes = st.builds(
    lambda kv, group, half, layers, d_model, d_ff, tied, yarn, kind: GPTConfig(
        vocab=61, d_model=d_model, n_layers=layers, n_heads=kv * group, n_kv_heads=kv,
        head_dim=2 * half, d_ff=d_ff, context=32, rope_theta=1e4, tied=tied, yarn=yarn,
        qk_norm=kind == "qwen3" or (kind == "llama" and d_model % (kv * group) > 0),
        qkv_bias=kind == "qwen2",
    ),
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 8), st.integers(1, 3),
    st.sampled_from([8, 20, 32]), st.sampled_from([12, 40]), st.booleans(),
    st.sampled_from([None, YaRN(4.0, 8), YaRN(1.0, 16), YaRN(2.5, 16, fast=8.0, slow=0.5)]),
    st.sampled_from(["qwen3", "llama", "qwen2"]),
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(0, 10_000))
def test_logits_equal_transformers_and_the_weights_come_back_bit_equal(config, seed):
    model = random_model(config, seed)
    theirs = to_hf(model)
    tokens = torch.randint(config.vocab, (2, 32))
    with torch.no_grad():
        ours, expected = model(tokens), theirs(tokens).logits
    error = (ours - expected).abs().max() / expected.abs().max()
    assert error <= 1e-5, f"relative error {error:.1e}"
    assert sum(parameter.numel() for parameter in model.parameters()) == config.n_parameters()
    back = from_hf(theirs)
    assert back.config == config
    assert (back.output.weight is back.embedding.weight) == config.tied
    for name, weight in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], weight), name


def test_a_model_saved_by_transformers_is_read_back(tmp_path):
    from transformers import AutoModelForCausalLM

    model = random_model(SMALL)
    to_hf(model).save_pretrained(tmp_path)
    back = from_hf(AutoModelForCausalLM.from_pretrained(tmp_path))
    tokens = torch.randint(SMALL.vocab, (1, 9))
    assert torch.equal(back(tokens), model(tokens))


def test_in_bfloat16_the_angles_stay_exact_and_logits_equal_transformers_up_to_rounding():
    config = replace(SMALL, context=1024)
    model = random_model(config)
    tokens = torch.randint(config.vocab, (1, 1024))
    with torch.no_grad():
        exact = model(tokens)
        model.bfloat16()
        theirs = to_hf(model)
        assert theirs.dtype == model.embedding.weight.dtype == torch.bfloat16
        ours, expected = model(tokens).float(), theirs(tokens).logits.float()
    late = slice(512, None)  # rounded frequencies are off by radians here
    for result, rounding in ((ours, 0.05), (expected, 0.05)):
        error = (result - exact)[:, late].norm() / exact[:, late].norm()
        assert error < rounding, f"relative error {error:.3f}"


def test_another_architecture_is_refused_by_name():
    theirs = hf_config(SMALL)
    theirs.attention_bias = True
    with pytest.raises(CourseError, match="attention_bias"):
        our_config(theirs)
    for name in ("gpt2", "mistral", "bert"):
        with pytest.raises(CourseError, match=f"model_type .'{name}'. is not one of"):
            our_config(AutoConfig.for_model(name))
    with pytest.raises(CourseError, match="QK-norm and biases"):
        hf_config(replace(SMALL, qkv_bias=True))


# --- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "millions"),
    [("nano", 1.05), ("minimind-26m", 25.8), ("minimind-64m", 63.9), ("gpt2-124m", 123.6)],
)
def test_the_presets_have_the_sizes_they_are_named_for(name, millions):
    with torch.device("meta"):
        model = GPT(PRESETS[name])
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == PRESETS[name].n_parameters()
    assert counted / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"n_kv_heads": 3}, "evenly"), ({"head_dim": 15}, "even"), ({"vocab": 0}, "vocab is 0")],
)
def test_a_shape_that_cannot_be_is_refused(change, says):
    with pytest.raises(CourseError, match=says):
        replace(SMALL, **change)


def test_the_first_loss_is_about_the_logarithm_of_the_vocabulary():
    torch.manual_seed(0)
    for name in ("nano",):
        model = GPT(PRESETS[name])
        tokens = torch.randint(PRESETS[name].vocab, (4, 65))
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        assert loss.item() == pytest.approx(math.log(PRESETS[name].vocab), rel=0.02)


# --- parts ------------------------------------------------------------------------------------


def test_rms_norm_equals_torchs_and_computes_in_float32():
    norm = RMSNorm(32)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
    x = torch.randn(3, 5, 32) * 10
    torch.testing.assert_close(norm(x), F.rms_norm(x, (32,), norm.weight, 1e-6))
    large = torch.full((1, 32), 1000.0, dtype=torch.float16)  # 1000² overflows float16
    assert torch.isfinite(norm.half()(large)).all()


def test_swiglu_is_its_formula():
    mlp, x = SwiGLU(8, 12), torch.randn(2, 3, 8)
    gate, up = x @ mlp.gate.weight.T, x @ mlp.up.weight.T
    torch.testing.assert_close(mlp(x), (gate * gate.sigmoid() * up) @ mlp.down.weight.T)


def test_attention_written_out_equals_the_fused_one():
    query, key, value = torch.randn(3, 2, 4, 7, 16).unbind(0)
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    for visible in (None, causal):
        torch.testing.assert_close(
            attend(query, key, value, visible),
            F.scaled_dot_product_attention(query, key, value, attn_mask=visible),
        )


def test_rotation_keeps_lengths_and_makes_scores_depend_on_the_distance_only():
    frequencies = rope_frequencies(16, 1e4)
    query, key = torch.randn(2, 1, 1, 1, 16).unbind(0)

    def score(at: int, other: int) -> torch.Tensor:
        turned = [
            rotate(x, *rotation_tables(torch.tensor([position]), frequencies))
            for x, position in ((query, at), (key, other))
        ]
        torch.testing.assert_close(turned[0].norm(), query.norm())
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(7, 3), score(107, 103), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(score(7, 3), score(8, 3))


def test_no_position_looks_at_a_later_one():
    model, tokens = random_model(SMALL), torch.randint(97, (1, 20))
    changed = tokens.clone()
    changed[:, 11:] = torch.randint(97, (1, 9))
    assert torch.equal(model(tokens)[:, :11], model(changed)[:, :11])
    assert not torch.allclose(model(tokens)[:, 11:], model(changed)[:, 11:])


def test_packed_documents_do_not_see_each_other():
    model = random_model(SMALL)
    first, second = torch.randint(97, (1, 9)), torch.randint(97, (1, 14))
    packed = torch.cat((first, second), dim=1)
    documents = torch.tensor([[0] * 9 + [1] * 14])
    logits = model(packed, documents=documents)
    torch.testing.assert_close(logits[:, :9], model(first), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits[:, 9:], model(second), rtol=1e-4, atol=1e-4)
    other = torch.cat((torch.randint(97, (1, 9)), second), dim=1)
    assert torch.equal(model(other, documents=documents)[:, 9:], logits[:, 9:])
    assert not torch.allclose(model(other)[:, 9:], model(packed)[:, 9:])


@pytest.mark.parametrize("pieces", [[20], [1] * 20, [7, 1, 1, 11], [19, 1]])
def test_logits_with_the_cache_equal_those_without(pieces):
    model, tokens = random_model(SMALL), torch.randint(97, (2, 20))
    cache = KVCache(SMALL, batch=2, capacity=24)
    with torch.no_grad():
        parts = [model(piece, cache=cache) for piece in tokens.split(pieces, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens), rtol=1e-4, atol=1e-4)
    assert cache.length == 20


def test_a_rewound_cache_goes_on_as_if_nothing_had_been():
    model, tokens = random_model(SMALL), torch.randint(97, (1, 12))
    cache = KVCache(SMALL, batch=1, capacity=16)
    with torch.no_grad():
        model(tokens[:, :8], cache=cache)
        expected = model(tokens[:, 8:], cache=cache)
        cache.rewind(8)
        model(torch.randint(97, (1, 5)), cache=cache)
        cache.rewind(8)
        assert torch.equal(model(tokens[:, 8:], cache=cache), expected)


def test_left_padding_changes_nothing_for_the_real_tokens():
    model = random_model(SMALL)
    tokens, padding = torch.randint(97, (1, 9)), torch.randint(97, (1, 4))
    padded = torch.cat((padding, tokens), dim=1)
    with torch.no_grad():
        expected = model(tokens)
        whole = model(padded, first=torch.tensor([4]))
        assert torch.isfinite(whole).all()
        torch.testing.assert_close(whole[:, 4:], expected, rtol=1e-4, atol=1e-4)
        cache = KVCache(SMALL, batch=1, capacity=16)
        pieces = [
            model(p, cache=cache, first=torch.tensor([4])) for p in padded.split([10, 1, 2], 1)
        ]
        cached = torch.cat(pieces, dim=1)
        torch.testing.assert_close(cached[:, 4:], expected, rtol=1e-4, atol=1e-4)
