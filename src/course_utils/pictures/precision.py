"""Drawings of number formats and of what training in them does: bits, ranges, spacing, runs.

Like `plots`, whose style they share, these functions draw with pyplot and return nothing.
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from course_utils.models.formats import Format, decode, encode, spacing
from course_utils.pictures.plots import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    plain_log_labels,
)

SIGN, EXPONENT, MANTISSA = RED, ORANGE, BLUE


def bit_layouts(value: float, formats: Sequence[Format]) -> None:
    """Draw how each format writes a value: its bits, and the number that they are."""
    widest = max(format.bits for format in formats)
    axes = plt.subplots(figsize=(10.5, 0.44 * len(formats) + 0.95))[1]
    for row, format in enumerate(formats):
        pattern = encode(torch.tensor([value], dtype=torch.float64), format)
        number = decode(pattern, format).item()
        bits = f"{pattern.item():0{format.bits}b}"
        for place, bit in enumerate(bits):
            colour = SIGN if place == 0 else MANTISSA
            if 0 < place <= format.exponent_bits:
                colour = EXPONENT
            filled = bit == "1"
            box = Rectangle(
                (place + 0.06, row - 0.36), 0.88, 0.72, lw=1, ec=colour, fc=colour,
                alpha=0.9 if filled else 0.16,
            )  # fmt: skip
            axes.add_patch(box)
            axes.text(place + 0.5, row, bit, ha="center", va="center", fontsize=8.5,
                      color="white" if filled else INK, family="monospace")  # fmt: skip
        axes.text(-0.5, row, format.name, ha="right", va="center", fontsize=10, weight="bold")
        axes.text(widest + 0.6, row, f"{number:.9g}", va="center", fontsize=9.5, family="monospace")
    legend = (("sign", SIGN, 0.0), ("exponent", EXPONENT, 2.2), ("mantissa", MANTISSA, 6.2))
    for word, colour, x in legend:
        axes.text(x, -0.95, word, color=colour, fontsize=9.5, weight="bold")
    axes.text(widest + 0.6, -0.95, "is the number", fontsize=9.5, color=GREY)
    axes.set(xlim=(-4.6, widest + 7.5), ylim=(len(formats) - 0.4, -1.4))
    axes.axis("off")
    axes.set_title(f"{value!r} in {len(formats)} formats")


def _powers(axes: Axes, low: float, high: float, every: int) -> None:
    """Label an axis of powers of two."""
    ticks = range(math.ceil(low / every) * every, math.floor(high) + 1, every)
    axes.set_xticks(list(ticks), [f"$2^{{{tick}}}$" for tick in ticks])


def ranges(formats: Sequence[Format], *, axes: Axes | None = None) -> None:
    """Draw from where to where each format reaches; pale where digits are missing."""
    axes = axes or plt.subplots(figsize=(9.5, 0.42 * len(formats) + 1.2))[1]
    for row, format in enumerate(formats):
        borders = [math.log2(x) for x in (format.min_subnormal, format.min_normal, format.max)]
        axes.barh(row, borders[1] - borders[0], left=borders[0], height=0.55, color=BLUE, alpha=0.3)
        axes.barh(row, borders[2] - borders[1], left=borders[1], height=0.55, color=BLUE)
        label = f"{format.mantissa_bits + 1} binary digits, up to {format.max:.3g}"
        axes.text(max(borders[2], 0) + 3, row, label, va="center", fontsize=9)
    axes.set_yticks(range(len(formats)), [format.name for format in formats])
    axes.invert_yaxis()
    axes.set_xlim(-153, 205)
    _powers(axes, -150, 128, 25)
    axes.grid(axis="y", visible=False)
    axes.set(
        xlabel="size of a number", title="Reach: pale are subnormal numbers, with fewer digits"
    )


def spacings(
    formats: Sequence[Format], low: float = -30, high: float = 20, *, axes: Axes | None = None
) -> None:
    """Draw the distance to the next number against the size of a number, both as powers of two."""
    axes = axes or plt.subplots(figsize=(8, 4.2))[1]
    sizes = torch.exp2(torch.linspace(low, high, 1500, dtype=torch.float64))
    for format, colour in zip(formats, COLOURS, strict=False):
        inside = sizes[(sizes <= format.max) & (sizes >= format.min_subnormal)]
        gap = spacing(inside, format)
        axes.plot(
            inside.log2(), gap.log2(), color=colour, label=format.name, drawstyle="steps-post"
        )
    axes.plot([low, high], [low, high], color=GREY, ls=":", lw=1)
    axes.annotate("as large as the number itself", (low + 2, low + 2), xytext=(-6, 10),
                  textcoords="offset points", fontsize=8, color=GREY)  # fmt: skip
    _powers(axes, low, high, 10)
    ticks = list(range(-50, 21, 10))
    axes.set_yticks(ticks, [f"$2^{{{tick}}}$" for tick in ticks])
    axes.set(xlabel="a number", ylabel="distance to the next one")
    axes.set_title("Spacing doubles with the size; below the smallest normal number it stays")
    axes.legend(loc="lower right")


def exponent_histograms(
    series: Mapping[str, Float[Tensor, "values"]], formats: Sequence[Format], *, title: str = ""
) -> None:
    """Draw how large values are (by powers of two), above the reach of formats.

    Args:
        series: by name, values of either sign; zeros are left out, and counted in the label.
    """
    size = (9.5, 1.35 * len(series) + 0.3 * len(formats) + 1.0)
    heights = [4.0] * len(series) + [1.1 * len(formats)]
    grid = plt.subplots(
        len(heights), 1, figsize=size, sharex=True, gridspec_kw={"height_ratios": heights}
    )[1]
    low, high = -45, 20
    for axes, (name, values), colour in zip(grid, series.items(), COLOURS, strict=False):
        present = values[values != 0].abs().double()
        powers = present.log2().floor().clamp(low, high)
        counts = torch.bincount((powers - low).long(), minlength=high - low + 1).double()
        shares = 100 * counts / max(1, len(present))
        axes.bar(np.arange(low, high + 1) + 0.5, shares, width=0.9, color=colour)
        zero = 1 - len(present) / values.numel()
        note = f"{name}\n{values.numel():,} values" + (
            f", {zero:.0%} of them 0" if zero > 0.005 else ""
        )
        axes.text(0.995, 0.94, note, transform=axes.transAxes, ha="right", va="top", fontsize=9)
        axes.set_ylabel("%")
        axes.grid(axis="x", visible=False)
    below = grid[-1]
    for row, format in enumerate(formats):
        tiny, least, most = (
            math.log2(x) for x in (format.min_subnormal, format.min_normal, format.max)
        )
        below.barh(row, least - tiny, left=tiny, height=0.6, color=GREY, alpha=0.35)
        below.barh(row, min(most, high + 1) - max(least, low), left=max(least, low), height=0.6,
                   color=GREY)  # fmt: skip
    below.set_yticks(range(len(formats)), [format.name for format in formats])
    below.invert_yaxis()
    below.grid(axis="y", visible=False)
    below.set(xlim=(low, high + 1), xlabel="size of the values")
    _powers(below, low, high, 5)
    grid[0].set_title(title)


def fates(
    shares: Mapping[str, Sequence[float]], *, title: str = "", axes: Axes | None = None
) -> None:
    """Draw what becomes of values: one bar each, of lost, subnormal, normal and overflow."""
    axes = axes or plt.subplots(figsize=(9, 0.36 * len(shares) + 1.3))[1]
    left = np.zeros(len(shares))
    names = ("lost: 0", "subnormal: fewer digits", "normal", "overflow")
    for fate, (name, colour) in enumerate(zip(names, (INK, ORANGE, GREEN, RED), strict=True)):
        widths = np.array([100 * share[fate] for share in shares.values()])
        axes.barh(range(len(shares)), widths, left=left, color=colour, height=0.66, label=name)
        for row, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width >= 6:
                axes.text(start + width / 2, row, f"{width:.0f}", ha="center", va="center",
                          color="white", fontsize=8)  # fmt: skip
        left += widths
    axes.set_yticks(range(len(shares)), list(shares))
    axes.set_ylim(len(shares) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set(xlim=(0, 100), xlabel="share of the values that are not 0 (%)")
    axes.set_title(title, pad=24)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, borderaxespad=0.1)


def scale_trace(
    factors: Sequence[float],
    took: Sequence[bool],
    loss: Sequence[float],
    *,
    title: str = "",
) -> None:
    """Draw a loss scaler's factor over the steps, the steps left out, and the loss."""
    left, right = plt.subplots(1, 2, figsize=(10.5, 3.2))[1]
    steps = range(1, len(factors) + 1)
    left.step(steps, factors, where="mid", color=BLUE)
    missed = [step for step, stepped in zip(steps, took, strict=True) if not stepped]
    left.plot(missed, [factors[step - 1] for step in missed], "x", color=RED, ms=7,
              label=f"{len(missed)} steps left out")  # fmt: skip
    left.set_yscale("log", base=2)
    left.set(xlabel="step", ylabel="factor on the loss", title=title)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend()
    right.plot(steps, loss, color=BLUE)
    right.set(xlabel="step", ylabel="loss (nats)", title="The loss meanwhile")


# --- the hospital -----------------------------------------------------------------------------


def ward(patients: Mapping[str, Mapping[str, Sequence[float]]], *, heading: str = "") -> None:
    """Draw the metrics of runs, a row for each: loss, gradient norm, learning rate, loss scale.

    Args:
        patients: by name, the metrics of `lab.hospital`. What is not finite has no line; red
            crosses at the top mark it.
    """
    titles = ("loss: training (line), held out (●)", "gradient norm", "learning rate", "loss scale")
    height = 1.35 * len(patients) + 0.9
    figure, grid = plt.subplots(
        len(patients), 4, figsize=(11.5, height), squeeze=False, sharex=True, layout="none",
        gridspec_kw={"width_ratios": [1.6, 1, 1, 1]},
    )  # fmt: skip
    figure.subplots_adjust(
        left=0.1, right=0.99, top=1 - 0.6 / height, bottom=0.45 / height, wspace=0.28, hspace=0.28
    )
    for row, (name, metrics) in zip(grid, patients.items(), strict=True):
        steps = np.arange(1, len(metrics["loss"]) + 1)
        _finite_line(row[0], steps, metrics["loss"])
        row[0].plot(metrics["eval_step"], metrics["val_loss"], "o", ms=4, color=ORANGE)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9.5, weight="bold")
        _finite_line(row[1], steps, metrics["grad_norm"])
        row[1].set_yscale("log")
        for axes, low, high in ((row[0], 1.4, 5.0), (row[1], 0.3, 3.0)):
            bottom, top = axes.get_ylim()  # what hardly moves is to look as if it hardly moves
            axes.set_ylim(min(bottom, low), max(top, high))
        plain_log_labels(row[1].yaxis)
        row[2].plot(steps, metrics["lr"], color=BLUE)
        row[2].ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
        row[2].set_ylim(0, 1.15 * max(metrics["lr"]))
        if "loss_scale" in metrics:
            row[3].step(steps, metrics["loss_scale"], where="mid", color=BLUE)
            row[3].set_yscale("log", base=2)
            bottom, top = row[3].get_ylim()
            row[3].set_ylim(min(bottom, 2.0**-18), max(top, 2.0**24))
        else:
            row[3].text(0.5, 0.5, "fp32: none", transform=row[3].transAxes, ha="center", color=GREY)
            row[3].set_yticks([])
        for axes in row:
            axes.tick_params(labelsize=7.5)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9.5)
    for axes in grid[-1]:
        axes.set_xlabel("step", fontsize=9)
    if heading:
        figure.suptitle(heading, fontsize=11, fontweight="bold", color=INK, x=0.1, ha="left",
                        y=1 - 0.12 / height)  # fmt: skip


def _finite_line(axes: Axes, steps: np.ndarray, values: Sequence[float]) -> None:
    numbers = np.array(values, dtype=float)
    good = np.isfinite(numbers) & (numbers > 0)
    axes.plot(steps, np.where(good, numbers, np.nan), color=BLUE, lw=1.3)
    broken = steps[~np.isfinite(numbers)]
    axes.plot(broken, np.full(len(broken), 0.96), "x", color=RED, ms=4,
              transform=axes.get_xaxis_transform(), clip_on=False)  # fmt: skip


def techniques(
    names: Sequence[str], milliseconds: Sequence[float], megabytes: Sequence[float], *, title: str
) -> None:
    """Draw what a training step takes, by technique: time on the left, memory on the right."""
    size = (10.5, 0.42 * len(names) + 1.1)
    left, right = plt.subplots(1, 2, figsize=size, sharey=True)[1]
    for axes, values, unit, colour in (
        (left, milliseconds, "ms", BLUE), (right, megabytes, "MB", ORANGE),
    ):  # fmt: skip
        bars = axes.barh(range(len(names)), values, color=colour, height=0.62)
        labels = [f"{v:,.0f} {unit}   × {v / values[0]:.2f}" for v in values]
        axes.bar_label(bars, labels, fontsize=8.5, padding=3)
        axes.set_xlim(0, 1.38 * max(values))
        axes.grid(axis="y", visible=False)
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set(xlabel="time of a step (ms)", title=title)
    right.set(xlabel="peak memory of a step (MB)", title="… and memory")
