"""Every bit pattern, and every rounding, as torch has it."""

import math

import pytest
import torch
from torch import Tensor

from course_utils.models.formats import (
    BF16,
    E4M3,
    E5M2,
    FORMATS,
    FP16,
    FP32,
    TF32,
    TORCH_DTYPE,
    Format,
    census,
    decode,
    encode,
    round_stochastically,
    round_to,
    running_sum,
    spacing,
)

WHOLE = {8: torch.uint8, 16: torch.int16, 32: torch.int32}
NARROW = (BF16, FP16, E5M2, E4M3)

narrow = pytest.mark.parametrize("format", NARROW, ids=lambda f: f.name)


def patterns(format: Format) -> Tensor:
    """All of an 8- or 16-bit format; of fp32, many at random and those around its borders."""
    if format.bits <= 16:
        return torch.arange(2**format.bits)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(2**32, (200_000,), generator=generator)
    edges = torch.tensor([0, 1, 2**23 - 1, 2**23, 255 * 2**23 - 1, 255 * 2**23, 255 * 2**23 + 1])
    return torch.cat((drawn, edges, edges + 2**31))


def meaning(bits: Tensor, format: Format) -> Tensor:
    """What torch takes the bits for."""
    signed = torch.where(bits >= 2 ** (format.bits - 1), bits - 2**format.bits, bits)
    stored = bits.to(torch.uint8) if format.bits == 8 else signed.to(WHOLE[format.bits])
    return stored.view(TORCH_DTYPE[format]).double()


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Equal to the last bit, the sign of zero included; any NaN is like any other."""
    assert found.dtype == expected.dtype
    assert torch.equal(found.isnan(), expected.isnan())
    keep = ~found.isnan()
    assert torch.equal(found[keep], expected[keep])
    assert torch.equal(torch.signbit(found[keep]), torch.signbit(expected[keep]))


@pytest.mark.parametrize("format", TORCH_DTYPE, ids=lambda f: f.name)
def test_every_pattern_means_what_torch_says_and_back(format: Format) -> None:
    bits = patterns(format)
    values = decode(bits, format)
    assert_same(values, meaning(bits, format))
    numbers = ~values.isnan()
    assert torch.equal(encode(values[numbers], format), bits[numbers])
    assert decode(encode(torch.tensor([math.nan]), format), format).isnan().all()


@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f.name)
def test_the_borders_are_those_of_its_patterns(format: Format) -> None:
    largest = torch.tensor([format.max, 2 * format.max], dtype=torch.float64)
    beyond = format.max if format is E4M3 else math.inf
    assert round_to(largest, format).tolist() == [format.max, beyond]
    edge = torch.tensor([format.limit * (1 - 2**-50), format.limit], dtype=torch.float64)
    assert round_to(edge, format).tolist() == [format.max, beyond]
    if format in TORCH_DTYPE:
        info = torch.finfo(TORCH_DTYPE[format])
        assert (format.max, format.min_normal, format.epsilon) == (info.max, info.tiny, info.eps)
        positive = decode(torch.arange(2 ** min(15, format.bits - 1)), format)
        assert positive[positive > 0].min() == format.min_subnormal
    half = torch.tensor([0.5, 0.5 + 1e-9], dtype=torch.float64) * format.min_subnormal
    assert round_to(half, format).tolist() == [0.0, format.min_subnormal]


def test_the_figures_that_everybody_quotes() -> None:
    assert (E4M3.max, E5M2.max, FP16.max) == (448.0, 57344.0, 65504.0)
    assert (E4M3.bias, E5M2.bias, FP16.bias, BF16.bias) == (7, 15, 15, 127)
    assert [f.bits for f in FORMATS] == [32, 19, 16, 16, 8, 8]


def hard_values(format: Format) -> Tensor:
    """All of the format's numbers, the middles between neighbours, what lies close to these, and
    values at random; in float32, where nothing of the sort is rounded before."""
    numbers = decode(torch.arange(2 ** (format.bits - 1)), format)
    numbers = numbers[numbers.isfinite()].sort().values
    middles = (numbers[1:] + numbers[:-1]) / 2
    beyond = numbers[-1] + (numbers[-1] - numbers[-2]) * torch.tensor([0.5, 0.75, 1.0, 1.5])
    exact = torch.cat((numbers, middles, beyond.double())).float()
    close = torch.cat([torch.nextafter(exact, torch.tensor(end)) for end in (-math.inf, math.inf)])
    generator = torch.Generator().manual_seed(0)
    size = torch.exp2(torch.rand(20_000, generator=generator) * 200 - 120)
    values = torch.cat((exact, close, size, torch.tensor([math.inf, math.nan])))
    return torch.cat((values, -values))


@narrow
def test_rounding_is_torchs_cast(format: Format) -> None:
    """torch before 2.12 made NaN of what is too large for E4M3; the tests run with a newer one."""
    values = hard_values(format)
    assert_same(round_to(values, format), values.to(TORCH_DTYPE[format]).float())


@narrow
def test_float64_is_rounded_once(format: Format) -> None:
    """Just above the middle between two numbers: rounded to float32 first, it would be the middle,
    and go to the even one below."""
    value = torch.tensor([1 + format.epsilon / 2 + 2.0**-40], dtype=torch.float64)
    assert round_to(value, format).item() == 1 + format.epsilon
    assert round_to(value.float(), format).item() == 1.0
    assert round_to(value, format).dtype == torch.float64


def test_float32_and_tf32() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(10_000, dtype=torch.float64, generator=generator) * 1e-3
    assert torch.equal(round_to(values, FP32), values.float().double())
    bits = round_to(values.float(), TF32).view(torch.int32)
    assert (bits & (2**13 - 1) == 0).all()  # the digits that tf32 leaves out
    assert ((round_to(values, TF32) / values - 1).abs() <= TF32.epsilon / 2).all()


@narrow
def test_spacing_is_the_distance_to_the_next_number(format: Format) -> None:
    numbers = decode(torch.arange(2 ** (format.bits - 1)), format)
    numbers = numbers[numbers.isfinite()]
    gaps = numbers[1:] - numbers[:-1]
    assert torch.equal(spacing(numbers[:-1], format), gaps)
    assert torch.equal(spacing(-numbers[:-1], format), gaps)


def test_census_counts_what_torchs_cast_makes() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50_000, generator=generator) * torch.exp2(
        torch.randint(-40, 20, (50_000,), generator=generator)
    )
    values[::7] = 0
    for format in NARROW:
        after = values[values != 0].to(TORCH_DTYPE[format]).float().abs()
        shares = [
            (after == 0).double().mean(),
            ((after > 0) & (after < format.min_normal)).double().mean(),
            ((after >= format.min_normal) & after.isfinite()).double().mean(),
            (~after.isfinite()).double().mean(),
        ]
        if format is E4M3:  # what is held at its largest number has overflowed
            held = (values[values != 0].abs() >= 464).double().mean()
            shares[2:] = [shares[2] - held, held]
        torch.testing.assert_close(census(values, format), torch.stack(shares))


@narrow
def test_a_running_sum_is_that_of_a_loop_in_the_format(format: Format) -> None:
    dtype = TORCH_DTYPE[format]
    values = torch.randn(50, generator=torch.Generator().manual_seed(0)).to(dtype)
    total = torch.zeros((), dtype=dtype)
    for value in values:
        total = (total.float() + value.float()).to(dtype)
    assert running_sum(values.float(), format).item() == total.item()


def test_stochastic_rounding_is_right_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([1.0 + 0.1 / 128, -3.0 - 1.5 / 64, 1e-39, 2.5e38])
    n = 40_000
    drawn = round_stochastically(values.expand(n, 4).contiguous(), generator).double()
    gap = spacing(values, BF16)
    for column in range(4):  # only the two neighbours, and the mean is the value
        value = values[column].double()
        assert ((drawn[:, column] - value).abs() < gap[column]).all()
    errors = (drawn.mean(0) - values.double()) / gap
    assert (errors.abs() < 4 * 0.5 / math.sqrt(n)).all()
    nearest = (values.bfloat16().double() - values.double()) / gap
    assert (nearest.abs()[:2] > 4 * 0.5 / math.sqrt(n)).all()  # the test would see a bias


def test_stochastic_rounding_leaves_what_fits_and_what_is_not_finite() -> None:
    fits = torch.tensor([0.0, -0.0, 1.5, -(2.0**-126), math.inf, -math.inf])
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        assert_same(round_stochastically(fits, generator).float(), fits)
    assert round_stochastically(torch.tensor([math.nan])).isnan().all()
