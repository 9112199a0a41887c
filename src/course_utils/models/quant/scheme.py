"""How a weight is stored, and the one way to spell it."""

import re
from dataclasses import dataclass
from typing import Literal

from course_utils.base.errors import CourseError, did_you_mean

Kind = Literal["int8", "int4", "nf4"]

# What shares a scale when the name does not say.
_GROUPS = {"int8": 0, "int4": 0, "nf4": 64}

EXAMPLES = (
    "int8", "int8-channel", "int8-g64", "int4", "int4-channel", "int4-g32", "int4-g64",
    "int4-g128", "int4-g32-zero", "int4-g64-double", "int8-channel-zero", "nf4", "nf4-double",
    "nf4-g32", "nf4-channel",
)  # fmt: skip


@dataclass(frozen=True)
class Scheme:
    """A way to store a weight.

    Its name is KIND, then what shares a scale, then options, joined by hyphens:

        int8                 integers of 8 bits, one scale for the whole matrix
        int8-channel         a scale for each output
        int4-g32             integers of 4 bits, a scale for every 32 neighbouring inputs
        int4-g32-zero        asymmetric: with a zero point for each scale
        nf4                  the 16 levels of NormalFloat, in groups of 64 as in its paper
        nf4-double           its scales are quantized to 8 bits as well

    Args:
        kind: what the codes mean.
        group: neighbouring inputs that share a scale; None: all inputs of an output; 0: everything.
        zero: whether every scale comes with a zero point.
        double: whether the scales are quantized once more.
    """

    kind: Kind
    group: int | None
    zero: bool = False
    double: bool = False

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return 8 if self.kind == "int8" else 4

    def __str__(self) -> str:
        default = _GROUPS[self.kind]
        shared = "-channel" if self.group is None else f"-g{self.group}"
        shared = "" if self.group == default else shared
        return f"{self.kind}{shared}{'-zero' * self.zero}{'-double' * self.double}"

    def check(self, inputs: int) -> None:
        """Refuse a number of inputs that does not fit.

        Raises:
            CourseError: when they do not split into groups, or 4-bit codes not into pairs of bytes.
        """
        if self.bits == 4 and inputs % 4:
            raise CourseError(f"{self}: {inputs} inputs are no multiple of 4.")
        if self.group and inputs % self.group:
            raise CourseError(
                f"{self}: {inputs} inputs do not split into groups of {self.group}. "
                f"Try '{self.kind}-g{inputs & -inputs}' or '{self.kind}-channel'."
            )

    @classmethod
    def parse(cls, name: "str | Scheme") -> "Scheme":
        """The scheme that a name stands for.

        Raises:
            CourseError: for any other name, with the nearest one.
        """
        if isinstance(name, Scheme):
            return name
        pattern = r"(int8|int4|nf4)(-channel|-g([1-9]\d*))?(-zero)?(-double)?"
        found = re.fullmatch(pattern, name)
        if found is None:
            raise CourseError(
                f"{name!r} is not a way to quantize.{did_you_mean(name, EXAMPLES)} "
                f"Some that are: int8, int8-channel, int4-g32, int4-g32-zero, nf4, nf4-double."
            )
        kind, shared, group, zero, double = found.groups()
        if kind == "nf4" and zero:
            raise CourseError("nf4 has a level at zero already: leave `-zero` out.")
        scheme = cls(
            kind=kind,  # type: ignore[arg-type]
            group=int(group) if group else None if shared else _GROUPS[kind],
            zero=bool(zero),
            double=bool(double),
        )
        if scheme.double and (zero or not scheme.group):
            raise CourseError(
                f"{name}: -double is for the scales of groups, without zero points. "
                f"Did you mean '{kind}-g64-double'?"
            )
        return scheme
