"""Pictures of bills, interruptions and servers."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from course_utils.pictures.plots import BLUE, GREEN, GREY, INK, ORANGE, PALE, plain_log_labels

Lane = Sequence[tuple[int, str] | None]  # for every step, which request was read or written there


def offers(bills: Mapping[str, tuple[float, float]], title: str) -> None:
    """Hours against dollars. Names that end in "spot" are hollow, joined to the same without it.

    Args:
        bills: (hours, dollars) by the offer's name.
    """
    _, axes = plt.subplots(figsize=(7.4, 4.0))
    for name, (hours, dollars) in bills.items():
        spot = name.endswith(" spot")
        if spot and (of := bills.get(name.removesuffix(" spot"))):
            axes.plot([of[0], hours], [of[1], dollars], color=GREY, lw=1, ls=":", zorder=1)
        face = "white" if spot else BLUE
        axes.plot(hours, dollars, "o", ms=8, color=BLUE, markerfacecolor=face, zorder=2)
        axes.annotate(
            name, (hours, dollars), (8, 0), textcoords="offset points", fontsize=9, va="center"
        )
    axes.set(xscale="log", yscale="log", xlabel="hours", ylabel="dollars", title=title)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * 2.2)  # room for the last name
    plain_log_labels(axes.xaxis)
    plain_log_labels(axes.yaxis)


def intervals(
    predicted: tuple[Sequence[float], Sequence[float]],
    simulated: tuple[Sequence[float], Sequence[float], Sequence[float]],
    young: float,
    title: str,
) -> None:
    """What saving and interruptions add, against the minutes between two checkpoints.

    Args:
        predicted: minutes, and per cent on top.
        simulated: minutes, the mean per cent on top, and that mean's standard error.
        young: minutes.
    """
    _, axes = plt.subplots(figsize=(7.0, 3.6))
    axes.plot(*predicted, color=BLUE, label="expected_hours")
    minutes, means, errors = simulated
    axes.errorbar(
        minutes, means, [2 * error for error in errors], fmt="o", ms=5, color=ORANGE, capsize=3,
        label="trainings with interruptions drawn at random",
    )  # fmt: skip
    axes.axvline(young, color=GREY, lw=1, ls="--")
    axes.annotate(
        f"Young: every {young:.0f} min", (young, 1), (5, -4), xycoords=("data", "axes fraction"),
        textcoords="offset points", va="top", fontsize=9, color=INK,
    )  # fmt: skip
    axes.set(
        xscale="log", xlabel="minutes of work between two checkpoints", ylabel="% more time",
        title=title, ylim=(0, None),
    )  # fmt: skip
    plain_log_labels(axes.xaxis)
    axes.legend(loc="lower right")


def two_machines(
    undisturbed: Sequence[Mapping[str, float]],
    moved: Sequence[Mapping[str, float]],
    left_at: int,
) -> None:
    """The loss of a run on one machine, and of the same run on two."""
    _, axes = plt.subplots(figsize=(7.0, 3.4))
    axes.plot(
        [row["step"] for row in undisturbed], [row["loss"] for row in undisturbed],
        color=PALE, lw=9, solid_capstyle="round", label="never interrupted",
    )  # fmt: skip
    first = [row for row in moved if row["step"] <= left_at]
    then = [*first[-1:], *(row for row in moved if row["step"] > left_at)]
    for rows, colour, name in ((then, ORANGE, "machine B"), (first, BLUE, "machine A")):
        at, losses = [row["step"] for row in rows], [row["loss"] for row in rows]
        axes.plot(at, losses, "o-", ms=4, color=colour, label=name)
    axes.axvline(left_at, color=GREY, lw=1, ls="--")
    axes.annotate(
        f"SIGTERM\nsaved at step {left_at}", (left_at, 1), (6, -4),
        xycoords=("data", "axes fraction"), textcoords="offset points", va="top", fontsize=9,
    )  # fmt: skip
    axes.set(xlabel="step", ylabel="loss (nats)", title="One run, two machines")
    handles, labels = axes.get_legend_handles_labels()
    order = [0, 2, 1]
    axes.legend([handles[i] for i in order], [labels[i] for i in order])


def batches(ways: Mapping[str, Sequence[Lane]]) -> None:
    """Which request has which slot at which step: dark while it is read, light while it writes."""
    longest = max(len(lane) for lanes in ways.values() for lane in lanes)
    _, panels = plt.subplots(len(ways), 1, figsize=(9, 1.75 * len(ways) + 0.5), sharex=True)
    for axes, (name, lanes) in zip(panels, ways.items(), strict=True):
        for slot, lane in enumerate(lanes):
            _lane(axes, slot, lane)
        axes.set(
            yticks=range(len(lanes)), yticklabels=[f"slot {n}" for n in range(len(lanes))],
            ylim=(len(lanes) - 0.4, -0.6), xlim=(0, longest), title=name,
        )  # fmt: skip
        axes.grid(False)
    panels[-1].set_xlabel("step")
    reading, writing, idle = (Patch(color=colour) for colour in (BLUE, "#8fb4da", PALE))
    panels[0].legend(
        [reading, writing, idle], ["reads its prompt", "writes", "empty"],
        loc="upper right", bbox_to_anchor=(1, 1.32), ncols=3,
    )  # fmt: skip


def _lane(axes: Axes, slot: int, lane: Lane) -> None:
    axes.broken_barh([(0, len(lane))], (slot - 0.4, 0.8), color=PALE)
    start = 0
    for step in range(1, len(lane) + 1):
        if step < len(lane) and lane[step] == lane[start]:
            continue
        what = lane[start]
        if what is not None:
            request, doing = what
            colour = BLUE if doing == "read" else "#8fb4da"
            axes.broken_barh(
                [(start, step - start)], (slot - 0.4, 0.8), facecolor=colour, edgecolor="white",
                linewidth=0.8,
            )  # fmt: skip
            if doing == "write" and step - start > 2:
                axes.text(
                    (start + step) / 2, slot, str(request), ha="center", va="center", fontsize=8
                )
        start = step


def crowd(rates: Mapping[int, float], firsts: Mapping[int, float]) -> None:
    """Tokens per second of all together, and the wait for the first token, by number of clients."""
    _, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.0))
    names = [str(clients) for clients in rates]
    left.bar(names, list(rates.values()), color=BLUE, width=0.6)
    left.set(title="All together", xlabel="clients at once", ylabel="tokens per second")
    each = [rate / clients for clients, rate in rates.items()]
    left.plot(names, each, "o--", color=ORANGE, label="of that, for each")
    left.legend()
    right.bar(names, [1000 * first for first in firsts.values()], color=GREEN, width=0.6)
    right.set(
        title="95 of 100 see their first token within", xlabel="clients at once",
        ylabel="milliseconds",
    )  # fmt: skip
    for axes in (left, right):
        axes.grid(axis="x", visible=False)
