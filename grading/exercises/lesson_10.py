"""Lesson 10, mixed precision: bits, rounding, what fits, sums, loss scaling, sick runs."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.exercises import Exercise, Mutant, assert_close, assert_equal
from course_utils.models.formats import (
    BF16,
    E4M3,
    E5M2,
    FP16,
    FP32,
    TF32,
    TORCH_DTYPE,
    Format,
    census,
    decode,
    round_to,
    running_sum,
)
from course_utils.training.lab import hospital

TINY = Format("a format of 6 bits", exponent_bits=3, mantissa_bits=2)


def drawn(rng: torch.Generator, *shape: int, low: float, high: float) -> Tensor:
    """Values of either sign whose sizes are spread evenly over the powers of two in between."""
    power = low + (high - low) * torch.rand(shape, generator=rng)
    sign = torch.randint(2, shape, generator=rng) * 2 - 1
    return sign * torch.exp2(power)


def as_torch(values: Tensor, format: Format) -> Tensor:
    """What torch's own cast makes of values, in their dtype."""
    if format.finite_only:  # older versions of torch make NaN of what is too large
        values = values.clamp(-format.max, format.max)
    return values.to(TORCH_DTYPE[format]).to(values.dtype)


def patterns(rng: torch.Generator, n: int, format: Format, low: int, high: int) -> Tensor:
    """Bit patterns with either sign, and exponent fields from `low` to `high`."""
    exponent = torch.randint(low, high + 1, (n,), generator=rng)
    mantissa = torch.randint(2**format.mantissa_bits, (n,), generator=rng)
    sign = torch.randint(2, (n,), generator=rng)
    return (((sign << format.exponent_bits) | exponent) << format.mantissa_bits) | mantissa


def by_torch(bits: Tensor, format: Format) -> Tensor:
    """The values that torch reads from the bits, in float64."""
    whole = {8: torch.uint8, 16: torch.int16, 32: torch.int32}[format.bits]
    signed = torch.where(bits >= 2 ** (format.bits - 1), bits - 2**format.bits, bits)
    stored = bits.to(torch.uint8) if whole is torch.uint8 else signed.to(whole)
    return stored.view(TORCH_DTYPE[format]).double()


# --- Bits to numbers ------------------------------------------------------------------------------


def normal_numbers(student: Any, rng: torch.Generator) -> None:
    """Ordinary numbers: sign, exponent and the mantissa behind its leading 1"""
    for format in (BF16, FP16, E5M2):
        last = 2**format.exponent_bits - 2
        bits = patterns(rng, 40, format, 1, last)
        message = f"{format.name}, exponent fields 1 to {last}: the numbers differ"
        assert_close(student(bits, format), by_torch(bits, format), message, rtol=0.0, atol=0.0)


def below_the_smallest(student: Any, rng: torch.Generator) -> None:
    """An exponent field of 0: subnormal numbers, and both zeros"""
    for format in (FP16, BF16, E4M3):
        bits = torch.cat((patterns(rng, 30, format, 0, 1), torch.tensor([0, 1, 2, 3])))
        found, expected = student(bits, format), by_torch(bits, format)
        message = f"{format.name}, exponent fields 0 and 1: the numbers differ"
        assert_close(found, expected, message, rtol=0.0, atol=0.0)


def the_last_exponent(student: Any, rng: torch.Generator) -> None:
    """All ones in the exponent: infinities and NaN, in E4M3 ordinary numbers"""
    for format in (FP16, E5M2, E4M3):
        last = 2**format.exponent_bits - 1
        ones = torch.tensor([0, 1, 2**format.mantissa_bits - 1]) + (last << format.mantissa_bits)
        bits = torch.cat((ones, ones + 2 ** (format.bits - 1), patterns(rng, 20, format, 1, last)))
        message = f"{format.name}, all ones in the exponent: the numbers differ"
        assert_close(student(bits, format), by_torch(bits, format), message, rtol=0.0, atol=0.0)


def other_shapes(student: Any, rng: torch.Generator) -> None:
    """Any shape, any integer dtype, fp32's own patterns and formats that no hardware has"""
    assert_close(
        student(torch.arange(64).view(2, 32), TINY),
        decode(torch.arange(64).view(2, 32), TINY),
        "All patterns of a format with 3 exponent and 2 mantissa bits, in two rows",
        rtol=0.0,
        atol=0.0,
    )
    bits = patterns(rng, 30, E4M3, 0, 15).to(torch.uint8)
    message = "E4M3's patterns as uint8"
    assert_close(student(bits, E4M3), by_torch(bits.long(), E4M3), message, rtol=0.0, atol=0.0)
    bits = patterns(rng, 30, FP32, 0, 254)
    message = "fp32's patterns"
    assert_close(student(bits, FP32), by_torch(bits, FP32), message, rtol=0.0, atol=0.0)


DECODE = Exercise(
    id="formats.decode",
    reference="course_utils.models.formats:decode",
    title="What bits mean",
    points=4,
    minutes=20,
    difficulty=2,
    checks=(normal_numbers, below_the_smallest, the_last_exponent, other_shapes),
    mutants=(
        Mutant(
            replace=("mantissa = fields(bits.long(), format)", "mantissa = fields(bits, format)"),
            says="Patterns may come as uint8, where 1 − 7 is 250: widen them first, `bits.long()`.",
            why="With int64 patterns it is right.",
        ),
        Mutant(
            replace=("(~subnormal).double()", "1.0"),
            says="You give subnormal numbers a leading 1 too. Where the exponent field is 0 there "
            "is none: the mantissa alone is the number, down to 0 itself.",
            why="All the other numbers have it.",
        ),
        Mutant(
            replace=("torch.where(subnormal, 1, exponent) - format.bias", "exponent - format.bias"),
            says="Your subnormal numbers are half of what they should be. They have the same power "
            "of two as the smallest normal ones, 2^(1 − bias), and not one less.",
            why="The field says 0, so 0 − bias looks right.",
        ),
        Mutant(
            replace=("/ 2.0**format.mantissa_bits +", "/ (2.0**format.mantissa_bits - 1) +"),
            says="You divide the mantissa by 2^m − 1. Its first bit is worth 1/2, so divide by "
            "2^m.",
            why="2^m − 1 is the largest mantissa, so it seems to stand for 1.",
        ),
        Mutant(
            replace=("torch.where(sign == 1, -size, size)", "size"),
            says="The sign is lost: where the sign bit is 1 the number is negative, also zero.",
            why="Exponent and mantissa take all the attention.",
        ),
        Mutant(
            replace=("if format.finite_only:", "if False:"),
            says="In E4M3 all ones in the exponent are ordinary numbers, up to 448. Only with all "
            "ones in the mantissa too it is NaN, and there is no infinity.",
            why="It is so in every format of IEEE 754.",
        ),
        Mutant(
            replace=(".masked_fill(last & (mantissa == 0), math.inf)", ""),
            says="All ones in the exponent and a mantissa of 0 is infinity. You made NaN of it.",
            why="Both are no ordinary numbers.",
        ),
        Mutant(
            replace=(
                "size = size.masked_fill(last, math.nan).masked_fill(last & (mantissa == 0), "
                "math.inf)",
                "pass",
            ),
            says="All ones in the exponent are not numbers here: infinity where the mantissa is "
            "0, NaN elsewhere. You decoded them like ordinary numbers.",
            why="The formula gives a number for them too.",
        ),
    ),
    hints=(
        "Take the pattern apart first: `sign, exponent, mantissa = fields(bits.long(), format)`. "
        "All three are tensors, so decide with `torch.where`, not with `if`.",
        "leading = (exponent != 0); power = torch.where(exponent == 0, 1, exponent) − format.bias; "
        "size = (leading + mantissa / 2^m) · torch.exp2(power.double()), all in float64.",
        "For the last exponent, 2^exponent_bits − 1: with `finite_only`, NaN where the mantissa is "
        "2^m − 1; otherwise NaN, and inf where the mantissa is 0. Then −size where sign is 1.",
    ),
)

# --- Rounding -------------------------------------------------------------------------------------


def normal_rounding(student: Any, rng: torch.Generator) -> None:
    """Ordinary values, rounded as torch's casts round them"""
    for format, reach in ((BF16, 100), (FP16, 13), (E5M2, 13), (E4M3, 5)):
        values = drawn(rng, 4, 30, low=-reach, high=reach + 1)
        message = f"To {format.name}: the rounded values differ"
        assert_close(student(values, format), as_torch(values, format), message, rtol=0.0, atol=0.0)


def ties(student: Any, rng: torch.Generator) -> None:
    """Values in the middle between two numbers go to the even one"""
    for format in (BF16, E4M3, FP16):
        whole = torch.randint(2**format.mantissa_bits, (40,), generator=rng)
        values = (1 + (whole + 0.5) * format.epsilon) * drawn(rng, 40, low=-3, high=3).sign()
        message = f"To {format.name}, values half-way between two numbers: the result differs"
        assert_close(student(values, format), as_torch(values, format), message, rtol=0.0, atol=0.0)


def small_values(student: Any, rng: torch.Generator) -> None:
    """Below the smallest normal number the spacing stays, down to zero and its sign"""
    for format in (FP16, E4M3, E5M2):
        low = math.log2(format.min_subnormal)
        values = drawn(rng, 60, low=low - 3, high=math.log2(format.min_normal) + 1)
        values = torch.cat((values, torch.tensor([0.0, -0.0, 0.5, 1.5]) * format.min_subnormal))
        message = f"To {format.name}, values around its subnormal numbers: the result differs"
        found, expected = student(values, format), as_torch(values, format)
        assert_close(found, expected, message, rtol=0.0, atol=0.0)
        assert_equal(torch.signbit(found), torch.signbit(expected), "The signs of zeros differ")


def large_values(student: Any, rng: torch.Generator) -> None:
    """From half a step above the largest number on: infinity, or the largest where there is none"""
    for format in (FP16, E5M2, E4M3):
        step = 2.0 ** (format.largest_exponent - format.mantissa_bits)
        near = format.max + step * torch.tensor([-0.6, 0.3, 0.49, 0.75, 0.9, 1.5])
        far = drawn(rng, 6, low=math.log2(format.max), high=40)
        values = torch.cat((near, -near, far, torch.tensor([math.inf, -math.inf, math.nan])))
        message = f"To {format.name}, around and above {format.max:g}: the result differs"
        assert_close(student(values, format), as_torch(values, format), message, rtol=0.0, atol=0.0)


def once(student: Any, rng: torch.Generator) -> None:
    """float64 stays float64 and is rounded once; the input does not change; any format works"""
    values = drawn(rng, 50, low=-30, high=30).double() * (1 + 1e-9)
    before = values.clone()
    for format in (TF32, TINY, BF16):
        message = f"float64 to {format.name}: the result differs"
        assert_close(student(values, format), round_to(before, format), message, rtol=0.0, atol=0.0)
    assert_equal(values, before, "You changed the values that you were given")


ROUND = Exercise(
    id="formats.round",
    reference="course_utils.models.formats:round_to",
    title="Rounding to any format",
    points=5,
    minutes=25,
    difficulty=3,
    checks=(normal_rounding, ties, small_values, large_values, once),
    mutants=(
        Mutant(
            replace=("(exact / spacing).round() * spacing", "(exact / spacing).trunc() * spacing"),
            says="You truncate the digits. Rounding takes the **nearest** number: `torch.round`, "
            "not `trunc`.",
            why="Dropping the lower bits is what the hardware seems to do.",
        ),
        Mutant(
            replace=(
                "(exact / spacing).round() * spacing",
                "(exact / spacing + 0.5).floor() * spacing",
            ),
            says="Half-way between two numbers you always go up. Of two that are equally near, the "
            "even one is taken, so that sums do not drift: `torch.round` does that.",
            why="That is how one rounds at school.",
        ),
        Mutant(
            replace=("(exponent - 1).clamp(min=1 - format.bias)", "(exponent - 1)"),
            says="Your spacing keeps shrinking below the smallest normal number. There it stays: "
            "the exponent in the formula is max(e, 1 − bias).",
            why="The formula works for all ordinary numbers.",
        ),
        Mutant(
            replace=("(exponent - 1).clamp(min=1 - format.bias)",
                     "exponent.clamp(min=1 - format.bias)"),
            says="Your spacing is twice as wide as it should be. `frexp` returns a mantissa "
            "between "
            "1/2 and 1, so its exponent is e + 1.",
            why="Formats are described as 1.mantissa, which suggests a number between 1 and 2.",
        ),
        Mutant(
            replace=(
                "exact.abs() >= format.limit",
                "exact.abs() > format.max",
            ),
            says="You let everything above the largest number overflow. In fp16, 65,510 is above "
            "65,504 and rounds down to it; only from `format.limit` on it is too large.",
            why="Every value above the largest number seems too large.",
        ),
        Mutant(
            replace=("exact.sign() * format.overflow", "exact.sign() * format.max"),
            says="You keep what is too large at the largest number in every format. That is E4M3's "
            "rule; where there is infinity, it becomes infinite, so that it is noticed.",
            why="A finite number seems better than none.",
        ),
        Mutant(
            replace=("exact.sign() * format.overflow", "format.overflow"),
            says="Every overflow becomes +∞; that of a negative value is −∞.",
            why="One number for what is too large is the simplest.",
        ),
        Mutant(
            replace=("exact.sign() * format.overflow", "exact.sign() * math.inf"),
            says="E4M3 has no infinity: what is too large stays at its largest number there. "
            "`format.overflow` knows.",
            why="In all the others it is infinity.",
        ),
    ),
    hints=(
        "Which multiples are the numbers around x? `torch.frexp(x)` gives e + 1; the spacing is "
        "2^(max(e, 1 − bias) − m). Work in float64: its digits suffice for everything.",
        "rounded = (x / spacing).round() * spacing is all of it for ordinary numbers; "
        "`torch.round` "
        "goes to the even one by itself.",
        "Then torch.where(x.abs() >= format.limit, x.sign() * format.overflow, rounded), and back "
        "to the dtype that came in.",
    ),
)  # fmt: skip

# --- What becomes of values -----------------------------------------------------------------------


def all_four(student: Any, rng: torch.Generator) -> None:
    """Values of all sizes: how many are lost, subnormal, normal, too large"""
    for format in (FP16, E5M2):
        values = drawn(rng, 500, low=-34, high=22)
        message = f"{format.name}, sizes from 2⁻³⁴ to 2²²: lost, subnormal, normal, overflow"
        assert_close(student(values, format), census(values, format), message)


def at_the_borders(student: Any, rng: torch.Generator) -> None:
    """It is the rounded number that counts: just below and just above each border"""
    for format in (FP16, BF16):
        step = 2.0 ** (format.largest_exponent - format.mantissa_bits)
        borders = torch.tensor(
            [
                format.max + 0.4 * step, format.max + 0.6 * step,
                format.min_normal - 0.2 * format.min_subnormal,
                format.min_normal - 0.8 * format.min_subnormal,
                0.4 * format.min_subnormal, 0.6 * format.min_subnormal, 0.5 * format.min_subnormal,
            ],
            dtype=torch.float64,
        )  # fmt: skip
        counts = torch.randint(1, 5, (len(borders),), generator=rng)
        values = borders.repeat_interleave(counts)
        values = values * (torch.randint(2, values.shape, generator=rng) * 2 - 1)
        message = f"{format.name}, values close to its borders: the shares differ"
        assert_close(student(values, format), census(values, format), message)


def zeros_have_nothing_to_lose(student: Any, rng: torch.Generator) -> None:
    """Values that are 0 already are left out, in any shape"""
    values = drawn(rng, 6, 30, low=-30, high=20)
    values = values * (torch.rand(values.shape, generator=rng) < 0.6)
    message = "Six rows, four in ten of the values 0: the shares differ"
    assert_close(student(values, FP16), census(values, FP16), message)
    message = "Nothing but zeros: all shares are 0"
    assert_close(student(torch.zeros(3), FP16), torch.zeros(4, dtype=torch.float64), message)


def without_infinity(student: Any, rng: torch.Generator) -> None:
    """A format without infinity overflows too, though one cannot see it afterwards"""
    values = drawn(rng, 300, low=-14, high=12)
    message = "E4M3: lost, subnormal, normal, overflow"
    assert_close(student(values, E4M3), census(values, E4M3), message)


CENSUS = Exercise(
    id="formats.census",
    reference="course_utils.models.formats:census",
    title="Predict what overflows, and what is lost",
    points=4,
    minutes=15,
    difficulty=2,
    checks=(all_four, at_the_borders, zeros_have_nothing_to_lose, without_infinity),
    mutants=(
        Mutant(
            replace=("present.abs() >= format.limit", "present.abs() > format.max"),
            says="You count everything above the largest number. What lies less than half a step "
            "above it is rounded down to it and does not overflow.",
            why="`format.max` is there to be compared with.",
        ),
        Mutant(
            replace=("lost = size == 0", "lost = present.abs() < format.min_subnormal"),
            says="You count everything below the smallest number as lost. Above half of it, it is "
            "rounded **up** to it, and stays.",
            why="There is no smaller number, so how could it stay?",
        ),
        Mutant(
            replace=("lost = size == 0", "lost = size < format.min_normal"),
            says="You count subnormal numbers as lost. They have fewer digits, but they are not 0.",
            why="`min_normal` is often called the smallest number of a format.",
        ),
        Mutant(
            replace=("present = values[values != 0]", "present = values.flatten()"),
            says="Values that were 0 before have lost nothing: leave them out, of the sum of the "
            "shares as well.",
            why="They are 0 afterwards, too.",
        ),
        Mutant(
            replace=("overflow = present.abs() >= format.limit", "overflow = ~size.isfinite()"),
            says="In E4M3 nothing becomes infinite, and yet what is held at 448 has overflowed. "
            "Ask "
            "the values themselves: `format.limit` is the border.",
            why="Overflow and infinity are nearly the same word.",
        ),
        Mutant(
            replace=("size = round_to(present, format).abs()", "size = round_to(present, format)"),
            says="You compare negative values with positive borders, so all of them seem tiny. It "
            "is "
            "the size that counts: `abs()`.",
            why="Everybody thinks of positive numbers first.",
        ),
        Mutant(
            replace=("counts.double() / max(1, len(present))", "counts.double()"),
            says="You return counts. Return shares of the values that are not 0.",
            why="Counting comes first.",
        ),
    ),
    hints=(
        "Take the values that are not 0, round them with `round_to`, and look at what came out.",
        "A size of `format.limit` or more: overflow. Rounded to 0: lost. Otherwise, rounded to "
        "less "
        "than `format.min_normal` in size: subnormal. All others: normal.",
        "torch.stack([fate.sum() for fate in (lost, subnormal, normal, overflow)]).double() / "
        "max(1, len(present))",
    ),
)  # fmt: skip

# --- Sums -----------------------------------------------------------------------------------------


def stops_growing(student: Any, rng: torch.Generator) -> None:
    """Ones in bf16: the sum stops where the spacing is 2"""
    ones = torch.ones(300)
    assert_close(student(ones, BF16), torch.tensor(256.0), "300 ones summed in bf16")
    tenths = torch.full((2, 500), 0.1) * torch.tensor([[1.0], [3.0]])
    message = "500 tenths, and 500 times 0.3, summed in fp16"
    assert_close(student(tenths, FP16), running_sum(tenths, FP16), message, rtol=0.0, atol=0.0)


def each_addition(student: Any, rng: torch.Generator) -> None:
    """The sum is rounded after every addition, from the first term to the last"""
    values = torch.randn(5, 60, generator=rng)
    for format in (BF16, FP16, E5M2):
        message = f"Five rows of 60 terms in {format.name}: the sums differ"
        assert_close(
            student(values, format), running_sum(values, format), message, rtol=0.0, atol=0.0
        )


def terms_as_they_are(student: Any, rng: torch.Generator) -> None:
    """The terms are not rounded, only what the accumulator holds"""
    values = 1 + torch.rand(40, 3, generator=rng)
    message = "Rows of three terms in E5M2: the sums differ"
    found, expected = student(values, E5M2), running_sum(values, E5M2)
    assert_close(found, expected, message, rtol=0.0, atol=0.0)


def wide_accumulator(student: Any, rng: torch.Generator) -> None:
    """With a wide accumulator nothing is lost; float64 and more axes work; no terms sum to 0"""
    values = torch.randn(2, 3, 20, generator=rng, dtype=torch.float64)
    message = "float64 terms in an fp32 accumulator: the sums differ"
    assert_close(student(values, FP32), values.sum(-1), message, rtol=1e-4, atol=1e-5)
    assert_close(student(values, FP32), running_sum(values, FP32), message, rtol=0.0, atol=0.0)
    message = "Two rows without terms"
    assert_close(student(torch.ones(2, 0), BF16), torch.zeros(2), message)


SUM = Exercise(
    id="formats.running_sum",
    reference="course_utils.models.formats:running_sum",
    title="A sum in a narrow accumulator",
    points=4,
    minutes=10,
    difficulty=1,
    checks=(stops_growing, each_addition, terms_as_they_are, wide_accumulator),
    mutants=(
        Mutant(
            replace=("    for term in values.unbind(-1):\n"
                     "        total = round_to(total + term, format)\n    return total",
                     "    return round_to(values.sum(-1), format)"),
            says="You add everything up exactly and round once at the end. The accumulator has "
            "nothing but its format: round after every addition.",
            why="One rounding instead of hundreds is faster, and better; that is the point of the "
            "lesson.",
        ),
        Mutant(
            replace=("total = round_to(total + term, format)",
                     "total = round_to(total + round_to(term, format), format)"),
            says="You round the terms as well. Only the sum is held in the accumulator; the terms "
            "come as they are.",
            why="In hardware the terms are often narrow too.",
        ),
        Mutant(
            replace=("total = round_to(total + term, format)",
                     "total = total + round_to(term, format)"),
            says="You round the terms and keep an exact sum. It is the other way round: the sum is "
            "what has to fit into the accumulator.",
            why="Rounding the inputs is what a cast before a product does.",
        ),
        Mutant(
            replace=("for term in values.unbind(-1)", "for term in values.flip(-1).unbind(-1)"),
            says="You start from the last term. With rounding the order matters: from first to "
            "last.",
            why="In exact arithmetic the order makes no difference.",
        ),
        Mutant(
            replace=("in values.unbind(-1)", "in values.sort(-1).values.unbind(-1)"),
            says="You sort the terms first. That is a good trick against rounding errors, but an "
            "accumulator takes them as they come.",
            why="Small ones first is the advice of every numerics book.",
        ),
    ),
    hints=(
        "A loop over the last axis, `values.unbind(-1)`, and one `round_to` in it.",
        "Begin with zeros of shape `values.shape[:-1]` (`values.new_zeros`), then "
        "total = round_to(total + term, format).",
    ),
)  # fmt: skip

# --- Loss scaling ---------------------------------------------------------------------------------

SETTINGS = {"growth": 2.0, "backoff": 0.5, "interval": 3}


def two_parameters(rng: torch.Generator) -> list[nn.Parameter]:
    return [nn.Parameter(torch.randn(shape, generator=rng)) for shape in ((3, 2), (4,))]


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.5, momentum=0.9)


def gradients(rng: torch.Generator, damage: str = "") -> list[Tensor]:
    """Gradients of true size, one element of one of them damaged."""
    drawn = [torch.randn((3, 2), generator=rng), torch.randn((4,), generator=rng)]
    if damage:
        which = int(torch.randint(2, (), generator=rng))
        drawn[which].view(-1)[1] = float(damage)
    return drawn


def put(parameters: list[nn.Parameter], values: list[Tensor], factor: float) -> None:
    for parameter, gradient in zip(parameters, values, strict=True):
        parameter.grad = gradient * factor


def follow(
    student: Any, rng: torch.Generator, damages: list[str], max_norm: float | None = None
) -> tuple[list, list]:
    """Take steps with the learner's scaler and with torch's; what each has after every step."""
    mine = two_parameters(rng)
    theirs = [nn.Parameter(p.detach().clone()) for p in mine]
    optimizer, reference = sgd(mine), sgd(theirs)
    scaler = student(factor=1024.0, **SETTINGS)
    torchs = torch.amp.GradScaler(
        "cpu", init_scale=1024.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=3
    )
    torchs.scale(torch.zeros(()))  # it makes its own factor when it is first used
    found, expected = [], []
    for damage in damages:
        values = gradients(rng, damage)
        put(mine, values, scaler.factor)
        put(theirs, values, torchs.get_scale())
        before = [p.detach().clone() for p in theirs]
        took = scaler.step(optimizer, max_norm=max_norm)
        torchs.unscale_(reference)
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_(theirs, max_norm)
        torchs.step(reference)
        torchs.update()
        stepped = not all(map(torch.equal, before, theirs))
        found.append((took, float(scaler.factor), [p.detach().clone() for p in mine]))
        expected.append((stepped, torchs.get_scale(), [p.detach().clone() for p in theirs]))
    return found, expected


def hold_steps(found: list, expected: list, damages: list[str]) -> None:
    said = [damage or "sound" for damage in damages]
    for column, what in ((0, "whether the optimizer stepped"), (1, "the factor")):
        assert_equal(
            [row[column] for row in found],
            [row[column] for row in expected],
            f"Gradients {', '.join(said)}: {what} after each step differs from torch's scaler",
        )
    for number, (row, wanted) in enumerate(zip(found, expected, strict=True), start=1):
        assert_close(row[2], wanted[2], f"The weights after step {number} differ from torch's")


def true_size(student: Any, rng: torch.Generator) -> None:
    """`unscale` brings gradients back to their true size, in place, and says if all are finite"""
    parameters = [*two_parameters(rng), nn.Parameter(torch.ones(2))]  # the last has no gradient
    optimizer, scaler = sgd(parameters), student(factor=256.0)
    values = gradients(rng)
    put(parameters[:2], values, 256.0)
    memory = parameters[0].grad.data_ptr()
    sound = scaler.unscale(optimizer)
    message = "Gradients scaled by 256: after unscale they differ"
    assert_close([p.grad for p in parameters[:2]], values, message)
    assert_equal(parameters[0].grad.data_ptr() == memory, True, "Divide them in place")
    assert_equal(sound, True, "All gradients are finite: what unscale returns")
    for damage in ("inf", "-inf", "nan"):
        put(parameters[:2], gradients(rng, damage), 256.0)
        assert_equal(scaler.unscale(optimizer), False, f"One {damage} among them: unscale returns")


def good_steps_grow(student: Any, rng: torch.Generator) -> None:
    """Sound gradients: it steps, and after every third step the factor doubles"""
    damages = [""] * 7
    found, expected = follow(student, rng, damages)
    hold_steps(found, expected, damages)


def bad_steps_shrink(student: Any, rng: torch.Generator) -> None:
    """One infinite or NaN element: no step, half the factor, and counting begins again"""
    damages = ["", "", "inf", "", "nan", "", "", "", "-inf", "-inf", ""]
    found, expected = follow(student, rng, damages)
    hold_steps(found, expected, damages)


def like_torch(student: Any, rng: torch.Generator) -> None:
    """Thirty steps at random: every decision is that of torch.amp.GradScaler"""
    chance = torch.rand(30, generator=rng)
    damages = ["inf" if c < 0.1 else "nan" if c < 0.2 else "" for c in chance.tolist()]
    found, expected = follow(student, rng, damages)
    hold_steps(found, expected, damages)


def clips_true_gradients(student: Any, rng: torch.Generator) -> None:
    """The limit on the norm applies to gradients of true size"""
    damages = ["", "inf", "", "", ""]
    found, expected = follow(student, rng, damages, max_norm=0.7)
    hold_steps(found, expected, damages)


SCALER = Exercise(
    id="precision.loss_scaler",
    reference="course_utils.training.parts.loss_scale:LossScaler",
    title="A loss scaler",
    points=5,
    minutes=25,
    difficulty=3,
    holes=("unscale", "step"),
    checks=(true_size, good_steps_grow, bad_steps_shrink, like_torch, clips_true_gradients),
    mutants=(
        Mutant(
            replace=("gradient.div_(self.factor)", "gradient.mul_(self.factor)"),
            says="You multiply the gradients by the factor once more. The loss was multiplied, so "
            "divide.",
            why="Scaling is multiplying.",
        ),
        Mutant(
            replace=("gradient.isfinite().all()", "not gradient.isinf().any()"),
            says="You look for infinity only. inf − inf and 0 · inf are NaN, and one NaN spoils "
            "all "
            "weights too: ask `isfinite`.",
            why="Overflow usually shows as infinity.",
        ),
        Mutant(
            replace=("            self.good_steps = 0\n            return False",
                     "            return False"),
            says="After a bad step, counting must begin again: `interval` good steps **in a row** "
            "let the factor grow.",
            why="A bad step is no good step, so nothing needs to be counted.",
        ),
        Mutant(
            replace=("            self.factor *= self.growth\n            self.good_steps = 0",
                     "            self.factor *= self.growth"),
            says="After the factor has grown, counting must begin again; yours grows once and "
            "never "
            "after.",
            why="The counter has done its work.",
        ),
        Mutant(
            replace=("self.good_steps == self.interval", "self.good_steps > self.interval"),
            says="Your factor grows one step late: it must grow with the `interval`-th good step "
            "in a row.",
            why="> and >= look alike.",
        ),
        Mutant(
            replace=("            self.good_steps = 0\n            return False",
                     "            self.good_steps = 0\n            optimizer.step()\n"
                     "            return False"),
            says="You step although a gradient is not finite: now weights and momenta are NaN for "
            "ever. Leave the step out.",
            why="The optimizer is always stepped, in every other loop.",
        ),
        Mutant(
            replace=("self.factor *= self.backoff", "self.factor /= self.growth * 2"),
            says="You shrink the factor by something else than `backoff`. It is multiplied by it.",
            why="A smaller factor seems safer.",
        ),
        Mutant(
            replace=("        if not self.unscale(optimizer):",
                     "        if max_norm is not None:\n"
                     "            clip_grad_norm([p for g in optimizer.param_groups for p in "
                     "g['params']], max_norm)\n            max_norm = None\n"
                     "        if not self.unscale(optimizer):"),
            says="You clip before the gradients have their true size: they are a thousand times "
            "too "
            "long there, so all of them are cut down to next to nothing. Unscale first.",
            why="Clipping follows the backward pass in every other loop.",
        ),
    ),
    hints=(
        "`unscale` first: `optimizer.param_groups` is a list of dicts, each with its \"params\". "
        "`gradient.div_(self.factor)` works in place.",
        "In `step`, everything depends on what `self.unscale(optimizer)` returns. False: "
        "factor · backoff, counter 0, return False.",
        "True: clip_grad_norm(parameters, max_norm) if a limit is given, optimizer.step(), count; "
        "at "
        "`interval` multiply the factor by `growth` and count from 0. Return True.",
    ),
)  # fmt: skip

# --- The hospital ---------------------------------------------------------------------------------


def visit(student: Any, rng: torch.Generator, cases: list[str], seeds: Sequence[int]) -> None:
    """Let the learner diagnose these cases, in random order."""
    patients = [(case, hospital.recorded()[case][seed]) for case in cases for seed in seeds]
    order = torch.randperm(len(patients), generator=rng).tolist()
    found, expected = [], []
    for number in order:
        case, metrics = patients[number]
        found.append(student({name: list(values) for name, values in metrics.items()}))
        expected.append(hospital.diagnosis_of(case))
    wrong = next(((f, e) for f, e in zip(found, expected, strict=True) if f != e), None)
    told = f"; one is {wrong[1]} and you say {wrong[0]!r:.40}" if wrong else ""
    # In the order in which they are listed, so that a mistake looks the same whatever the seed.
    back = sorted(range(len(order)), key=order.__getitem__)
    assert_equal(
        [found[i] for i in back],
        [expected[i] for i in back],
        f"{len(patients)} runs, among them healthy ones{told}. Your diagnoses",
    )


def broken_numbers(student: Any, rng: torch.Generator) -> None:
    """Runs in fp16: overflow, and loss scales that collapse or are stuck"""
    cases = ["healthy_fp16", "fp16_overflow", "scale_collapse", "scale_stuck"]
    visit(student, rng, cases, seeds=(0,))


def wrong_measures(student: Any, rng: torch.Generator) -> None:
    """Losses that mean something else: not divided, shifted, leaking, measured with dropout"""
    cases = ["healthy", "accumulation_not_divided", "labels_shifted_twice", "documents_leak",
             "dropout_in_evaluation"]  # fmt: skip
    visit(student, rng, cases, seeds=(0,))


def wrong_steps(student: Any, rng: torch.Generator) -> None:
    """Learning rates too small, too large and without warm-up; rows in the order of the disk"""
    cases = ["healthy", "lr_too_small", "lr_too_large", "no_warmup", "not_shuffled"]
    visit(student, rng, cases, seeds=(0,))


def other_patients(student: Any, rng: torch.Generator) -> None:
    """The same illnesses with other seeds: other data, other weights"""
    visit(student, rng, list(hospital.CASES), seeds=(1, 2))


DIAGNOSE = Exercise(
    id="precision.diagnose",
    reference="course_utils.training.parts.diagnosis:diagnose",
    title="The broken-run hospital",
    points=6,
    minutes=35,
    difficulty=3,
    checks=(broken_numbers, wrong_measures, wrong_steps, other_patients),
    mutants=(
        Mutant(
            replace=("if scale and scale[-1] < scale[0] / 2**10:", "if False:"),
            says="A loss that does not move is not always a learning rate that is too small: look "
            "at "
            "the loss scale. It halves with every step that is left out, and here all of them are.",
            why="The loss curve is the same flat line.",
        ),
        Mutant(
            replace=("scale[-1] < scale[0] / 2**10", "scale[-1] < scale[0]"),
            says="You take every falling loss scale for a collapse. Falling a few times in the "
            "first "
            "steps, while the scaler finds its factor, is healthy; falling without end is not.",
            why="A step that was left out looks like damage.",
        ),
        Mutant(
            replace=("if scale and max(scale) < 1:", "if False:"),
            says="A loss scale far below 1 for the whole run pushes gradients into fp16's zero. "
            "You "
            "pass that over: it learns, but much worse than it could.",
            why="The loss falls, so the run seems to be well.",
        ),
        Mutant(
            replace=("not all(map(math.isfinite, loss))", "math.inf in loss"),
            says="You look for infinity. After one infinite step the weights are NaN, and so is "
            "the "
            "loss: `math.isfinite` finds both.",
            why="Overflow usually shows as infinity.",
        ),
        Mutant(
            replace=('metrics["val_again"] != val', "False"),
            says="Two measurements of the same weights on the same rows must agree to the last "
            "digit. Where they do not, something random is still switched on: dropout.",
            why="The curves are close to each other, and noise is everywhere.",
        ),
        Mutant(
            replace=("if loss[0] > 1.5 * guessing:", "if False:"),
            says="A training loss that is several times guessing **before the first step** has "
            "nothing to do with the learning rate: it is added up and not divided.",
            why="A loss that is much too high suggests steps that are much too large.",
        ),
        Mutant(
            replace=("lr[0] == max(lr) and max(loss[:10]) > 1.1 * guessing", "False"),
            says="You overlook the missing warm-up: the loss leaps above guessing in the first "
            "steps, "
            "and the learning rate was at its peak there.",
            why="It recovers, so it looks like nothing, or like a rate that is too large.",
        ),
        Mutant(
            replace=("if val[-1] > guessing:", "if False:"),
            says="Held-out loss **above guessing** while the training loss falls is no leak: a "
            "leaking "
            "model still learns something of use. This one learns another task: its labels are "
            "shifted.",
            why="Both have a wide gap between training and held-out loss.",
        ),
        Mutant(
            replace=("if val[-1] > end + 0.4:", "if False:"),
            says="At the end the training loss is far below the held-out loss, and no row came "
            "twice: "
            "it cannot be learned by heart. The rows tell the answer: documents see each other.",
            why="Some gap between the two is taken for normal.",
        ),
        Mutant(
            replace=("if end > 0.9 * guessing:", "if False:"),
            says="A run that ends close to where guessing is has learned next to nothing. With "
            "smooth "
            "curves and sound gradients, the learning rate is far too small.",
            why="Nothing is broken in it.",
        ),
        Mutant(
            replace=("max(loss[:10]) > 1.5 * guessing", "max(loss) > 1.5 * guessing"),
            says="Losses above guessing come from a learning rate that is too large when they come "
            "early. A leap in the middle of a run that was doing well has another reason: other "
            "rows.",
            why="Both are peaks in the loss.",
        ),
    ),
    hints=(
        "Begin with what is unmistakable: a loss that is not finite; a loss scale that falls "
        "without "
        "end, or is tiny; two measurements that differ; a first loss that is several times the "
        "first "
        "val_loss.",
        "Then the peaks: in the first ten steps above guessing (was lr[0] == max(lr)?), or a leap "
        "of "
        "more than 1 from one step to the next later on.",
        "Then the ends, with end = mean(loss[-6:]): val_loss above guessing; end close to "
        "guessing; "
        "val_loss above end by 0.4 or more; else healthy.",
    ),
)

EXERCISES = (DECODE, ROUND, CENSUS, SCALER, SUM, DIAGNOSE)
