"""Drawings of quantization: levels over a histogram, what shares a scale, error against bits.

Like `plots`, whose style they share, these functions draw with pyplot and return nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from torch import Tensor

from course_utils.pictures.plots import AMOUNT, BLUE, COLOURS, GREY, INK, ORANGE, PALE, RED


def levels_over(
    x: Float[Tensor, "n"],
    levels: Mapping[str, Sequence[float]],
    *,
    title: str,
    xlabel: str,
    bins: int = 120,
    size: tuple[float, float] = (8.5, 3.2),
    axes: Axes | None = None,
) -> None:
    """Draw how numbers are distributed, and below it which of them can be written down.

    Args:
        levels: by name, the numbers that a data type has.
    """
    axes = axes or plt.subplots(figsize=size)[1]
    values = x.detach().float().flatten().numpy()
    heights, edges = np.histogram(values, bins=bins, density=True)
    axes.fill_between(edges[:-1], heights, step="post", color=PALE, edgecolor=GREY, lw=0.8)
    highest, row = heights.max(), 0.13 * heights.max()
    far = values[np.abs(values - values.mean()) > 5 * values.std()]
    rare = far[np.argsort(np.abs(far))[-60:]]  # too few for the histogram to show them
    axes.plot(rare, np.zeros_like(rare), "|", color=INK, ms=7, mew=0.8)
    for number, (name, points) in enumerate(levels.items(), start=1):
        colour = COLOURS[(number - 1) % len(COLOURS)]
        axes.vlines(points, -(number + 0.38) * row, -(number - 0.38) * row, color=colour, lw=1.4)
        axes.annotate(
            f"{name}  ", (0, -number * row), xycoords=axes.get_yaxis_transform(),
            ha="right", va="center", fontsize=9, color=colour, weight="bold",
        )  # fmt: skip
    axes.set(ylim=(-(len(levels) + 0.7) * row, 1.06 * highest), yticks=[], xlabel=xlabel)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.set_title(title)


def magnitudes(
    weight: Float[Tensor, "out inputs"],
    group: int,
    *,
    title: str,
    shown: tuple[int, int] = (64, 96),
) -> None:
    """Draw a piece of a matrix, and beside it the scale of each of its rows and of its groups."""
    piece = weight.detach().float()[: shown[0], : shown[1]].abs()
    by_group = piece.unflatten(1, (-1, group)).amax(-1)
    by_row = weight.detach().float()[: shown[0]].abs().amax(1, keepdim=True)
    limit = by_row.max().item()
    widths = [shown[1], shown[1] / 2, shown[1] / 12]
    figure, panels = plt.subplots(1, 3, figsize=(10.5, 3.9), width_ratios=widths, sharey=True)
    for axes, image, name in zip(
        panels,
        (piece, by_group, by_row),
        ("magnitudes", f"largest of every {group} inputs", "of the row"),
        strict=True,
    ):
        axes.imshow(image, cmap=AMOUNT, norm=PowerNorm(0.5, 0, limit), aspect="auto")
        axes.set_title(name, fontsize=9, fontweight="normal")
        axes.grid(False)
        axes.set_xticks([])
    panels[0].set(xlabel="inputs", ylabel="outputs")
    figure.suptitle(title, fontsize=11, fontweight="bold", color=INK)


def error_curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    xlabel: str = "bits for each weight, scales included",
    marks: Mapping[str, tuple[float, float]] | None = None,
    axes: Axes | None = None,
) -> None:
    """Draw signal to noise in decibels against bits; `marks` are single points with a name."""
    axes = axes or plt.subplots(figsize=(7.4, 4))[1]
    for name, (bits, reached) in series.items():
        axes.plot(bits, reached, "o-", ms=4, label=name)
    for name, (x, y) in (marks or {}).items():
        axes.plot(x, y, "D", color=RED, ms=7, zorder=5)
        axes.annotate(name, (x, y), xytext=(9, -11), textcoords="offset points", color=RED,
                      fontsize=9, weight="bold")  # fmt: skip
    axes.set(title=title, xlabel=xlabel, ylabel="signal to noise (dB)")
    axes.legend()


def limit_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    chosen: Mapping[str, tuple[float, float]],
    *,
    title: str,
    axes: Axes | None = None,
) -> None:
    """Draw the error against the limit beyond which numbers are clipped, and the best of each."""
    axes = axes or plt.subplots(figsize=(7.4, 3.6))[1]
    for (name, (limits, errors)), colour in zip(curves.items(), COLOURS, strict=False):
        axes.plot(limits, errors, color=colour, label=name)
        x, y = chosen[name]
        axes.plot(x, y, "o", ms=8, color=colour)
        axes.annotate(f"{x:.3g}", (x, y), xytext=(0, -14), textcoords="offset points",
                      ha="center", fontsize=8, color=colour)  # fmt: skip
    axes.margins(y=0.13)
    axes.set(title=title, xlabel="limit: what is larger is clipped", ylabel="mean squared error",
             yscale="log")  # fmt: skip
    axes.legend()


def use_of_levels(shares: Mapping[str, Float[Tensor, "levels"]], *, title: str) -> None:
    """Draw how often each level of a data type is used, in percent, one panel for each type."""
    size = (4.6 * len(shares), 2.7)
    figure, panels = plt.subplots(1, len(shares), figsize=size, sharey=True, squeeze=False)
    for axes, (name, share), colour in zip(panels[0], shares.items(), COLOURS, strict=False):
        axes.bar(range(len(share)), 100 * share.numpy(), color=colour, width=0.8)
        axes.axhline(100 / len(share), color=INK, ls="--", lw=1)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("level")
        axes.grid(axis="x", visible=False)
    panels[0, 0].set_ylabel("share of the weights (%)")
    figure.suptitle(title, fontsize=11, fontweight="bold", color=INK)


def scheme_bars(
    table: Mapping[str, tuple[float, float, float]], *, baseline: str, limit: float = 3.0
) -> None:
    """Draw size, perplexity and speed of a model for each way of storing it.

    Args:
        table: by scheme, megabytes, perplexity and tokens per second.
        baseline: the scheme that the others are compared with; a line.
        limit: perplexities above so many times the baseline's are cut off, and marked.
    """
    names, place = list(table), np.arange(len(table))
    panels = plt.subplots(1, 3, figsize=(11.5, 0.34 * len(table) + 1.2), sharey=True)[1]
    labels = ("megabytes", "perplexity (less is better)", "tokens per second")
    for column, (axes, label) in enumerate(zip(panels, labels, strict=True)):
        values = [row[column] for row in table.values()]
        reference = table[baseline][column]
        most = limit * reference if column == 1 else max(values)
        colours = [GREY if name == baseline else (BLUE, ORANGE, BLUE)[column] for name in names]
        bars = axes.barh(place, [min(value, most) for value in values], color=colours, height=0.65)
        texts = [f"{v:,.3g}" if v < 1000 else f"{v:,.0f}" for v in values]
        texts = [text + " ▸" * (v > most) for text, v in zip(texts, values, strict=True)]
        axes.bar_label(bars, texts, fontsize=8, padding=3)
        axes.axvline(reference, color=INK, ls="--", lw=1)
        axes.set(xlabel=label, xlim=(0, 1.25 * min(most, max(values))))
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(place, names, family="monospace")
    panels[0].invert_yaxis()


def nibbles(row: Sequence[int], packed: Sequence[int], *, title: str) -> None:
    """Draw how 4-bit numbers (stored with 8 added) lie in bytes, two to each."""
    axes = plt.subplots(figsize=(1.05 * len(row) + 0.6, 1.9))[1]
    middle: dict[str, Any] = {"ha": "center", "va": "center"}
    for index, value in enumerate(row):
        colour = (BLUE, ORANGE)[index % 2]
        axes.text(index + 0.5, 2.5, f"{value:+d}", color=colour, fontsize=12, **middle)
        axes.text(index + 0.5, 1.75, f"{value + 8:04b}", color=colour, family="monospace",
                  fontsize=10, **middle)  # fmt: skip
    for number, byte in enumerate(packed):
        frame = plt.Rectangle((2 * number + 0.15, 0.25), 1.7, 0.9, fc=PALE, ec=GREY)
        axes.add_patch(frame)
        for half, (bits, colour) in enumerate(((byte >> 4, ORANGE), (byte & 15, BLUE))):
            axes.text(2 * number + 0.6 + 0.8 * half, 0.7, f"{bits:04b}", color=colour,
                      family="monospace", fontsize=11, weight="bold", **middle)  # fmt: skip
    axes.set(xlim=(-1.2, len(row)), ylim=(0, 3))
    for y, word in ((2.5, "weights"), (1.75, "+ 8, in bits"), (0.7, "bytes")):
        axes.text(-0.1, y, word, ha="right", va="center", fontsize=9, color=GREY)
    axes.axis("off")
    axes.set_title(title)


def as_numbers(levels: Tensor, scale: float = 1.0) -> list[float]:
    """Levels as floats, for `levels_over`."""
    return torch.as_tensor(levels).mul(scale).tolist()
