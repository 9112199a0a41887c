"""Drawings of how text is written: what a sampler leaves, rounds of speculation, the roofline.

Like `plots`, whose style they share, these functions draw with pyplot and return nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from course_utils.generation.cost import Machine
from course_utils.pictures.plots import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    RED,
    plain_log_labels,
)


def readable(token: str) -> str:
    """A token as a label: its blanks and line ends visible, a dot for what cannot be drawn."""
    visible = token.replace(" ", "␣").replace("\n", "⏎")
    return "".join(c if c.isprintable() and c != "\ufffd" else "·" for c in visible)


def probability_bars(
    before: Float[Tensor, "vocab"],
    samplers: Mapping[str, Float[Tensor, "vocab"]],
    names: Sequence[str],
    *,
    shown: int = 14,
    columns: int = 4,
    heading: str = "",
) -> None:
    """Draw the likeliest tokens' probabilities, in one panel for each sampler.

    Args:
        before: the model's own probabilities; grey.
        samplers: by name, the probabilities that are left to draw from; blue.
        names: how each token is written.
    """
    order = before.argsort(descending=True)[:shown]
    labels = [names[token] for token in order.tolist()]
    widest = max(before.max().item(), *(after.max().item() for after in samplers.values()))
    rows = -(-len(samplers) // columns)
    columns = min(columns, len(samplers))
    width = 2.75 * columns if columns > 1 else 5.5
    size = (width + 0.4, (0.2 * shown + 0.75) * rows + (0.3 if heading else 0))
    figure, grid = plt.subplots(
        rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True
    )
    for axes in grid.flat[len(samplers) :]:
        axes.set_visible(False)
    place = np.arange(len(order))
    for axes, (name, after) in zip(grid.flat, samplers.items(), strict=False):
        left = int((after > 0).sum())
        axes.barh(place, before[order], color=PALE, edgecolor=GREY, lw=0.6, height=0.8)
        axes.barh(place, after[order], color=BLUE, height=0.45)
        axes.set_title(f"{name}\n{left:,} of {len(after):,} tokens left", fontsize=9)
        axes.set_yticks(place, labels, family="monospace", fontsize=8)
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, 1.04 * widest)
    grid[0, 0].invert_yaxis()
    for axes in grid[-1]:
        axes.set_xlabel("probability")
    if heading:
        figure.suptitle(heading, fontsize=11, fontweight="bold", color=INK)


@dataclass(frozen=True)
class Round:
    """One round of speculation: what the draft guessed, how much of it was kept, what was added."""

    guesses: Sequence[str]
    kept: int
    added: str


def rounds(played: Sequence[Round], title: str) -> None:
    """Draw rounds of speculation, a line each: what was kept, added and rejected."""
    widest = max(sum(len(word) + 1.6 for word in (*r.guesses, r.added)) for r in played)
    axes = plt.subplots(figsize=(max(5.0, 0.115 * widest), 0.34 * len(played) + 0.9))[1]
    for row, turn in enumerate(played):
        pieces = [(word, GREEN, "#dff0e6") for word in turn.guesses[: turn.kept]]
        pieces.append((turn.added, BLUE, "#dbe7f5"))
        pieces += [(word, RED, "white") for word in turn.guesses[turn.kept :]]
        x = 0.0
        for word, colour, fill in pieces:
            width = len(word) + 1.6  # in characters
            box = {"boxstyle": "round,pad=0.2", "fc": fill, "ec": colour, "lw": 0.8}
            strength = 0.55 if colour == RED else 1.0
            middle: dict[str, Any] = {"ha": "center", "va": "center", "family": "monospace"}
            axes.text(x + width / 2, row, word, fontsize=9.5, color=colour, bbox=box,
                      alpha=strength, **middle)  # fmt: skip
            x += width
    axes.set(xlim=(-0.5, max(widest, 5.0 / 0.115)), ylim=(len(played) - 0.4, -1.2))
    axes.axis("off")
    for x, word, colour in ((0, "guess, kept", GREEN), (11, "the large model's own", BLUE),
                            (30, "guess, rejected", RED)):  # fmt: skip
        axes.text(x, -0.95, word, color=colour, fontsize=9, weight="bold")
    axes.set_title(title)


def settings_table(table: Mapping[str, tuple[float, float]], human: float) -> None:
    """Draw what settings do to text: how surprising it is to the model, and how much repeats.

    Args:
        table: by the setting's name, nats per token, and repeated runs in percent.
        human: nats per token of text that people wrote.
    """
    size = (9.5, 0.33 * len(table) + 1.1)
    left, right = plt.subplots(1, 2, figsize=size, sharey=True)[1]
    names, place = list(table), np.arange(len(table))
    surprises, shares = zip(*table.values(), strict=True)
    left.hlines(place, human, surprises, color=PALE, lw=4)
    left.plot(surprises, place, "o", ms=7)
    left.axvline(human, color=ORANGE, ls="--", lw=1.4)
    left.set_title("How surprised the model is by its text")
    left.annotate(" people", (human, 0.98), xycoords=left.get_xaxis_transform(), color=ORANGE,
                  va="top", fontsize=9)  # fmt: skip
    left.set(xlabel="nats per token")
    left.set_yticks(place, names)
    left.invert_yaxis()
    bars = right.barh(place, shares, height=0.6)
    right.bar_label(bars, [f"{share:.0f} %" for share in shares], fontsize=8, padding=3)
    right.set(xlabel="runs of three tokens that occurred before (%)", xlim=(0, 108))
    right.set_title("How much of it repeats")
    for axes in (left, right):
        axes.grid(axis="y", visible=False)


def roofline(
    machine: Machine,
    points: Mapping[str, tuple[float, float]],
    title: str,
    *,
    axes: Axes | None = None,
) -> None:
    """Draw what a machine can compute against operations per byte, and what was measured.

    Args:
        points: by name, operations for each byte that is read, and operations per second reached.
    """
    axes = axes or plt.subplots(figsize=(7.2, 3.9))[1]
    lowest = 0.5 * min(intensity for intensity, _ in points.values())
    highest = 4 * max(machine.balance, *(intensity for intensity, _ in points.values()))
    x = np.geomspace(lowest, highest, 200)
    roof = np.minimum(x * machine.bytes_per_s, machine.flops_per_s)
    axes.plot(x, roof / 1e9, color=INK, label="the most this machine can do")
    axes.axvline(machine.balance, color=GREY, ls=":", lw=1.2)
    axes.annotate(
        " memory is the limit ◄ ► arithmetic is the limit",
        (machine.balance, 1.02),
        xycoords=axes.get_xaxis_transform(),
        ha="center",
        fontsize=8,
        color=GREY,
    )
    for number, (name, (intensity, reached)) in enumerate(points.items()):
        colour = (ORANGE, *COLOURS[2:])[number % (len(COLOURS) - 1)]
        axes.plot(intensity, reached / 1e9, "o", ms=8, color=colour)
        axes.annotate(
            name,
            (intensity, reached / 1e9),
            xytext=(7, -9),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
    axes.set(
        xscale="log", yscale="log",
        xlabel="arithmetic operations for each byte read", ylabel="billion operations per second",
    )  # fmt: skip
    axes.set_title(title, pad=18)
    plain_log_labels(axes.yaxis)
    axes.legend(loc="upper left")
