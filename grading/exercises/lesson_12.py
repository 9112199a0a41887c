"""Lesson 12, quantization: integers and scales, groups, calibration, NF4, a product in 4 bits."""

from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from course_utils.base.errors import CourseError
from course_utils.exercises import CheckFailure, Exercise, Mutant, assert_close, assert_equal
from course_utils.models.quant.affine import (
    quantize_asymmetric,
    quantize_groups,
)
from course_utils.models.quant.calibrate import least_error_limit


def normal(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=rng)


def uniform(rng: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=rng)


def signed(rng: torch.Generator, top: int, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers with their integers and scales. None lies close to the middle of two integers,
    so that rounding does not depend on the order of the arithmetic."""
    codes = torch.randint(-top, top + 1, shape, generator=rng)
    ends = top * (1 - 2 * torch.randint(2, (*shape[:-1], 1), generator=rng))
    codes = torch.cat((codes[..., 1:], ends), dim=-1)
    offset = uniform(rng, -0.4, 0.4, *shape)
    offset[codes.abs() == top] = 0
    scale = uniform(rng, 0.01, 0.03, *shape[:-1], 1)
    return (codes + offset) * scale, codes.to(torch.int8), scale


def compare(found: Any, expected: tuple[Tensor, ...], what: str) -> None:
    """The integers exactly, scales up to rounding."""
    if not isinstance(found, tuple) or len(found) != len(expected):
        names = "(q, scale)" if len(expected) == 2 else "(q, scale, zero)"
        raise CheckFailure(f"{what}: return the tuple {names}")
    for name, mine, theirs in zip(("integers", "scales", "zeros"), found, expected, strict=False):
        compared = assert_close if theirs.is_floating_point() else assert_equal
        compared(mine, theirs, f"{what}: the {name} are wrong")


# --- Symmetric ---------------------------------------------------------------------------------


def eight_bits(student: Any, rng: torch.Generator) -> None:
    """A row of numbers becomes integers from −127 to 127, and a scale"""
    x, codes, scale = signed(rng, 127, 12)
    compare(student(x), (codes, scale), "8 bits")


def fewer_bits(student: Any, rng: torch.Generator) -> None:
    """Fewer bits, fewer integers: −7 to 7 with 4 bits, −1 to 1 with 2"""
    for bits, top in ((4, 7), (3, 3), (2, 1)):
        x, codes, scale = signed(rng, top, 20)
        compare(student(x, bits), (codes, scale), f"{bits} bits")


def rows_by_themselves(student: Any, rng: torch.Generator) -> None:
    """Every row has its own scale, and the input does not change"""
    x, codes, scale = signed(rng, 7, 2, 3, 10)
    x, scale = x.double(), scale.double()
    before = x.clone()
    compare(student(x, 4), (codes, scale), "Rows of shape 2 × 3 × 10 in float64, 4 bits")
    assert_equal(x, before, "You changed the numbers that you were given")


def clips(student: Any, rng: torch.Generator) -> None:
    """With a limit, what lies beyond it is clipped to the largest integer"""
    x, codes, scale = signed(rng, 127, 2, 30)
    x[:, 0], codes[:, 0] = 3.7 * 127 * scale[:, 0], 127
    x[:, 1], codes[:, 1] = -1.9 * 127 * scale[:, 0], -127
    compare(student(x, 8, 127 * scale), (codes, scale), "8 bits and a limit")


def rows_of_zeros(student: Any, rng: torch.Generator) -> None:
    """A row of nothing but zeros has the scale 1"""
    x, codes, scale = signed(rng, 7, 3, 8)
    x[1], codes[1], scale[1] = 0, 0, 1
    compare(student(x, 4), (codes, scale), "Three rows, the second of zeros")


SYMMETRIC = Exercise(
    id="quant.symmetric",
    reference="course_utils.models.quant.affine:quantize_symmetric",
    title="Integers and a scale",
    points=5,
    minutes=15,
    difficulty=1,
    checks=(eight_bits, fewer_bits, rows_by_themselves, clips, rows_of_zeros),
    mutants=(
        Mutant(
            replace=("(x / scale).round()", "(x / scale).trunc()"),
            says="You truncate, so every number moves towards zero, by half a step on average. "
            "Round to the nearest integer before you convert.",
            why="`.to(torch.int8)` makes integers by itself; it truncates.",
        ),
        Mutant(
            replace=("2 ** (bits - 1) - 1", "2 ** (bits - 1)"),
            says="Your largest integer is 2^(bits−1), one more than fits: with 8 bits, +128 turns "
            "into −128. It is 2^(bits−1) − 1.",
            why="2^(bits−1) is how many negative numbers there are.",
        ),
        Mutant(
            replace=("2 ** (bits - 1) - 1", "2**bits - 1"),
            says="With a sign, half of the 2^bits integers are negative: the largest is "
            "2^(bits−1) − 1.",
            why="It is the largest integer without a sign.",
        ),
        Mutant(
            replace=("x.abs().amax(dim=-1, keepdim=True)", "x.abs().max()"),
            says="You take one scale for everything. Each row has its own: the maximum along the "
            "last axis, with keepdim=True.",
            why="With a single row it is the same number.",
        ),
        Mutant(
            replace=("x.abs().amax(dim=-1, keepdim=True)", "x.amax(dim=-1, keepdim=True)"),
            says="You take the largest number, not the largest magnitude: a row whose negative "
            "numbers are larger is clipped. Take the maximum of x.abs().",
            why="Half of the time, the largest number is also the one farthest from zero.",
        ),
        Mutant(
            replace=("torch.where(limit > 0, limit / top, 1.0)", "limit / top"),
            says="A row of zeros gets the scale 0, and 0 / 0 is not a number. Take 1 as its scale.",
            why="In random numbers there is no such row; in trained weights there is.",
        ),
        Mutant(
            replace=("limit / top, 1.0", "top / limit, 1.0"),
            says="Your scale is upside down: it is the size of one step, limit / top.",
            why="Both the step size and its inverse are called a scale.",
        ),
        Mutant(
            replace=(".clamp(-top, top)", ""),
            says="What lies beyond the limit does not fit into the integers and comes out with "
            "another sign. Clip to −top … top.",
            why="Without a limit nothing is ever beyond it.",
        ),
    ),
    hints=(
        "The largest integer `top` and the largest magnitude of a row say how far apart two "
        "neighboring integers are.",
        "limit = x.abs().amax(dim=-1, keepdim=True), scale = limit / top, and "
        "torch.where(limit > 0, …, 1.0) for rows of zeros.",
        "codes = (x / scale).round().clamp(-top, top), then .to(torch.int8). Return codes, scale.",
    ),
)

# --- Asymmetric --------------------------------------------------------------------------------


def ranged(rng: torch.Generator, top: int, *shape: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Numbers from a little below zero to far above it, and their integers, scales and zeros."""
    codes = torch.randint(1, top, shape, generator=rng)
    codes[..., :2] = torch.tensor([0, top])
    zero = torch.randint(1, top // 2 + 1, (*shape[:-1], 1), generator=rng)
    # The least number is 0.3 of a step below an integer: the zero has to be rounded.
    offset = uniform(rng, -0.1, 0.4, *shape) - 0.3
    offset[..., :2] = -0.3
    scale = uniform(rng, 0.01, 0.03, *shape[:-1], 1)
    return (codes - zero + offset) * scale, codes.byte(), scale, zero.byte()


def spreads(student: Any, rng: torch.Generator) -> None:
    """The least number becomes 0, the greatest 255, and the zero point stands for 0"""
    x, codes, scale, zero = ranged(rng, 255, 16)
    compare(student(x), (codes, scale, zero), "8 bits")


def four_bits(student: Any, rng: torch.Generator) -> None:
    """With 4 bits the integers are 0 to 15; every row has its own range"""
    x, codes, scale, zero = ranged(rng, 15, 2, 3, 12)
    before = x.clone()
    compare(student(x, 4), (codes, scale, zero), "4 bits, rows of shape 2 × 3 × 12")
    assert_equal(x, before, "You changed the numbers that you were given")


def holds_zero(student: Any, rng: torch.Generator) -> None:
    """The range always holds 0, also when all numbers are on one side of it"""
    x = ranged(rng, 255, 10)[0]
    above = torch.cat((x[1:2], x[1:2] * uniform(rng, 0.3, 0.9, 6)))
    for name, one_side in (("positive", above), ("negative", -above)):
        compare(student(one_side), quantize_asymmetric(one_side), f"Only {name} numbers")


def stays_inside(student: Any, rng: torch.Generator) -> None:
    """Where both roundings go up, the integer is kept within 0 … top; zeros have the scale 1"""
    for bits, top in ((8, 255), (4, 15)):
        x = torch.zeros(2, 6)
        x[0] = torch.tensor([-3.5, top - 3.5, 0.0, 1.0, 2.2, -1.7])
        codes = torch.tensor([[0, top, 4, 5, 6, 2], [0] * 6]).byte()
        scale, zero = torch.ones(2, 1), torch.tensor([[4], [0]]).byte()
        message = f"{bits} bits, a row from −3.5 to {top - 3.5} and a row of zeros"
        compare(student(x, bits), (codes, scale, zero), message)


ASYMMETRIC = Exercise(
    id="quant.asymmetric",
    reference="course_utils.models.quant.affine:quantize_asymmetric",
    title="A zero point",
    points=5,
    minutes=20,
    difficulty=2,
    checks=(spreads, four_bits, holds_zero, stays_inside),
    mutants=(
        Mutant(
            replace=("x.amin(dim=-1, keepdim=True).clamp(max=0)", "x.amin(dim=-1, keepdim=True)"),
            says="When all numbers are positive, your range begins above 0: then no integer stands "
            "for 0, and the zero point would be negative. Widen the range: the least is at most 0.",
            why="A range usually goes from the least to the greatest number.",
        ),
        Mutant(
            replace=("x.amax(dim=-1, keepdim=True).clamp(min=0)", "x.amax(dim=-1, keepdim=True)"),
            says="When all numbers are negative, your range ends below 0, and the zero point does "
            "not fit into the integers. Widen the range: the greatest is at least 0.",
            why="Widening it on one side is easily taken for enough.",
        ),
        Mutant(
            replace=("2**bits - 1", "2**bits"),
            says="You use 2^bits as the largest integer: counted from 0, it is 2^bits − 1. With 8 "
            "bits the greatest number turns into 0.",
            why="There are 2^bits integers, with 0 among them.",
        ),
        Mutant(
            replace=("zero = (-least / scale).round()", "zero = (-least / scale).floor()"),
            says="You round the zero point down. Round it to the nearest integer.",
            why="`.to(torch.uint8)` cuts off, and the result is an integer as well.",
        ),
        Mutant(
            replace=("zero = (-least / scale).round()", "zero = (least / scale).round().abs() * 0"),
            says="Your zero point is always 0, so everything below zero is clipped. It is "
            "round(−least / scale).",
            why="After a ReLU, where least is 0, it would be right.",
        ),
        Mutant(
            replace=("((x / scale).round() + zero)", "((x / scale).round() - zero)"),
            says="You subtract the zero point. It is added here, and subtracted on the way back.",
            why="The formula that one remembers is that of the way back.",
        ),
        Mutant(
            replace=("span = greatest - least", "span = 2 * torch.maximum(greatest, -least)"),
            says="Your range is symmetric about zero, so half of the integers may be wasted. It "
            "goes from the least to the greatest number: greatest − least.",
            why="That is symmetric quantization, shifted.",
        ),
        Mutant(
            replace=(".clamp(0, top)", ""),
            says="Where x / scale and the zero are both rounded up, you get top + 1, which does "
            "not fit. Clip to 0 … top.",
            why="The range was made to fit, so nothing should be outside.",
        ),
        Mutant(
            replace=("torch.where(span > 0, span / top, 1.0)", "span / top"),
            says="A row of zeros gets the scale 0, and 0 / 0 is not a number. Take 1 as its scale.",
            why="In random numbers there is no such row.",
        ),
    ),
    hints=(
        "Find the range first: the least and the greatest number of each row, and 0.",
        "scale = (greatest − least) / top; zero = round(−least / scale) is the integer at which "
        "the number 0 lands.",
        "codes = ((x / scale).round() + zero).clamp(0, top); codes and zero as torch.uint8. Rows "
        "without a span: torch.where(span > 0, span / top, 1.0).",
    ),
)

# --- Groups ------------------------------------------------------------------------------------


def by_groups(rng: torch.Generator, top: int, out: int, groups: int, group: int) -> tuple:
    """A weight, and its integers and scales, with groups of very different sizes."""
    x, codes, scale = signed(rng, top, out, groups, group)
    size = 10 ** uniform(rng, -1.5, 1.5, out, groups, 1)
    return (x * size).flatten(1), codes.flatten(1), (scale * size).squeeze(-1)


def neighbours_share(student: Any, rng: torch.Generator) -> None:
    """Neighboring inputs share a scale, each output has its own"""
    weight, codes, scale = by_groups(rng, 7, 3, 4, 6)
    compare(student(weight, 4, 6), (codes, scale), "A weight of 3 × 24, 4 bits, groups of 6")


def other_sizes(student: Any, rng: torch.Generator) -> None:
    """Any size of group that divides the inputs, any number of bits"""
    for bits, out, groups, group in ((8, 5, 2, 8), (4, 2, 5, 3), (3, 4, 7, 2)):
        weight, codes, scale = by_groups(rng, 2 ** (bits - 1) - 1, out, groups, group)
        message = f"A weight of {out} × {groups * group}, {bits} bits, groups of {group}"
        compare(student(weight, bits, group), (codes, scale), message)


def per_channel(student: Any, rng: torch.Generator) -> None:
    """With a group as long as the row there is one scale for each output"""
    weight, codes, scale = by_groups(rng, 127, 6, 1, 10)
    compare(student(weight, 8, 10), (codes, scale), "A weight of 6 × 10, groups of 10")


def does_not_split(student: Any, rng: torch.Generator) -> None:
    """Inputs that do not divide into groups are refused; those that do are not"""
    weight = normal(rng, 2, 12)
    compare(student(weight, 4, 4), quantize_groups(weight, 4, 4), "A weight of 2 × 12, groups of 4")
    try:
        student(weight, 4, 5)
    except CourseError:
        return
    raise CheckFailure("12 inputs do not divide into groups of 5: raise a CourseError")


SPLIT = "weight.unflatten(-1, (inputs // group, group))"

GROUPS = Exercise(
    id="quant.groups",
    reference="course_utils.models.quant.affine:quantize_groups",
    title="A scale for each group",
    points=4,
    minutes=15,
    difficulty=2,
    checks=(neighbours_share, other_sizes, per_channel, does_not_split),
    mutants=(
        Mutant(
            replace=(SPLIT, "weight.unflatten(-1, (group, inputs // group))"),
            says="Your groups have the wrong length: inputs/group numbers instead of `group`. The "
            "last axis of the weight with three axes must be `group` long.",
            why="The two sizes stand side by side and are easily swapped.",
        ),
        Mutant(
            replace=(SPLIT, "weight.unflatten(-1, (group, inputs // group)).transpose(-1, -2)"),
            says="Your groups take every n-th input. The inputs of a group lie side by side: cut "
            "the row into pieces, with no transposing.",
            why="The shapes are right, and most tests look at shapes.",
        ),
        Mutant(
            replace=("quantize_symmetric(pieces, bits)",
                     "quantize_symmetric(pieces, bits, pieces.abs().amax((-1, -2), keepdim=True)"
                     ".expand(-1, pieces.shape[1], 1))"),
            says="All groups of a row have the same scale in your version. Each piece is quantized "
            "by itself.",
            why="That is per channel, only written out for every group.",
        ),
        Mutant(
            replace=("quantize_symmetric(pieces, bits)",
                     "quantize_symmetric(pieces, bits, pieces.abs().amax(0, keepdim=True)"
                     ".amax(-1, keepdim=True).expand(len(pieces), -1, 1))"),
            says="All outputs share the scales of their groups in your version. Each row of the "
            "matrix has its own.",
            why="One scale per group of inputs sounds like it.",
        ),
        Mutant(
            replace=("scale.squeeze(-1)", "scale"),
            says="Your scales have one axis too many: return outputs × groups, without the last "
            "axis of 1.",
            why="`quantize_symmetric` returns them so.",
        ),
        Mutant(
            replace=("codes.flatten(-2)", "codes"),
            says="Your integers still have three axes. Flatten the last two, so that they have "
            "the shape of the weight.",
            why="The computation uses the shape with three axes.",
        ),
        Mutant(
            replace=("quantize_symmetric(pieces, bits)", "quantize_symmetric(pieces)"),
            says="You forgot to pass `bits` on: everything gets 8.",
            why="A default value fills in silently.",
        ),
        Mutant(
            replace=("if inputs % group:", "if inputs < group:"),
            says="Inputs that do not divide evenly reach the reshape, which fails with an unclear "
            "error. Test inputs % group.",
            why="A group longer than the row is the first case that comes to mind.",
        ),
    ),
    hints=(
        "Cut each row into pieces by giving the matrix a third axis: unflatten. Then "
        "`quantize_symmetric` does the rest, because it works along the last axis.",
        "weight.unflatten(-1, (inputs // group, group)) is outputs × groups × group.",
        "codes.flatten(-2) joins the pieces, scale.squeeze(-1) drops the axis of 1.",
    ),
)  # fmt: skip

# --- Calibration -------------------------------------------------------------------------------


def with_outliers(rng: torch.Generator, n: int, outliers: int, size: float) -> Tensor:
    x = normal(rng, n).double()
    x[:outliers] = size * (1 + 0.2 * torch.rand(outliers, generator=rng)) * x[:outliers].sign()
    return x[torch.randperm(n, generator=rng)]


def clips_outliers(student: Any, rng: torch.Generator) -> None:
    """With a few outliers, the limit is far below them"""
    x = with_outliers(rng, 1500, 2, 12.0)
    message = "1,500 numbers, two of them outliers, 4 bits: the limit is wrong"
    assert_close(student(x, 4), least_error_limit(x, 4), message)


def depends_on_bits(student: Any, rng: torch.Generator) -> None:
    """The more bits there are, the less is clipped"""
    x = with_outliers(rng, 800, 3, 7.0)
    for bits in (3, 5, 8):
        message = f"Three outliers of 800, {bits} bits: the limit is wrong"
        assert_close(student(x, bits), least_error_limit(x, bits), message)


def tries_candidates(student: Any, rng: torch.Generator) -> None:
    """As many limits are tried as are asked for, up to the largest magnitude"""
    # Integers −1, 0, 1: the second limit of three rounds nearly everything to 0, and clips.
    x = torch.cat((uniform(rng, 0.25, 0.32, 40).double(), torch.ones(1, dtype=torch.float64)))
    message = "Forty small numbers and a large one, 2 bits, 3 candidates: the limit is wrong"
    assert_close(student(x, 2, 3), least_error_limit(x, 2, 3), message)
    x = -(normal(rng, 300).double().abs() ** 1.5) + 0.1
    for candidates in (1, 7, 40):
        message = f"Numbers below zero, 4 bits, {candidates} candidates: the limit is wrong"
        assert_close(student(x, 4, candidates), least_error_limit(x, 4, candidates), message)


def keeps_even_numbers(student: Any, rng: torch.Generator) -> None:
    """Where clipping would not help, nothing is clipped; the result has no axes"""
    x = torch.linspace(-1, 1, 200, dtype=torch.float64)[torch.randperm(200, generator=rng)]
    x = x * uniform(rng, 1, 5, 1).double()
    message = "Numbers spread evenly, 8 bits: the limit is wrong"
    assert_close(student(x, 8), least_error_limit(x, 8), message)


TRIED = "torch.arange(1, candidates + 1, device=x.device, dtype=x.dtype)"

LIMIT = Exercise(
    id="quant.limit",
    reference="course_utils.models.quant.calibrate:least_error_limit",
    title="Where to clip",
    points=4,
    minutes=20,
    difficulty=3,
    checks=(clips_outliers, depends_on_bits, tries_candidates, keeps_even_numbers),
    mutants=(
        Mutant(
            replace=(".square().mean(dim=-1)", ".abs().mean(dim=-1)"),
            says="You compare mean absolute errors. Compare squared errors, which weigh large "
            "errors more.",
            why="Both are averages of an error.",
        ),
        Mutant(
            replace=(".square().mean(dim=-1)", ".abs().amax(dim=-1)"),
            says="You look at the largest error only. The outlier is always the largest, so you "
            "never clip much. Take the mean of the squares.",
            why="A bound on the worst case sounds prudent.",
        ),
        Mutant(
            replace=("(dequantize(codes, scale) - x)", "(codes - x)"),
            says="You compare the integers with the numbers. Multiply them by their scale first: "
            "dequantize(codes, scale).",
            why="The integers are what is stored.",
        ),
        Mutant(
            replace=("limits[errors.argmin()]", "errors.argmin()"),
            says="You return the index of the best candidate, not the limit itself: limits[…].",
            why="`argmin` is the last step of the computation.",
        ),
        Mutant(
            replace=("limits[errors.argmin()]", "limits[errors.argmax()]"),
            says="You return the worst of the limits. Take the one with the least error: argmin.",
            why="The lines above take the largest magnitude, so argmax suggests itself.",
        ),
        Mutant(
            replace=("x.abs().max()", "x.max()"),
            says="You take the largest number, not the largest magnitude: among mostly negative "
            "numbers, all your limits are far too small.",
            why="Half of the time they are the same.",
        ),
        Mutant(
            replace=(TRIED, "torch.arange(candidates, device=x.device, dtype=x.dtype)"),
            says="Your candidates begin at 0 and end before the largest magnitude. They go from "
            "1/candidates of it to all of it.",
            why="`arange(n)` begins at 0.",
        ),
        Mutant(
            replace=(", limit=limits[:, None])", ")"),
            says="You do not pass the limits on, so all rows are quantized alike, and the first "
            "limit wins by default.",
            why="The call works without it.",
        ),
    ),
    hints=(
        "Make a vector of the candidates. All can be tried at once: give the sample a first axis "
        "with `x.expand(candidates, -1)`, and each row its own limit.",
        "quantize_symmetric(rows, bits, limit=limits[:, None]), then dequantize(codes, scale).",
        "errors = (… − x).square().mean(dim=-1); return limits[errors.argmin()].",
    ),
)

# --- NF4 ---------------------------------------------------------------------------------------


def by_hand(bits: int) -> list[float]:
    """The levels, one by one, with Python's own normal distribution."""
    half, quantile = 2 ** (bits - 1), NormalDist().inv_cdf
    end = 1 - (1 / (2 * (2**bits - 1)) + 1 / (2 * 2**bits)) / 2

    def side(count: int) -> list[float]:
        return [quantile(end + (0.5 - end) * step / count) for step in range(count)]

    levels = sorted([*side(half), 0.0, *(-level for level in side(half - 1))])
    return [level / levels[-1] for level in levels]


def published(student: Any, rng: torch.Generator) -> None:
    """With 4 bits: the sixteen levels of NF4, ascending from −1 to 1"""
    message = "4 bits: the levels are wrong"
    assert_close(student(4), torch.tensor(by_hand(4)), message)
    assert_close(student(), torch.tensor(by_hand(4)), "Without an argument: the levels are wrong")


def zero_is_exact(student: Any, rng: torch.Generator) -> None:
    """0 is a level, and one more level lies above it than below"""
    for bits in (4, 6):
        levels = student(bits)
        assert_close(levels, torch.tensor(by_hand(bits)), f"{bits} bits: the levels are wrong")
        message = f"{bits} bits: how many levels are below, at and above zero is wrong"
        counts = [int((levels < 0).sum()), int((levels == 0).sum()), int((levels > 0).sum())]
        assert_equal(counts, [2 ** (bits - 1) - 1, 1, 2 ** (bits - 1)], message)


def few_bits(student: Any, rng: torch.Generator) -> None:
    """Other numbers of bits give other levels, by the same rule"""
    for bits in (2, 3, 5):
        assert_close(
            student(bits), torch.tensor(by_hand(bits)), f"{bits} bits: the levels are wrong"
        )


def used_evenly(student: Any, rng: torch.Generator) -> None:
    """The step from one level to the next, where it is smallest and where it is largest"""
    steps, expected = student(4).diff(), torch.tensor(by_hand(4)).diff()
    extremes = torch.stack((steps.min(), steps.max()))
    expected = torch.stack((expected.min(), expected.max()))
    assert_close(extremes, expected, "4 bits: the smallest and the largest step are wrong")


ENDS = "1 - (1 / (2 * (2**bits - 1)) + 1 / (2 * 2**bits)) / 2"
SIDES = "torch.linspace(end, 0.5, count + 1, dtype=torch.float64)[:-1]"

LEVELS = Exercise(
    id="quant.nf4_levels",
    reference="course_utils.models.quant.normal_float:normal_float_levels",
    title="The levels of NF4",
    points=5,
    minutes=25,
    difficulty=3,
    checks=(published, zero_is_exact, few_bits, used_evenly),
    mutants=(
        Mutant(
            replace=("for count in (half, half - 1)", "for count in (half - 1, half)"),
            says="Your extra level lies below zero. It is the positive side that has one more.",
            why="Integers with a sign have one more below zero.",
        ),
        Mutant(
            replace=("(levels / levels.max())", "levels"),
            says="Your levels are quantiles of a normal distribution, up to about 1.85. Divide by "
            "the largest, so that they end at 1.",
            why="The quantiles look like the result.",
        ),
        Mutant(
            replace=("above.flip(0)", "above"),
            says="The positive levels come out in descending order. p goes down from `end`, so "
            "reverse them.",
            why="The negative ones come out right, by their sign.",
        ),
        Mutant(
            replace=(SIDES, "torch.linspace(end, 0.5, count, dtype=torch.float64)"),
            says="You let each side end at 0.5, so 0 is there three times and a level is missing "
            "on both sides. Take one point more, and leave the last one out.",
            why="`linspace` includes its end.",
        ),
        Mutant(
            replace=(f"torch.special.ndtri({SIDES})", f"({SIDES} - 0.5)"),
            says="Your levels have equal distances: these are integers again. Turn the "
            "probabilities p into quantiles with torch.special.ndtri.",
            why="Equally spaced is what the p are.",
        ),
        Mutant(
            replace=(ENDS, "1 - 1 / (2 * 2**bits)"),
            says="Your p end at 1 − 1/(2·2^bits). It is the mean of that and of "
            "1 − 1/(2·(2^bits − 1)).",
            why="It is one of the two natural ends, and gives nearly the same levels.",
        ),
        Mutant(
            replace=("torch.zeros(1, dtype=torch.float64)", "torch.zeros(0, dtype=torch.float64)"),
            says="0 is missing, so there is one level too few. Put it between the two sides.",
            why="Q(0.5) = 0 was left out on both sides, on purpose.",
        ),
        Mutant(
            replace=("(levels / levels.max()).float()", "levels / levels.max()"),
            says="The values are right; return them as float32.",
            why="They were computed in float64.",
        ),
    ),
    hints=(
        "Make one side at a time: equally spaced probabilities, their quantiles, and the last one, "
        "which would be 0, left out.",
        "torch.special.ndtri(torch.linspace(end, 0.5, half + 1, dtype=torch.float64)[:-1]) is the "
        "positive side, from its largest level down.",
        "torch.cat((-below, torch.zeros(1, dtype=torch.float64), above.flip(0))), divided by its "
        "maximum, .float().",
    ),
)

# --- The product -------------------------------------------------------------------------------


def stored(
    rng: torch.Generator, out: int, groups: int, group: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A packed weight, its scales, and the weight itself in float64."""
    codes = torch.randint(-7, 8, (out, groups * group), generator=rng)
    scale = uniform(rng, 0.1, 1.0, out, groups)
    weight = codes * scale.double().repeat_interleave(group, dim=1)
    numbers = codes + 8
    packed = (numbers[:, ::2] + 16 * numbers[:, 1::2]).to(torch.uint8)
    return packed, scale, weight


def one_group(student: Any, rng: torch.Generator) -> None:
    """A weight with one scale for each output"""
    packed, scale, weight = stored(rng, 5, 1, 8)
    x = normal(rng, 3, 8)
    expected = x @ weight.float().T
    assert_close(student(x, packed, scale), expected, "A weight of 5 × 8: the product is wrong")


def many_groups(student: Any, rng: torch.Generator) -> None:
    """A weight with a scale for every group of inputs"""
    for out, groups, group in ((4, 3, 4), (2, 4, 6), (7, 2, 32)):
        packed, scale, weight = stored(rng, out, groups, group)
        x = normal(rng, 5, groups * group)
        message = f"A weight of {out} × {groups * group}, groups of {group}: the product is wrong"
        assert_close(student(x, packed, scale), x @ weight.float().T, message)


def reads_the_weight(student: Any, rng: torch.Generator) -> None:
    """Unit vectors as inputs return the weight, column by column"""
    packed, scale, weight = stored(rng, 3, 2, 4)
    x = torch.eye(8)
    assert_close(student(x, packed, scale), weight.float().T, "The weight's columns are wrong")


def any_batch(student: Any, rng: torch.Generator) -> None:
    """Several axes before the inputs, 16-bit and 64-bit inputs"""
    packed, scale, weight = stored(rng, 6, 2, 8)
    x = normal(rng, 2, 3, 16)
    for dtype in (torch.float64, torch.bfloat16):
        inputs, message = x.to(dtype), f"Inputs of 2 × 3 × 16 in {dtype}: the product is wrong"
        # In 16 bits, the scale may be rounded before the product or after it.
        loose = {"rtol": 0.05, "atol": 0.3} if dtype is torch.bfloat16 else {"rtol": 1e-6}
        exact = (inputs.double() @ weight.T).to(dtype)
        assert_close(student(inputs, packed, scale), exact, message, **loose)


JOINED = "torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)"

PRODUCT = Exercise(
    id="quant.packed_linear",
    reference="course_utils.models.quant.packing:packed_linear",
    title="Multiply by 4 bits",
    points=5,
    minutes=25,
    difficulty=3,
    checks=(one_group, many_groups, reads_the_weight, any_batch),
    mutants=(
        Mutant(
            replace=("(packed & 15, packed >> 4)", "(packed >> 4, packed & 15)"),
            says="You read each byte in the wrong order: the input with the even number is in the "
            "low four bits, packed & 15.",
            why="Written down, the high bits stand on the left.",
        ),
        Mutant(
            replace=(JOINED, "torch.cat((packed & 15, packed >> 4), dim=-1)"),
            says="You put all low halves first and all high halves behind them. Two neighbors "
            "share a byte: they alternate (stack on a new last axis, then flatten).",
            why="`cat` is shorter than `stack` and `flatten`.",
        ),
        Mutant(
            replace=("stored.to(x.dtype) - 8", "stored.to(x.dtype)"),
            says="The stored value is q + 8. Subtract the 8.",
            why="The numbers look fine; they are all positive.",
        ),
        Mutant(
            replace=("stored.to(x.dtype) - 8", "(stored - 8).to(x.dtype)"),
            says="3 − 8 is 251 in unsigned 8-bit integers. Convert to floating point first, then "
            "subtract 8.",
            why="Subtracting first seems the same.",
        ),
        Mutant(
            replace=("stored.to(x.dtype) - 8", "stored.to(x.dtype) - 7.5"),
            says="You center the sixteen values around 7.5. Zero is stored as 8.",
            why="7.5 is the middle of 0 … 15.",
        ),
        Mutant(
            replace=("codes.unflatten(-1, (scale.shape[-1], -1))\n"
                     "    weight = (pieces * scale.to(x.dtype)[..., None]).flatten(-2)",
                     "codes.unflatten(-1, (-1, scale.shape[-1]))\n"
                     "    weight = (pieces * scale.to(x.dtype)[:, None]).flatten(-2)"),
            says="Your scales alternate from input to input. All inputs of a group lie side by "
            "side and have the same scale.",
            why="The shapes fit that way, too.",
        ),
        Mutant(
            replace=("scale.to(x.dtype)[..., None]", "scale.to(x.dtype)[:, :1, None]"),
            says="You use the first group's scale for the whole row. Each group has its own.",
            why="With one group it is right.",
        ),
        Mutant(
            replace=("x @ weight.T", "x.float() @ weight.float().T"),
            says="The result is float32 whatever comes in. Compute in the dtype of `x`.",
            why="float32 always works.",
        ),
    ),
    hints=(
        "Two neighbors from a byte: packed & 15 and packed >> 4. Stack them on a new last axis "
        "and flatten it away.",
        "stored.to(x.dtype) − 8 gives q. Cut it into outputs × groups × …, as in "
        "`quantize_groups`, and multiply by scale[..., None].",
        "q.unflatten(-1, (scale.shape[-1], -1)) * scale.to(x.dtype)[..., None], .flatten(-2), then "
        "x @ weight.T.",
    ),
)  # fmt: skip

EXERCISES = (SYMMETRIC, ASYMMETRIC, GROUPS, LIMIT, LEVELS, PRODUCT)
