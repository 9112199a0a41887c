"""Pictures of many processes: who sends what to whom, who waits for whom, who keeps what.

Like `plots`, whose style they share, these functions draw with pyplot and return nothing.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle

from course_utils.parallel.timeline import Kind, Timeline
from course_utils.parallel.watch import Message
from course_utils.pictures.plots import (
    AMOUNT,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    RED,
)

PARTS = {"parameters": BLUE, "gradients": ORANGE, "optimizer": GREEN}
KINDS: dict[Kind, tuple[str, str]] = {
    "compute": (BLUE, "compute"),
    "communicate": (ORANGE, "all-reduces, a lane for each bucket"),
    "wait": (RED, "nothing to do but wait"),
}


# --- messages ---------------------------------------------------------------------------------


def conversations(
    programs: Mapping[str, Sequence[Message]], ranks: int, *, heading: str = ""
) -> None:
    """Draw the messages of programs, a panel each: time to the right, a line for every rank."""
    rounds = [max((m.received for m in messages), default=1) for messages in programs.values()]
    _, panels = plt.subplots(
        1, len(programs), figsize=(1.6 + 0.85 * sum(rounds) + len(rounds), 0.42 * ranks + 1.2),
        squeeze=False, width_ratios=[r + 0.8 for r in rounds],
    )  # fmt: skip
    for axes, (title, messages), last in zip(panels[0], programs.items(), rounds, strict=True):
        for rank in range(ranks):
            axes.plot([0, last], [rank, rank], color=PALE, lw=5, solid_capstyle="round", zorder=0)
        for m in messages:
            arrow = FancyArrowPatch(
                (m.sent, m.sender), (m.received, m.receiver), arrowstyle="-|>", mutation_scale=11,
                color=BLUE, lw=1.4, shrinkA=0, shrinkB=1,
            )  # fmt: skip
            axes.add_patch(arrow)
        axes.set_yticks(range(ranks), [f"rank {rank}" for rank in range(ranks)])
        axes.set_xticks(range(last + 1))
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set(
            xlim=(-0.2, last + 0.25), ylim=(ranks - 0.5, -0.5), xlabel="round",
            title=f"{title}: {last} round{'s' * (last > 1)}",
        )  # fmt: skip
    if heading:
        panels[0][0].figure.suptitle(heading, fontsize=11, fontweight="bold", color=INK)


def ring_grids(messages: Sequence[Message], ranks: int, *, title: str) -> None:
    """Draw how chunks fill up, one panel for the beginning and one after each round.

    Args:
        messages: of a program whose rank r gave the n values 2^(r + n·j), j = 0 … n−1: every sum
            then tells which chunk it belongs to, and whose summands are in it.
    """
    filled = np.array(
        [[1 << (rank + ranks * chunk) for chunk in range(ranks)] for rank in range(ranks)]
    )
    rounds = max(m.received for m in messages)
    _, panels = plt.subplots(
        1, rounds + 1, figsize=(1.55 * (rounds + 1) + 0.6, 2.35), sharey=True, squeeze=False
    )
    for time, axes in enumerate(panels[0]):
        arriving = [m for m in messages if m.received == time]
        fresh = set()
        for m in arriving:
            value = int(m.tensor)
            chunk = (value.bit_length() - 1) // ranks
            filled[m.receiver, chunk] |= value
            fresh.add((m.receiver, chunk))
        for rank, chunk in np.ndindex(ranks, ranks):
            count = int(filled[rank, chunk]).bit_count()
            box = Rectangle((chunk - 0.46, rank - 0.46), 0.92, 0.92, fc=AMOUNT(0.9 * count / ranks),
                            ec=ORANGE if (rank, chunk) in fresh else "white", lw=2)  # fmt: skip
            axes.add_patch(box)
            axes.text(chunk, rank, str(count), ha="center", va="center", fontsize=9,
                      color="white" if count > 0.55 * ranks else INK)  # fmt: skip
        axes.set_aspect("equal")
        axes.set(xlim=(-0.6, ranks - 0.4), ylim=(ranks - 0.4, -0.6))
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_xticks(range(ranks), [str(chunk) for chunk in range(ranks)])
        axes.tick_params(length=0)
        axes.set_title("at first" if time == 0 else f"round {time}", fontsize=9.5, loc="center",
                       fontweight="normal")  # fmt: skip
    panels[0][0].set_yticks(range(ranks), [f"rank {rank}" for rank in range(ranks)])
    panels[0][0].set_xlabel("chunk", fontsize=9)
    panels[0][0].figure.suptitle(title, fontsize=11, fontweight="bold", color=INK)


def traffic(ranks: Sequence[int], ways: Mapping[str, Sequence[float]], *, title: str = "") -> None:
    """Draw what the busiest rank sends, in multiples of the tensor, and the ring's 2(N−1)/N."""
    _, axes = plt.subplots(figsize=(7.5, 3.6))
    exact = np.linspace(min(ranks), max(ranks), 100)
    axes.plot(exact, 2 * (exact - 1) / exact, color=GREY, lw=1, ls="--", label="2(N − 1)/N")
    for (name, values), colour in zip(ways.items(), COLOURS, strict=False):
        axes.plot(ranks, values, "o", color=colour, ms=6, label=name)
    axes.axhline(2, color=GREY, lw=0.8, ls=":")
    axes.set_xticks(list(ranks))
    axes.set(xlabel="ranks N", ylabel="sent by the busiest rank\n(× size of the tensor)",
             ylim=(0, None), title=title)  # fmt: skip
    axes.legend()


# --- time -------------------------------------------------------------------------------------


def timelines(runs: Mapping[str, Sequence[Timeline]], *, heading: str = "") -> None:
    """Draw what ranks did, run below run, on one scale; all-reduces below, in lanes.

    Args:
        runs: by title, the timeline of each rank.
    """
    height = sum(0.95 * len(run) + 0.75 for run in runs.values()) + 0.6
    longest = 1000 * max(t.spans[-1].end - t.spans[0].start for run in runs.values() for t in run)
    _, panels = plt.subplots(
        len(runs), 1, figsize=(10.5, height), sharex=True, squeeze=False,
        height_ratios=[len(run) + 0.4 for run in runs.values()],
    )  # fmt: skip
    for axes, (title, run) in zip(panels[:, 0], runs.items(), strict=True):
        began = min(span.start for timeline in run for span in timeline.spans)
        for rank, timeline in enumerate(run):
            sent = [span for span in timeline.spans if span.kind == "communicate"]
            lanes = {name: lane for lane, name in enumerate(sorted({span.name for span in sent}))}
            for span in timeline.spans:
                left, width = 1000 * (span.start - began), 1000 * (span.end - span.start)
                bottom, thick = rank - 0.42, 0.36
                if span.kind == "communicate":
                    thick = 0.37 / len(lanes)
                    bottom = rank - 0.02 + lanes[span.name] * 0.44 / len(lanes)
                axes.broken_barh(
                    [(left, width)], (bottom, thick), facecolor=KINDS[span.kind][0], alpha=0.9
                )
                if span.kind != "communicate" and width > 0.06 * longest:
                    axes.text(left + width / 2, rank - 0.24, span.name, ha="center", va="center",
                              color="white", fontsize=8)  # fmt: skip
        axes.set_yticks(range(len(run)), [f"rank {rank}" for rank in range(len(run))])
        axes.set_ylim(len(run) - 0.5, -0.55)
        axes.grid(axis="y", visible=False)
        axes.set_title(title, fontsize=10)
    panels[-1, 0].set_xlabel("milliseconds")
    legend = [Patch(color=colour, label=label) for colour, label in KINDS.values()]
    panels[0, 0].legend(handles=legend, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    if heading:
        panels[0, 0].figure.suptitle(heading, fontsize=11, fontweight="bold", color=INK)


def equal_traces(
    traces: Mapping[str, Sequence[float]], *, title: str, tolerance: float | None = None
) -> None:
    """Draw loss traces that should be one, and how far each is from the first."""
    _, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.4))
    first = np.array(next(iter(traces.values())))
    steps = np.arange(1, len(first) + 1)
    for index, (name, trace) in enumerate(traces.items()):
        colour = COLOURS[index % len(COLOURS)]
        # Wide below narrow, so that lines on top of each other can all be seen.
        left.plot(steps, trace, color=colour, lw=2 + 1.6 * (len(traces) - index), alpha=0.75,
                  label=name, solid_capstyle="butt")  # fmt: skip
        if index:
            apart = np.maximum(np.abs(np.array(trace) - first), 1e-9)
            right.plot(steps, apart, "o-", ms=3, lw=1, color=colour, label=name)
    if tolerance:
        right.axhline(tolerance, color=RED, ls="--", lw=1)
        right.annotate(f"tolerance {tolerance:g}", (steps[0], tolerance), xytext=(0, 4),
                       textcoords="offset points", color=RED, fontsize=8.5)  # fmt: skip
    right.set_yscale("log")
    right.set_ylim(5e-10, None)
    left.set(xlabel="step", ylabel="loss (nats)", title=title)
    right.set(
        xlabel="step",
        ylabel="apart (at the bottom: equal)",
        title=f"Distance from “{next(iter(traces))}”",
    )
    left.legend()


# --- memory -----------------------------------------------------------------------------------


def who_keeps_what(kept: Mapping[str, Mapping[str, float]], ranks: int) -> None:
    """Draw for each ZeRO stage which part of everything each rank keeps.

    Args:
        kept: by stage, the bytes per rank of parameters, gradients and optimizer states; the first
            stage is the one in which everything is whole.
    """
    whole = next(iter(kept.values()))
    total = sum(whole.values())
    _, panels = plt.subplots(
        1, len(kept), figsize=(2.75 * len(kept), 0.5 * ranks + 1.3), sharey=True
    )
    for axes, (title, bytes_) in zip(panels, kept.items(), strict=True):
        left = 0.0
        for part, colour in PARTS.items():
            width = whole[part] / total
            divided = bytes_[part] < whole[part]
            for rank in range(ranks):
                place = (left, rank - 0.36)
                axes.add_patch(Rectangle(place, width - 0.015, 0.72, fc=colour, alpha=0.13))
                if divided:
                    share = (left + rank * width / ranks, rank - 0.36)
                    axes.add_patch(Rectangle(share, width / ranks - 0.004, 0.72, fc=colour))
                else:
                    axes.add_patch(Rectangle(place, width - 0.015, 0.72, fc=colour))
            left += width
        kept_here = sum(bytes_.values()) / total
        axes.set_title(f"{title}: {kept_here:.0%} of it on each rank", fontsize=9.5)
        axes.set(xlim=(-0.01, 1), ylim=(ranks - 0.5, -0.5), xticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    panels[0].set_yticks(range(ranks), [f"rank {rank}" for rank in range(ranks)])
    names = {"parameters": "parameters", "gradients": "gradients", "optimizer": "optimizer states"}
    legend = [Patch(color=colour, label=names[part]) for part, colour in PARTS.items()]
    panels[0].figure.legend(handles=legend, loc="outside lower center", ncols=3)


def memory_bars(
    predicted: Mapping[str, Mapping[str, float]],
    measured: Mapping[str, Mapping[str, float]] | None = None,
    *,
    title: str,
    limit: tuple[str, float] | None = None,
) -> None:
    """Draw bytes per rank in stacked bars: predicted (pale) beside measured (full).

    Args:
        predicted, measured: by name, the bytes of "parameters", "gradients", "optimizer" and,
            where there are any, "activations".
        limit: a named line, `("80 GB", 80e9)`.
    """
    colours = {**PARTS, "activations": PURPLE}
    largest = max(sum(p.values()) for p in predicted.values())
    scale, unit = (1e9, "GB") if largest >= 1e9 else (1e6, "MB")
    _, axes = plt.subplots(figsize=(1.5 + 1.35 * len(predicted), 3.7))
    sides = [(predicted, 0.45 if measured else 1.0, -0.2 if measured else 0.0)]
    if measured:
        sides.append((measured, 1.0, 0.2))
    width = 0.36 if measured else 0.55
    for side, alpha, shift in sides:
        for index, name in enumerate(predicted):
            bottom = 0.0
            for part, colour in colours.items():
                height = side[name].get(part, 0) / scale
                axes.bar(index + shift, height, width, bottom=bottom, color=colour, alpha=alpha,
                         edgecolor="white", lw=0.6)  # fmt: skip
                bottom += height
            axes.annotate(f"{bottom:,.3g}", (index + shift, bottom), xytext=(0, 2), ha="center",
                          textcoords="offset points", fontsize=8)  # fmt: skip
    names = [name.replace(", ", ",\n") for name in predicted]
    axes.set_xticks(range(len(predicted)), names)
    axes.grid(axis="x", visible=False)
    tallest = max(sum(parts.values()) for side, _, _ in sides for parts in side.values())
    axes.set_ylim(0, 1.1 * tallest / scale)
    if limit:
        axes.axhline(limit[1] / scale, color=RED, ls="--", lw=1.2)
        axes.annotate(limit[0], (0.995, limit[1] / scale), xycoords=axes.get_yaxis_transform(),
                      color=RED, va="bottom", ha="right", fontsize=9)  # fmt: skip
    used = [
        p for p in colours if any(p in s for s in (*predicted.values(), *(measured or {}).values()))
    ]
    words = {"optimizer": "optimizer states"}
    legend = [Patch(color=colours[part], label=words.get(part, part)) for part in used]
    if measured:
        legend += [Patch(color=GREY, alpha=0.45, label="pale: predicted"),
                   Patch(color=GREY, label="full: measured")]  # fmt: skip
    axes.legend(handles=legend, loc="upper left", bbox_to_anchor=(1, 1))
    axes.set(ylabel=f"{unit} per rank", title=title)
