"""Quantization: equal to PyTorch's own where there is one, and what the layers promise."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_utils.base.errors import CourseError
from course_utils.models.gpt import GPT, GPTConfig
from course_utils.models.quant import (
    QuantizedLinear,
    Scheme,
    dequantize_linears,
    model_bytes,
    quantize_linears,
)
from course_utils.models.quant.affine import (
    dequantize,
    quantize_asymmetric,
    quantize_groups,
    quantize_symmetric,
)
from course_utils.models.quant.calibrate import (
    largest,
    least_error_limit,
    percentile,
    watching_inputs,
)
from course_utils.models.quant.error import bits_per_weight, decibels
from course_utils.models.quant.normal_float import nearest_level, normal_float_levels
from course_utils.models.quant.packing import pack_nibbles, packed_linear, unpack_nibbles
from course_utils.models.quant.scales import dequantize_scales, quantize_scales
from course_utils.models.quant.static import quantize_static
from course_utils.models.quant.weight import quantize_weight

SCHEMES = (
    "int8", "int8-channel", "int8-g32", "int8-channel-zero", "int4", "int4-channel", "int4-g32",
    "int4-g32-zero", "int4-g64-double", "nf4", "nf4-g32", "nf4-channel", "nf4-double",
)  # fmt: skip
SMALL = GPTConfig(
    vocab=50, d_model=64, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=32, d_ff=128, context=32
)

# The values in appendix E of the paper.
PUBLISHED_NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip


def weights(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.02 * torch.randn(shape, generator=generator)


def linear(inputs: int = 128, out: int = 96, bias: bool = False) -> nn.Linear:
    layer = nn.Linear(inputs, out, bias=bias)
    layer.weight.data = weights(out, inputs)
    return layer


# --- integers ----------------------------------------------------------------------------------


def test_symmetric_is_what_torch_quantizes_per_channel() -> None:
    x = weights(40, 200)
    codes, scale = quantize_symmetric(x)
    zeros = torch.zeros(40, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(x, scale.flatten(), zeros, 0, -127, 127)
    # They multiply by 1/scale: once in a while a number in the middle goes the other way.
    off = (dequantize(codes, scale) - theirs).abs() / scale
    assert (off > 1e-3).float().mean() < 1e-3 and off.max() < 1.001


def test_asymmetric_is_what_torch_quantizes_per_tensor() -> None:
    x = torch.relu(weights(5000)) - 0.004
    codes, scale, zero = quantize_asymmetric(x)
    theirs = torch.fake_quantize_per_tensor_affine(x, scale.item(), int(zero), 0, 255)
    off = (dequantize(codes, scale, zero) - theirs).abs() / scale
    assert (off > 1e-3).float().mean() < 1e-3 and off.max() < 1.001
    assert codes.min() == 0 and codes.max() == 255 and zero > 0


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_no_number_is_off_by_more_than_half_a_step(bits: int) -> None:
    x = weights(7, 90).double()
    codes, scale = quantize_symmetric(x, bits)
    assert ((dequantize(codes, scale) - x).abs() <= scale / 2 + 1e-12).all()
    assert codes.abs().max() == 2 ** (bits - 1) - 1
    codes, scale, zero = quantize_asymmetric(x, bits)
    # Rounding the zero may move a number at the edge by another half.
    assert ((dequantize(codes, scale, zero) - x).abs() <= scale + 1e-12).all()
    assert (dequantize(zero, scale, zero) == 0).all()


def test_a_bit_more_is_six_decibels_more() -> None:
    x = 2 * torch.rand(20_000, generator=torch.Generator().manual_seed(0)).double() - 1
    reached = [decibels(x, dequantize(*quantize_symmetric(x, bits))) for bits in (4, 5, 6, 7, 8)]
    for fewer, more in pairwise(reached):
        assert 5.7 < more - fewer < 6.8
    assert decibels(x, x) == math.inf


def test_smaller_groups_are_closer() -> None:
    weight = weights(32, 256)
    weight[:, 17] *= 20  # an outlier feature
    errors = []
    for group in (256, 64, 16, 4):
        codes, scale = quantize_groups(weight, 4, group)
        restored = codes.float() * scale.repeat_interleave(group, dim=1)
        errors.append((restored - weight).norm())
    assert errors == sorted(errors, reverse=True)


# --- NF4 ---------------------------------------------------------------------------------------


def test_the_levels_are_the_published_ones() -> None:
    torch.testing.assert_close(
        normal_float_levels(), torch.tensor(PUBLISHED_NF4), atol=1e-6, rtol=0
    )


def test_nearest_level_is_nearest() -> None:
    x = 2 * torch.rand(3000, generator=torch.Generator().manual_seed(1)) - 1
    levels = normal_float_levels()
    by_hand = (x[:, None] - levels).abs().argmin(dim=1)
    assert torch.equal(nearest_level(x, levels).long(), by_hand)
    assert torch.equal(nearest_level(levels, levels).long(), torch.arange(16))


def test_on_normal_weights_nf4_beats_integers_of_the_same_size() -> None:
    layer = linear(512, 64)
    nf4, int4 = (QuantizedLinear.from_linear(layer, name) for name in ("nf4", "int4-g64"))
    assert bits_per_weight(nf4.parts, 512 * 64) == bits_per_weight(int4.parts, 512 * 64) == 4.5
    assert decibels(layer.weight, nf4.dequantized()) > decibels(layer.weight, int4.dequantized())


# --- packing, scales ---------------------------------------------------------------------------


def test_packing_round_trip_and_order() -> None:
    codes = torch.randint(16, (3, 5, 8), generator=torch.Generator().manual_seed(0)).byte()
    packed = pack_nibbles(codes)
    assert packed.shape == (3, 5, 4) and torch.equal(unpack_nibbles(packed), codes)
    assert pack_nibbles(torch.tensor([1, 2]).byte()).item() == 0x21


def test_packed_linear_multiplies_what_a_layer_stores() -> None:
    layer = linear()
    quantized = QuantizedLinear.from_linear(layer, "int4-g32")
    x = weights(5, 128, seed=3)
    product = packed_linear(x, quantized.parts["codes"], quantized.parts["scale"])
    torch.testing.assert_close(product, quantized(x))


def test_scales_are_hardly_changed_by_a_second_quantization() -> None:
    scale = 0.05 * (1 + torch.rand(30, 21, generator=torch.Generator().manual_seed(0)))
    stored = quantize_scales(scale)
    restored = dequantize_scales(stored)
    assert restored.shape == scale.shape and stored["scale_step"].shape == (3,)
    torch.testing.assert_close(restored, scale, rtol=5e-3, atol=0)
    assert bits_per_weight(stored, scale.numel()) < 8.5


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_is_spelled_one_way(name: str) -> None:
    assert str(Scheme.parse(name)) == name
    assert Scheme.parse(Scheme.parse(name)) == Scheme.parse(name)


def test_nf4_has_groups_of_64_by_default() -> None:
    assert Scheme.parse("nf4") == Scheme.parse("nf4-g64") == Scheme("nf4", 64)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("int4g32", "Did you mean 'int4-g32'"),
        ("nf5", "Did you mean 'nf4'"),
        ("nf4-zero", "leave `-zero` out"),
        ("int8-channel-double", "Did you mean 'int8-g64-double'"),
        ("int4-g0", "is not a way to quantize"),
    ],
)
def test_other_names_are_refused_with_the_nearest(name: str, said: str) -> None:
    with pytest.raises(CourseError, match=said.replace("(", r"\(")):
        Scheme.parse(name)


# --- layers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", SCHEMES)
def test_a_layer_computes_with_the_weight_that_it_stores(name: str, bias: bool) -> None:
    layer = linear(bias=bias)
    quantized = QuantizedLinear.from_linear(layer, name)
    x = weights(2, 3, 128, seed=5).requires_grad_()
    weight = quantized.dequantized()
    assert decibels(layer.weight, weight) > (33 if "int8" in name else 11)
    y = quantized(x)
    torch.testing.assert_close(y, F.linear(x, weight, layer.bias))
    (mine,) = torch.autograd.grad(y.square().sum(), x)
    (theirs,) = torch.autograd.grad(F.linear(x, weight, layer.bias).square().sum(), x)
    torch.testing.assert_close(mine, theirs)
    assert not list(quantized.parameters()) and "→ 96" in repr(quantized)


@pytest.mark.parametrize("rows", [1, 16, 17])
@pytest.mark.parametrize("name", ["int8", "int8-channel", "int4-g32", "nf4"])
def test_sixteen_bit_inputs(name: str, rows: int) -> None:
    """Few rows of int8 go through PyTorch's own product."""
    quantized = QuantizedLinear.from_linear(linear(bias=True), name)
    x = torch.randn(rows, 128, generator=torch.Generator().manual_seed(0)).bfloat16()
    y = quantized(x)
    assert y.dtype == torch.bfloat16 and y.shape == (rows, 96)
    exact = x.float() @ quantized.dequantized().T + quantized.bias
    torch.testing.assert_close(y.float(), exact, rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["int4-g32-zero", "nf4-double"])
def test_a_model_in_sixteen_bits_keeps_its_scales(name: str) -> None:
    quantized = QuantizedLinear.from_linear(linear(), name)
    before = quantized.dequantized()
    quantized.to(torch.bfloat16)
    assert torch.equal(quantized.dequantized(), before)


@pytest.mark.parametrize("name", SCHEMES)
def test_state_dict_round_trip(name: str) -> None:
    one = QuantizedLinear.from_linear(linear(bias=True), name)
    other = nn.Linear(128, 96)
    other = QuantizedLinear.from_linear(other, name)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.dequantized(), other.dequantized()) and torch.equal(one.bias, other.bias)


def test_codes_of_another_scheme_are_not_taken_for_ours() -> None:
    one = QuantizedLinear.from_linear(linear(), "nf4")
    other = QuantizedLinear.from_linear(linear(), "int4-g64")
    assert {k: v.shape for k, v in one.parts.items()} == {
        k: v.shape for k, v in other.parts.items()
    }
    with pytest.raises(RuntimeError, match="stored as nf4; this layer is int4-g64"):
        other.load_state_dict(one.state_dict())


def test_the_backward_pass_needs_no_weight_in_floating_point() -> None:
    """What autograd keeps between the passes is the input's, not a float copy of each weight."""
    layers = nn.Sequential(*(QuantizedLinear.from_linear(linear(128, 128), "nf4") for _ in "abc"))
    kept: list[torch.Tensor] = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        layers(weights(2, 128).requires_grad_())
    assert sum(x.numel() for x in kept) < 128 * 128


def test_zeros_and_tiny_weights_survive() -> None:
    layer = linear()
    layer.weight.data[3] = 0
    layer.weight.data[4] = 1e-30
    for name in SCHEMES:
        restored = QuantizedLinear.from_linear(layer, name).dequantized()
        assert restored.isfinite().all() and (restored[3] == 0).all(), name


# --- models ------------------------------------------------------------------------------------


def test_a_gpt_keeps_its_logits_and_loses_its_weight() -> None:
    torch.manual_seed(0)
    model, tokens = GPT(SMALL).eval(), torch.randint(50, (2, 32))
    with torch.no_grad():
        before, size = model(tokens), model_bytes(model)
        names = quantize_linears(model, "int8-channel")
        after = model(tokens)
    assert len(names) == 2 * 7 and isinstance(model.blocks[0].mlp.down, QuantizedLinear)
    assert isinstance(model.output, nn.Linear) and model.output.weight is model.embedding.weight
    assert 0 < (after - before).norm() < 0.03 * before.norm()
    matrices = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    saved = size - model_bytes(model)
    assert 0.94 * 3 * matrices < saved < 3 * matrices
    dequantize_linears(model)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), after)
    assert model_bytes(model) == size


def test_targets_and_what_is_left_alone() -> None:
    model = GPT(SMALL)
    assert quantize_linears(
        model, "nf4-g32", targets=("attention.query",), skip=("blocks.0.*",)
    ) == ["blocks.1.attention.query"]
    untied = GPT(GPTConfig(**{**vars(SMALL), "tied": False}))
    assert "output" not in quantize_linears(untied, "int8")
    assert quantize_linears(untied, "int8", targets=("output",)) == ["output"]


def test_nothing_is_replaced_when_something_does_not_fit() -> None:
    model = nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 64))
    with pytest.raises(CourseError, match=r"1: int4-g32: 8 inputs .* Try 'int4-g8'"):
        quantize_linears(model, "int4-g32")
    assert all(type(layer) is nn.Linear for layer in model)
    with pytest.raises(CourseError, match="No linear layer fits attention"):
        quantize_linears(model, "int8", targets=("attention",))


def test_a_model_of_transformers() -> None:
    from transformers import AutoModelForCausalLM

    from course_utils.exchange.hf import hf_config

    theirs = AutoModelForCausalLM.from_config(hf_config(SMALL)).eval()
    tokens = torch.randint(50, (1, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = theirs(tokens).logits
        names = quantize_linears(theirs, "nf4-g32")
        after = theirs(tokens).logits
    assert len(names) == 14 and "model.layers.0.self_attn.q_proj" in names
    assert 0 < (after - before).norm() < 0.5 * before.norm()


# --- calibration -------------------------------------------------------------------------------


def test_ranges() -> None:
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0)).double()
    x[7] = -40
    assert largest(x) == 40
    assert percentile(x, share=0.99) == x.abs().quantile(0.99, interpolation="nearest")
    limit = least_error_limit(x, 4)

    def error(limit: torch.Tensor) -> torch.Tensor:
        codes, scale = quantize_symmetric(x[None], 4, limit=limit.view(1, 1))
        return (dequantize(codes, scale) - x).square().mean()

    assert error(limit) < error(largest(x)) and error(limit) < error(percentile(x, share=0.9))
    assert error(limit) == min(error(x.abs().max() * step / 100) for step in range(1, 101))


def test_static_int8_with_calibrated_inputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 32))
    x = torch.randn(50, 64)
    linears = {name: model.get_submodule(name) for name in ("0", "2")}
    with watching_inputs(linears) as seen:
        before = model(x)
        model(x)
    assert [len(calls) for calls in seen.values()] == [2, 2]
    quantize_static(
        model, {name: torch.cat(calls).abs().max().item() for name, calls in seen.items()}
    )
    after = model(x.view(5, 10, 64))
    assert after.shape == (5, 10, 32) and not model[0]._forward_pre_hooks
    assert 0 < (after.view(50, 32) - before).norm() < 0.03 * before.norm()


def test_parts_of_a_weight_say_how_many_bits_it_takes() -> None:
    weight, expected = weights(64, 512), {"int8": 8, "int4-g32": 5, "nf4": 4.5, "nf4-double": 4.13}
    for name, bits in expected.items():
        parts = quantize_weight(weight, Scheme.parse(name))
        assert bits_per_weight(parts, weight.numel()) == pytest.approx(bits, abs=0.01), name


def test_adapters_learn_beside_a_frozen_model_in_four_bits() -> None:
    """QLoRA: the gradients are those beside the unpacked weights, under autocast too."""
    from course_utils.models.lora import LoRAConfig, inject

    tokens = torch.randint(50, (2, 20), generator=torch.Generator().manual_seed(0))
    gradients: dict[tuple[bool, bool], list[torch.Tensor]] = {}
    for packed in (True, False):
        for sixteen in (True, False):
            torch.manual_seed(0)
            model = GPT(SMALL)
            quantize_linears(model, "nf4-g32")
            if not packed:
                dequantize_linears(model)
            torch.manual_seed(1)
            inject(model, LoRAConfig(rank=2, targets=("attention.query", "mlp.down")))
            with torch.autocast("cpu", torch.bfloat16, enabled=sixteen):
                loss = model(tokens[:, :-1], targets=tokens[:, 1:])
            loss.backward()
            trained = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
            assert len(trained) == 2 * 2 * 2
            gradients[packed, sixteen] = [g for g in trained.values() if g is not None]
    for sixteen, rtol in ((True, 0.05), (False, 1e-4)):
        for mine, theirs in zip(gradients[True, sixteen], gradients[False, sixteen], strict=True):
            assert (mine - theirs).norm() <= rtol * theirs.norm()
        assert sum(g.norm() > 0 for g in gradients[True, sixteen]) == 4  # `up`; `down` waits for it
