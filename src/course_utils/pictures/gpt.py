"""Drawings of a language model: its parts with their shapes, where its parameters are, how the
numbers on its stream grow.

Like `plots`, whose style they share, these functions draw with pyplot and return nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from course_utils.models.gpt.config import GPTConfig, count_parameters
from course_utils.pictures.plots import BLUE, COLOURS, GREEN, GREY, INK, PALE, plain_log_labels

YOURS = "#dff0e6"  # behind a part that the learner wrote


@dataclass(frozen=True)
class _Part:
    """A box: what it is, what it computes, how many parameters it has, and where it stands."""

    symbol: str
    name: str
    detail: str
    parameters: int
    x: float
    y: float
    width: float
    height: float = 1.25

    @property
    def left(self) -> tuple[float, float]:
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y


def architecture(config: GPTConfig, *, yours: Mapping[str, bool] | None = None) -> None:
    """Draw a model: the stream from left to right, and what reads from it and writes into it.

    Args:
        config: whose shapes and numbers of parameters are written beside the parts.
        yours: for the names of parts ("RMSNorm", "Block", …), whether the learner wrote them; then
            theirs are green. A part that is not named is the library's.
    """
    counts = count_parameters(config)
    attention, mlp = (counts[name] // config.n_layers for name in ("attention", "mlp"))
    d, branch = config.d_model, 2.15
    table = config.vocab * d
    embedding = _Part("Embedding", "Embedding", f"{config.vocab:,} × {d}", table, 1.55, 0, 1.5)
    heads = (
        f"{config.n_heads} query heads\n{config.n_kv_heads} key/value heads\nof {config.head_dim}"
    )
    wide, high = 1.3, 0.8
    parts = (
        embedding,
        _Part("RMSNorm", "RMSNorm", "", d, 4.1, branch, wide, high),
        _Part("GroupedQueryAttention", "Attention", heads, attention, 5.95, branch, 1.8, 1.75),
        _Part("RMSNorm", "RMSNorm", "", d, 8.4, branch, wide, high),
        _Part("SwiGLU", "SwiGLU", f"{d} → {config.d_ff} → {d}", mlp, 10.15, branch, 1.7),
        _Part("RMSNorm", "RMSNorm", "", d, 12.5, 0, wide, high),
        _Part(
            "Linear",
            "Output",
            "the embedding's\ntable again" if config.tied else f"{d} × {config.vocab:,}",
            0 if config.tied else table,
            14.1,
            0,
            1.5,
        ),
    )
    axes = plt.subplots(figsize=(11, 4.3))[1]
    theirs = yours is None
    mine = dict(yours or {})

    block = FancyBboxPatch((3.0, -0.85), 8.35, 4.35, boxstyle="round,pad=0.05,rounding_size=0.2")
    edge = GREEN if mine.get("Block") else GREY
    block.set(facecolor="none", edgecolor=edge, linestyle="--", linewidth=1.4)
    axes.add_patch(block)
    axes.text(3.15, 3.3, f"Block, {config.n_layers} times", color=edge, weight="bold", va="top")

    axes.plot(
        (embedding.right[0], 11.9), (0, 0), color=BLUE, lw=5, solid_capstyle="butt", alpha=0.55
    )
    axes.text(7.2, -0.42, f"the residual stream: batch × seq × {d}", color=BLUE, ha="center")
    for norm, layer, tap, joint in (
        (parts[1], parts[2], 3.25, 7.0),
        (parts[3], parts[4], 7.55, 11.2),
    ):
        _elbow(axes, (tap, 0), norm.left)
        _arrow(axes, norm.right, layer.left)
        _elbow(axes, layer.right, (joint, 0.2), down=True)
        axes.text(joint, 0, "+", fontsize=12, ha="center", va="center", color=BLUE, weight="bold",
                  bbox={"boxstyle": "circle,pad=0.12", "fc": "white", "ec": BLUE})  # fmt: skip
    for part in parts:
        _box(axes, part, mine.get(part.symbol, False))
    _arrow(axes, (0.25, 0), embedding.left)
    _arrow(axes, parts[5].right, parts[6].left)
    _arrow(axes, parts[6].right, (15.4, 0))
    axes.text(0.2, 0, "tokens\nbatch × seq", ha="right", va="center")
    axes.text(15.45, 0, f"logits\nbatch × seq\n× {config.vocab:,}", ha="left", va="center")
    total = f"{sum(counts.values()):,} parameters"
    if not theirs:
        whole = "GPT: yours" if mine.get("GPT") else "GPT: the library's"
        total += f"   ·   {whole}   ·   green: your code, grey: the library's"
    axes.set(xlim=(-1.3, 17.0), ylim=(-1.1, 3.75), aspect="equal")
    axes.axis("off")
    axes.set_title(total)


def _box(axes: Axes, part: _Part, yours: bool) -> None:
    box = FancyBboxPatch(
        (part.x - part.width / 2, part.y - part.height / 2),
        part.width,
        part.height,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=YOURS if yours else PALE,
        edgecolor=GREEN if yours else GREY,
        linewidth=1.3,
        zorder=3,
    )
    axes.add_patch(box)
    centred: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 4}
    up = 0.13 * (part.detail.count("\n") + 1) if part.detail else 0
    axes.text(part.x, part.y + up, part.name, weight="bold", fontsize=9, **centred)
    if part.detail:
        axes.text(part.x, part.y - 0.2, part.detail, fontsize=7.5, **centred)
    if part.parameters:
        under = part.y - part.height / 2 - 0.2
        axes.text(part.x, under, f"{part.parameters:,}", fontsize=8, color=GREY, **centred)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], **style: Any) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=10,
            color=GREY,
            shrinkA=0,
            shrinkB=1,
            **style,
        )
    )


def _elbow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], down: bool = False
) -> None:
    """Up from the stream and to the right, or to the right and down to it."""
    style = "angle,angleA=0,angleB=90,rad=4" if down else "angle,angleA=90,angleB=0,rad=4"
    _arrow(axes, start, end, connectionstyle=style)


def parameter_shares(models: Mapping[str, Mapping[str, int]], title: str) -> None:
    """Draw how the parameters of models are divided among their parts.

    Args:
        models: for each model's name, parameters by part.
    """
    axes = plt.subplots(figsize=(9.5, 0.62 * len(models) + 1.3))[1]
    names = list(models)[::-1]
    for row, name in enumerate(names):
        counts, left = models[name], 0.0
        total = sum(counts.values())
        for number, (part, count) in enumerate(counts.items()):
            share = count / total
            label = part if row == 0 else None
            colour = COLOURS[number]
            axes.barh(row, share, left=left, height=0.62, color=colour, label=label)
            if share > 0.06:
                middle = left + share / 2
                axes.text(middle, row, f"{share:.0%}", ha="center", va="center", color="white")
            left += share
        axes.text(1.01, row, f"{total:,}", va="center", color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlim=(0, 1.0), xticks=[], title=title)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.legend(ncols=4, loc="upper left", bbox_to_anchor=(0, 0.02), handlelength=1)


def first_guesses(models: Mapping[str, Tensor], losses: Sequence[float], certain: float) -> None:
    """Draw how models that have learned nothing distribute their probability, each in a panel.

    Args:
        models: by name, the probabilities of the next token at one position, (vocab).
        losses: of each model, over many positions.
        certain: the loss of somebody who finds all tokens equally likely.
    """
    figure, panels = plt.subplots(1, len(models), figsize=(4.6 * len(models), 3.2), sharey=True)
    for axes, (name, probability), loss in zip(panels, models.items(), losses, strict=True):
        ordered = probability.sort(descending=True).values
        rank = torch.arange(1, len(ordered) + 1)
        axes.plot(rank, ordered, "o-", ms=2.5, lw=1.2)
        axes.axhline(1 / len(ordered), color=GREY, ls="--", lw=1, label="all alike")
        axes.set(xscale="log", yscale="log", xlabel="token, by its probability", ylim=(1e-9, 3))
        axes.set_title(f"{name}: loss {loss:.2f}", fontsize=10)
        axes.legend()
    panels[0].set_ylabel("probability")
    figure.suptitle(
        f"An untrained model's guess for one token (ln of the vocabulary: {certain:.2f})",
        fontsize=11,
        fontweight="bold",
        color=INK,
    )


def stream_sizes(
    series: Mapping[str, Sequence[float]],
    *,
    title: str,
    ylabel: str = "root mean square",
    log: bool = True,
    axes: Axes | None = None,
) -> None:
    """Draw the size of the numbers on the stream after the embedding and after each block."""
    axes = axes or plt.subplots(figsize=(6.5, 3.4))[1]
    for name, sizes in series.items():
        axes.plot(range(len(sizes)), sizes, "o-", ms=3.5, label=name)
    if log:
        axes.set_yscale("log")
        plain_log_labels(axes.yaxis)
    last = max(len(sizes) for sizes in series.values()) - 1
    every = max(1, round(last / 8))
    axes.set_xticks(range(0, last + 1, every))
    axes.set(title=title, xlabel="after block (0: the embedding)", ylabel=ylabel)
    if len(series) > 1:
        axes.legend()
