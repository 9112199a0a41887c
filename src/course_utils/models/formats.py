"""Floating-point formats as objects: what their bits mean, how far they reach, how they round.

    sign   exponent     mantissa
     ▢     ▢▢▢▢▢▢▢▢     ▢▢▢▢▢▢▢▢▢▢▢…        (−1)^sign · 1.mantissa · 2^(exponent − bias)

A format is the number of bits of its exponent and of its mantissa, and one rule for its end: IEEE
754 keeps the largest exponent for infinity and NaN; E4M3 gives up infinity and uses it for numbers,
so what is too large stays at the largest one (as torch and GPUs convert; some libraries say NaN).

Papers: IEEE 754-2019; Micikevicius et al. (2022), "FP8 Formats for Deep Learning", and the OCP
8-bit Floating Point Specification for E4M3 and E5M2.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Format:
    """A binary floating-point format.

    Attributes:
        name: as people write it.
        exponent_bits, mantissa_bits: their widths; one more bit is the sign.
        finite_only: True where the largest exponent stands for ordinary numbers too: there is no
            infinity, and only the pattern of all ones (with either sign) is NaN (E4M3).
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    finite_only: bool = False

    @property
    def bits(self) -> int:
        """Bits of a number, the sign included."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        """What the stored exponent is too large by."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def largest_exponent(self) -> int:
        """The power of two of the largest numbers."""
        return self.bias + 1 if self.finite_only else self.bias

    @property
    def max(self) -> float:
        """The largest number: all ones in the mantissa, or all but the last where that is NaN."""
        last = 2 if self.finite_only else 1
        return (2 - last * self.epsilon) * 2.0**self.largest_exponent

    @property
    def min_normal(self) -> float:
        """The smallest positive number with all digits."""
        return 2.0 ** (1 - self.bias)

    @property
    def min_subnormal(self) -> float:
        """The smallest positive number; half of it and less rounds to zero."""
        return self.min_normal * self.epsilon

    @property
    def epsilon(self) -> float:
        """From 1 to the next number."""
        return 2.0**-self.mantissa_bits

    @property
    def limit(self) -> float:
        """Half a step above `max`: what is smaller is rounded down to it, all else overflows."""
        return self.max + 0.5 * self.epsilon * 2.0**self.largest_exponent

    @property
    def overflow(self) -> float:
        """What a positive number that is too large turns into."""
        return self.max if self.finite_only else math.inf


FP32 = Format("fp32", exponent_bits=8, mantissa_bits=23)
TF32 = Format("tf32", exponent_bits=8, mantissa_bits=10)  # in registers; in memory it is fp32
BF16 = Format("bf16", exponent_bits=8, mantissa_bits=7)
FP16 = Format("fp16", exponent_bits=5, mantissa_bits=10)
E5M2 = Format("fp8 E5M2", exponent_bits=5, mantissa_bits=2)
E4M3 = Format("fp8 E4M3", exponent_bits=4, mantissa_bits=3, finite_only=True)
FORMATS = (FP32, TF32, BF16, FP16, E5M2, E4M3)

TORCH_DTYPE = {
    FP32: torch.float32,
    BF16: torch.bfloat16,
    FP16: torch.float16,
    E5M2: torch.float8_e5m2,
    E4M3: torch.float8_e4m3fn,
}


def fields(
    bits: Int[Tensor, "*shape"], format: Format
) -> tuple[Int[Tensor, "*shape"], Int[Tensor, "*shape"], Int[Tensor, "*shape"]]:
    """Sign, exponent and mantissa as they are stored: three whole numbers for each pattern."""
    sign = (bits >> (format.bits - 1)) & 1
    exponent = (bits >> format.mantissa_bits) & (2**format.exponent_bits - 1)
    mantissa = bits & (2**format.mantissa_bits - 1)
    return sign, exponent, mantissa


def decode(bits: Int[Tensor, "*shape"], format: Format) -> Float[Tensor, "*shape"]:
    """The numbers that bit patterns stand for.

    With m = `format.mantissa_bits` and the three fields of a pattern (`fields(bits.long(), format)`
    takes it apart; in uint8, 1 − 7 would be 250):

        exponent                 the number
        0                        ± mantissa / 2^m · 2^(1 − bias)             zero and subnormals
        1 to the last but one    ± (1 + mantissa / 2^m) · 2^(exponent − bias)
        all ones                 ± inf where the mantissa is 0, else NaN

    In a format with `finite_only`, all ones in the exponent are a number like the others; only with
    all ones in the mantissa too it is NaN. The sign is − where the sign bit is 1, also of zero.

    Args:
        bits: patterns as whole numbers from 0 to 2^`format.bits` − 1, in any integer dtype.

    Returns:
        Their values in float64, which holds every number of every format here exactly.
    """
    sign, exponent, mantissa = fields(bits.long(), format)
    subnormal = exponent == 0
    # Below the smallest exponent nothing gets smaller but the mantissa: its leading 1 is missing.
    significand = mantissa / 2.0**format.mantissa_bits + (~subnormal).double()
    power = torch.where(subnormal, 1, exponent) - format.bias
    size = significand.double() * torch.exp2(power.double())
    last = exponent == 2**format.exponent_bits - 1
    if format.finite_only:
        size = size.masked_fill(last & (mantissa == 2**format.mantissa_bits - 1), math.nan)
    else:
        size = size.masked_fill(last, math.nan).masked_fill(last & (mantissa == 0), math.inf)
    return torch.where(sign == 1, -size, size)


def encode(values: Float[Tensor, "*shape"], format: Format) -> Int[Tensor, "*shape"]:
    """The bit patterns of the numbers of the format that are nearest to the values, as int64.

    NaN becomes the pattern of ones with the sign bit clear.
    """
    rounded = round_to(values.double(), format)
    size = rounded.abs()
    finite = torch.where(size.isfinite(), size, 0.0)
    exponent = _exponent(finite, format)
    significand = (finite / torch.exp2((exponent - format.mantissa_bits).double())).long()
    # The significand of a normal number has its leading 1, which carries into the exponent's field;
    # that of a subnormal has none, and its field stays 0.
    pattern = ((exponent + format.bias - 1) << format.mantissa_bits) + significand
    ones = 2 ** (format.bits - 1) - 1
    pattern = torch.where(size.isinf(), ones + 1 - 2**format.mantissa_bits, pattern)
    pattern = pattern + (torch.signbit(rounded).long() << (format.bits - 1))
    return torch.where(rounded.isnan(), ones, pattern)


def round_to(values: Float[Tensor, "*shape"], format: Format) -> Float[Tensor, "*shape"]:
    """The nearest number of the format for each value; of two that are equally near, the even one.

    With m = `format.mantissa_bits`, the numbers of the format around a value x with
    2^e ≤ |x| < 2^(e+1) are the multiples of its spacing,

        spacing = 2^(max(e, 1 − bias) − m)

    so rounding is: divide by the spacing, take the nearest whole number (of two, the even one, as
    `torch.round` does), multiply again. `torch.frexp(x)` finds the exponent: it returns a mantissa
    between 1/2 and 1, and e + 1.

    - Values whose size is `format.limit` or more (half a step above the largest number) become
      `format.overflow`, with their sign: infinity, or the largest number where there is none.
    - So do infinite values. NaN stays NaN. What rounds to zero keeps its sign.

    Args:
        values: float32 or float64. They are rounded once, straight to the format.

    Returns:
        Numbers of the format, in the dtype of `values` (so a float32 must be able to hold them).
    """
    exact = values.double()  # dividing by the smallest spacings would leave float32's range
    _, exponent = torch.frexp(exact)
    spacing = torch.exp2((exponent - 1).clamp(min=1 - format.bias).double() - format.mantissa_bits)
    rounded = (exact / spacing).round() * spacing
    too_large = exact.abs() >= format.limit
    rounded = torch.where(too_large, exact.sign() * format.overflow, rounded)
    return rounded.to(values.dtype)


def spacing(values: Float[Tensor, "*shape"], format: Format) -> Float[Tensor, "*shape"]:
    """The distance between neighbouring numbers of the format at each value, in float64."""
    size = values.double().abs()
    return torch.exp2((_exponent(size, format) - format.mantissa_bits).double())


def _exponent(size: Float[Tensor, "*shape"], format: Format) -> Int[Tensor, "*shape"]:
    """The power of two below each value, and of the smallest normal number for all below it."""
    _, exponent = torch.frexp(size)
    lowest = 1 - format.bias
    exponent = (exponent.long() - 1).clamp(lowest, format.largest_exponent)
    return exponent.masked_fill(size == 0, lowest)  # frexp gives zero an exponent of 0


def census(values: Float[Tensor, "*shape"], format: Format) -> Float[Tensor, "fates"]:
    """What becomes of values when they are rounded to a format: the shares of four fates.

        0  lost         it becomes 0
        1  subnormal    it stays, below `format.min_normal`, with fewer digits
        2  normal       it stays, with all the digits that the format has
        3  overflow     its size is `format.limit` or more

    What counts is the number that a value is rounded **to**: 65,519 in fp16 becomes 65,504 and has
    not overflowed, and 4·10⁻⁸ becomes the smallest subnormal number and is not lost.

    Args:
        values: finite, in float32 or float64, of either sign and any shape. Values that are 0
            already have nothing to lose and are left out.

    Returns:
        Four shares (float64) that add up to 1; without a value other than 0, four zeros.
    """
    present = values[values != 0]
    size = round_to(present, format).abs()
    overflow = present.abs() >= format.limit
    lost = size == 0
    subnormal = (size < format.min_normal) & ~lost
    normal = ~(overflow | lost | subnormal)
    counts = torch.stack([fate.sum() for fate in (lost, subnormal, normal, overflow)])
    return counts.double() / max(1, len(present))


def running_sum(values: Float[Tensor, "*batch terms"], format: Format) -> Float[Tensor, "*batch"]:
    """The sum along the last axis, as hardware with accumulators of this format would find it.

    Begin with 0 and add the terms one after the other, from first to last. After **every** addition
    the sum is rounded to the format, because the accumulator holds nothing else. The terms
    themselves are used as they are.

    Args:
        values: terms in float32 or float64, of which every row is a sum of its own.

    Returns:
        The sums, in the dtype of `values`; each is a number of the format. No terms sum to 0.
    """
    total = values.new_zeros(values.shape[:-1])
    for term in values.unbind(-1):
        total = round_to(total + term, format)
    return total


def round_stochastically(
    values: Float[Tensor, "*shape"], generator: torch.Generator | None = None
) -> Float[Tensor, "*shape"]:
    """Round float32 to bfloat16 up or down by chance, so that the mean is the value itself.

    A bfloat16 is the upper half of a float32. Adding a random lower half carries into the upper one
    with exactly the probability that the value's own lower half stands for. Whoever rounds to the
    nearest loses every update below half a step; this loses none on average.

    Args:
        values: float32.
        generator: of the random halves; torch's own by default.

    Returns:
        bfloat16; what the format holds already, and what is not finite, does not change.

    Paper: Gupta et al. (2015), "Deep Learning with Limited Numerical Precision".
    """
    noise = torch.randint(
        2**16, values.shape, dtype=torch.int32, device=values.device, generator=generator
    )
    drawn = (values.view(torch.int32) + noise & -(2**16)).view(torch.float32)
    return torch.where(values.isfinite(), drawn, values).bfloat16()
