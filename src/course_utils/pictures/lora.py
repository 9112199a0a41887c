"""Pictures of LoRA: low-rank matrices, singular values, ranks, memory, learning and forgetting."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import Tensor

from course_utils.pictures.plots import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    SIGNED,
    bare,
    smooth,
)


def thin_matrices(width: int, rank: int) -> None:
    """A frozen square matrix and the two thin ones beside it, drawn to scale."""
    _, axes = plt.subplots(figsize=(8.5, 3.1))
    thin = max(rank / width, 0.012)
    axes.add_patch(Rectangle((0, 0), 1, 1, facecolor=PALE, edgecolor=GREY))
    axes.text(0.5, 0.55, "weight", ha="center", fontsize=12, color=INK)
    axes.text(0.5, 0.4, f"{width} × {width}\nfrozen", ha="center", va="center", color=GREY)
    axes.text(1.22, 0.5, "+", ha="center", va="center", fontsize=22)
    axes.text(1.42, 0.5, "scale ·", ha="center", va="center", fontsize=12)
    axes.add_patch(Rectangle((1.62, 0), thin, 1, color=BLUE))
    axes.text(1.62 + thin / 2, 1.04, f"up\n{width} × {rank}", ha="center", va="bottom", color=BLUE)
    axes.text(1.62 + thin + 0.12, 0.5, "·", ha="center", va="center", fontsize=22)
    left = 1.62 + thin + 0.24
    axes.add_patch(Rectangle((left, 0.5 - thin / 2), 1, thin, color=GREEN))
    axes.text(
        left + 0.5, 0.55 + thin / 2, f"down\n{rank} × {width}", ha="center", va="bottom",
        color=GREEN,
    )  # fmt: skip
    share = 2 * rank / width
    axes.text(
        left + 0.5, 0.36 - thin / 2, f"together {share:.1%} of the numbers", ha="center", color=INK
    )
    axes.set(xlim=(-0.05, left + 1.1), ylim=(-0.08, 1.3), aspect="equal")
    bare(axes)


def low_rank_views(
    matrix: Float[Tensor, "rows columns"], views: Mapping[str, Float[Tensor, "rows columns"]]
) -> None:
    """A matrix and others beside it, on one scale of colours."""
    shown = {"the whole update": matrix, **views}
    _, grid = plt.subplots(1, len(shown), figsize=(2.5 * len(shown), 2.9))
    limit = float(matrix.abs().quantile(0.995))
    for axes, (title, values) in zip(grid, shown.items(), strict=True):
        axes.imshow(values.numpy(), cmap=SIGNED, vmin=-limit, vmax=limit)
        bare(axes, title)


def energy_by_rank(cases: Mapping[str, Sequence[Float[Tensor, "values"]]]) -> None:
    """How much of a matrix its strongest directions hold: the mean over matrices, and the range.

    Args:
        cases: by name, the singular values of some matrices.
    """
    _, axes = plt.subplots(figsize=(7.5, 3.6))
    for (name, spectra), colour in zip(cases.items(), (BLUE, GREY, ORANGE), strict=False):
        shares = np.array(
            [100 * (s.square().cumsum(0) / s.square().sum()).numpy() for s in spectra]
        )
        ranks = np.arange(1, shares.shape[1] + 1)
        axes.plot(ranks, shares.mean(0), color=colour, label=name)
        axes.fill_between(ranks, shares.min(0), shares.max(0), color=colour, alpha=0.15, lw=0)
    axes.set(
        title="A few directions hold far more than their share of an update",
        xlabel="directions kept (rank)",
        ylabel="% of the squared size",
        ylim=(0, 102),
    )
    axes.set_xscale("log", base=2)
    ticks = [2**i for i in range(int(np.log2(shares.shape[1])) + 1)]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.legend(loc="lower right")


def loss_by_rank(
    curves: Mapping[str, Mapping[int, float]], lines: Mapping[str, float], title: str
) -> None:
    """Held-out loss against the rank.

    Args:
        curves: by name, the loss at each rank.
        lines: losses that have no rank, such as before training.
    """
    _, axes = plt.subplots(figsize=(7.5, 3.6))
    for (name, losses), colour in zip(curves.items(), COLOURS, strict=False):
        axes.plot(list(losses), list(losses.values()), "o-", ms=4, color=colour, label=name)
    for (name, loss), style in zip(lines.items(), ("--", ":"), strict=False):
        axes.axhline(loss, color=GREY, ls=style, lw=1.2, label=name)
    ranks = sorted({rank for losses in curves.values() for rank in losses})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(rank) for rank in ranks])
    axes.minorticks_off()
    axes.set(title=title, xlabel="rank", ylabel="held-out loss (nats)")
    axes.legend()


def memory_bars(cases: Mapping[str, Mapping[str, float]], unit: str = "MB") -> None:
    """What training keeps in memory, stacked by kind, one bar for each way to train."""
    _, axes = plt.subplots(figsize=(8.5, 0.55 * len(cases) + 1.3))
    kinds = list(next(iter(cases.values())))
    left = [0.0] * len(cases)
    for kind, colour in zip(kinds, (GREY, ORANGE, BLUE), strict=False):
        sizes = [parts[kind] for parts in cases.values()]
        axes.barh(list(cases), sizes, left=left, color=colour, label=kind, height=0.6)
        left = [a + b for a, b in zip(left, sizes, strict=True)]
    for row, total in enumerate(left):
        axes.text(total, row, f"  {total:,.1f}", va="center")
    axes.set(title="Kept in memory while training", xlabel=unit, xlim=(0, 1.14 * max(left)))
    axes.invert_yaxis()
    axes.legend(loc="lower right")


def learned_and_forgotten(
    start: tuple[float, float], ends: Mapping[str, tuple[float, float]], old: str, new: str
) -> None:
    """Where each way of training leads: loss on the new text against loss on the old one."""
    _, axes = plt.subplots(figsize=(6.8, 4.2))
    axes.plot(*start, "o", ms=9, color=INK)
    axes.annotate("before", start, xytext=(8, 4), textcoords="offset points")
    for (name, end), colour in zip(ends.items(), COLOURS, strict=False):
        axes.add_patch(
            FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=colour, lw=1.6)
        )
        axes.plot(*end, "o", ms=7, color=colour, label=name)
    points = np.array([start, *ends.values()])
    low, high = points.min(0), points.max(0)
    pad = 0.12 * (high - low) + 0.01
    axes.set(
        title="Down is learned, right is forgotten",
        xlabel=f"loss on {old} (nats)",
        ylabel=f"loss on {new} (nats)",
        xlim=(low[0] - pad[0], high[0] + pad[0]),
        ylim=(low[1] - pad[1], high[1] + pad[1]),
    )
    axes.legend()


def adapter_run(
    before: Mapping[str, float], rows: Sequence[Mapping[str, float]], shares: Mapping[str, str]
) -> None:
    """A run's loss, and what it changed.

    Args:
        before, rows: measured before the first step, and the lines of metrics.jsonl.
        shares: names of measured numbers, and how to call them; numbers up to 1 are shares.
    """
    after = {name: value for row in rows for name, value in row.items()}
    _, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.2), width_ratios=(2, 3))
    steps = [row["step"] for row in rows]
    left.plot(steps, [row["loss"] for row in rows], color=GREY, lw=0.8)
    left.plot(steps, smooth([row["loss"] for row in rows], 5), color=BLUE)
    left.set(title="Loss of a token", xlabel="step", ylabel="nats", ylim=(0, None))
    places = np.arange(len(shares))
    for offset, measured, colour, label in (
        (-0.19, before, GREY, "before"),
        (0.19, after, GREEN, "after"),
    ):
        heights = [_percent(name, measured[name]) for name in shares]
        drawn = right.bar(places + offset, heights, 0.36, color=colour, label=label)
        right.bar_label(drawn, [f"{height:.1f}" for height in heights])
    right.set_xticks(places, list(shares.values()))
    right.set(title="Held out, before and after", ylabel="%", ylim=(0, 112))
    right.grid(axis="x", visible=False)
    right.legend(loc="upper left")


def _percent(name: str, value: float) -> float:
    return value if name.endswith("percent") else 100 * value
