"""Pictures for the notebooks, in one style.

Every function draws with pyplot and returns nothing: a notebook shows open figures when a cell
ends, and a figure that is returned as well would appear twice. A function that draws one set of
axes takes `axes=`, so that a lesson can place several pictures side by side.
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from torch import Tensor

# Few colours, told apart by colour-blind readers too; the first is for what matters most.
BLUE, ORANGE, GREEN, RED, PURPLE = "#2f6db5", "#e08a2e", "#3a9a6b", "#c8483f", "#7d5ba6"
INK, GREY, PALE = "#22303c", "#8a949e", "#e9edf1"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, GREY)

# For values with a sign: blue is positive, red negative, white zero.
SIGNED = LinearSegmentedColormap.from_list("signed", ["#b3352c", "#ffffff", "#23578f"])
# For values from nothing to much.
AMOUNT = LinearSegmentedColormap.from_list("amount", ["#ffffff", "#8fb4da", "#1d4b7f"])


def use_style() -> None:
    """Make pyplot draw in the course's style; importing this module does it."""
    plt.rcParams.update(
        {
            # White paper even in a dark theme: every colour below is chosen against it.
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.figsize": (7.0, 3.8),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 10,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": PALE,
            "grid.linewidth": 0.8,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "lines.linewidth": 1.8,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "image.cmap": "gray_r",
            "image.interpolation": "nearest",
            "font.size": 10,
        }
    )


use_style()


def bare(axes: Axes, title: str = "", *, colour: str = INK) -> None:
    """Turn axes into a plain picture: no ticks, no frame, a small centred title."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title, fontsize=9, fontweight="normal", loc="center", color=colour, pad=3)


def image_grid(
    images: Tensor,
    titles: list[str] | None = None,
    *,
    columns: int = 10,
    heading: str = "",
    colours: list[str] | None = None,
    signed: bool = False,
) -> None:
    """Draw images (count height width) in rows of `columns`, each with its title.

    With `signed`, zero is white, positive blue and negative red, on one scale for all images.
    """
    images = images.detach().float().cpu()
    rows = -(-len(images) // columns)
    height = 1.02 * rows + (0.22 * rows if titles else 0) + (0.35 if heading else 0)
    figure, grid = plt.subplots(rows, columns, figsize=(0.98 * columns, height), squeeze=False)
    how = _colours(images, signed)
    for index, axes in enumerate(grid.flat):
        shown = index < len(images)
        title = titles[index] if titles and shown else ""
        bare(axes, title, colour=colours[index] if colours and shown else INK)
        if shown:
            axes.imshow(images[index].numpy(), **how)
    if heading:
        figure.suptitle(heading, fontsize=11, fontweight="bold", color=INK)


# --- training runs ----------------------------------------------------------------------------


def run_curves(runs: dict[str, list[dict]], *, axes: Axes | None = None) -> None:
    """Training loss (thin) and held-out loss (dots) of runs over their training time.

    Args:
        runs: by name, the lines of metrics.jsonl.
        axes: where to draw; a new figure by default.
    """
    axes = axes or plt.subplots()[1]
    for index, (name, rows) in enumerate(runs.items()):
        colour = COLOURS[index % len(COLOURS)]
        seconds = [row["elapsed_s"] for row in rows]
        axes.plot(seconds, [row["loss"] for row in rows], color=colour, lw=1, label=name)
        held_out = [(row["elapsed_s"], row["val_loss"]) for row in rows if "val_loss" in row]
        if held_out:
            axes.plot(*zip(*held_out, strict=True), "o-", color=colour, ms=4, lw=2, alpha=0.8)
    axes.set(xlabel="training time (s)", ylabel="loss", title="Loss: training (thin), held out (●)")
    axes.legend()


def _colours(images: Tensor, signed: bool) -> dict[str, Any]:
    """Arguments for `imshow`: grey values as they are, or signed ones around a white zero."""
    if not signed:
        return {}
    # The last percent is left to saturate: one extreme pixel must not make all others pale.
    magnitudes = images.abs().flatten()
    limit = magnitudes.kthvalue(max(1, int(0.99 * len(magnitudes)))).values.item() or 1.0
    return {"cmap": SIGNED, "vmin": -limit, "vmax": limit}


def image_table(
    rows: dict[str, Tensor],
    column_titles: list[str] | None = None,
    *,
    heading: str = "",
    signed: bool = False,
) -> None:
    """Draw one labelled row of images (count height width) for each entry of `rows`.

    With `signed`, zero is white, positive blue and negative red; every row has a scale of its own.
    """
    columns = max(len(images) for images in rows.values())
    size = (0.85 * columns + 0.9, 0.85 * len(rows) + (0.5 if heading else 0.2))
    figure, grid = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    for row, (label, images) in enumerate(rows.items()):
        images = images.detach().float().cpu()
        how = _colours(images, signed)
        for column, axes in enumerate(grid[row]):
            bare(axes, column_titles[column] if column_titles and row == 0 else "")
            if column < len(images):
                axes.imshow(images[column].numpy(), **how)
        grid[row, 0].set_ylabel(label, rotation=0, ha="right", va="center")
    if heading:
        figure.suptitle(heading, fontsize=11, fontweight="bold", color=INK)


def curves(
    series: dict[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    log: str = "",
    dashed: Collection[str] = (),
    markers: bool = False,
    axes: Axes | None = None,
) -> None:
    """Draw named curves, `{name: (x, y)}`; `log` names the logarithmic axes: "", "x", "y", "xy"."""
    axes = axes or plt.subplots()[1]
    for name, (x, y) in series.items():
        style = "--" if name in dashed else "-"
        axes.plot(x, y, style, label=name, marker="o" if markers else None, markersize=3.5)
    if "x" in log:
        axes.set_xscale("log")
        plain_log_labels(axes.xaxis)
    if "y" in log:
        axes.set_yscale("log")
        plain_log_labels(axes.yaxis)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if len(series) > 1:
        axes.legend()


def plain_log_labels(axis: Axis) -> None:
    """Label a logarithmic axis 0.5, 1, 2 instead of 5 × 10⁻¹, 10⁰, 2 × 10⁰, if it is short."""
    low, high = axis.get_view_interval()
    if high > 1000 * low:
        return
    labelled = range(1, 10) if high < 7 * low else (1, 2, 5)

    def plain(value: float, _position: float) -> str:
        leading_digit = round(value / 10 ** math.floor(math.log10(value)))
        return f"{value:,g}" if leading_digit in labelled else ""

    axis.set_major_formatter(plain)
    axis.set_minor_formatter(plain)


def grouped_bars(
    groups: Sequence[str],
    series: dict[str, Sequence[float]],
    *,
    title: str,
    xlabel: str = "",
    ylabel: str,
    log: bool = False,
    number: str = "{:.3g}",
    level: tuple[str, float] | None = None,
    axes: Axes | None = None,
) -> None:
    """Draw bars side by side, one colour for each series, each with its number on top.

    `level` is a named line to compare the bars with, `("limit", 3.0)`.
    """
    axes = axes or plt.subplots()[1]
    width = 0.8 / len(series)
    for index, (name, values) in enumerate(series.items()):
        left = [group + width * (index - (len(series) - 1) / 2) for group in range(len(groups))]
        bars = axes.bar(left, values, width=0.94 * width, label=name)
        axes.bar_label(bars, [number.format(value) for value in values], fontsize=8, padding=2)
    axes.set_xticks(range(len(groups)), groups)
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.12)
    if log:
        axes.set_yscale("log")
    if level:
        axes.axhline(level[1], color=RED, linestyle="--")
        axes.annotate(
            level[0], (0.01, level[1]), xycoords=axes.get_yaxis_transform(), color=RED, va="bottom"
        )
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if len(series) > 1:
        axes.legend()


def dots(
    labels: Sequence[str],
    values: Sequence[float],
    *,
    title: str,
    ylabel: str,
    number: str = "{:.2f}",
    axes: Axes | None = None,
) -> None:
    """Draw one dot for each value, and a band over their range: for values that differ by little,
    where bars would have to start at zero."""
    axes = axes or plt.subplots()[1]
    axes.axhspan(min(values), max(values), color=PALE, zorder=0)
    axes.plot(labels, values, "o", markersize=8)
    for index, value in enumerate(values):
        axes.annotate(
            number.format(value),
            (index, value),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.margins(x=0.08, y=0.35)
    axes.grid(axis="x", visible=False)
    axes.set(title=title, ylabel=ylabel)


# --- optimisation -----------------------------------------------------------------------------


def smooth(values: Sequence[float], window: int = 25) -> list[float]:
    """The running mean over `window` neighbours, fewer at the ends."""
    box = np.ones(min(window, len(values)))
    return (
        np.convolve(values, box, "same") / np.convolve(np.ones(len(values)), box, "same")
    ).tolist()


def descents(
    surface: Callable[[Tensor], Tensor],
    paths: dict[str, Tensor],
    *,
    columns: int = 3,
    heading: str = "",
    view: tuple[float, float, float, float] = (-2.6, 2.6, -1.9, 1.9),
) -> None:
    """Draw the ways that optimizers take down a surface, one small picture for each.

    Args:
        surface: heights of points, (… 2) to (…); its lowest point is where it is 0.
        paths: by title, the points visited, (points 2). A way is drawn until it is far out of view.
        view: left, right, bottom, top.
    """
    left, right, bottom, top = view
    x, y = torch.meshgrid(
        torch.linspace(left, right, 200), torch.linspace(bottom, top, 150), indexing="xy"
    )
    heights = surface(torch.stack([x, y], dim=-1))
    # Levels that grow in steps of two keep both the bottom and the walls readable.
    levels = [heights.max().item() * 0.5**k for k in range(10, -1, -1)]
    rows = -(-len(paths) // columns)
    size = (3.3 * columns, 2.55 * rows + (0.3 if heading else 0))
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axes in grid.flat[len(paths) :]:
        axes.set_visible(False)
    for axes, (title, path) in zip(grid.flat, paths.items(), strict=False):
        bare(axes, title)
        axes.contourf(x, y, heights, levels=levels, cmap=AMOUNT, norm="log", extend="min")
        lost = (path.abs() > 2 * torch.tensor([right, top])).any(dim=1).nonzero().flatten()
        drawn = path[: int(lost[0]) + 1] if len(lost) else path
        axes.plot(*drawn.T, "-o", color=ORANGE, ms=2.6, lw=1.3)
        axes.plot(*path[0], "o", color=INK, ms=5)
        axes.plot(0, 0, "*", color=INK, ms=9)
        axes.set(xlim=(left, right), ylim=(bottom, top))
    if heading:
        figure.suptitle(heading, fontsize=11, fontweight="bold", color=INK)


def heat_map(
    values: Sequence[Sequence[float]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    largest: float,
    number: str = "{:.2f}",
    axes: Axes | None = None,
) -> None:
    """Draw a table of numbers as colours: the smaller the darker, the smallest in a frame.

    What is above `largest`, or no number at all, is as pale as `largest`.
    """
    axes = (
        axes or plt.subplots(figsize=(1.05 * len(column_names) + 2, 0.6 * len(row_names) + 1.4))[1]
    )
    table = torch.tensor(values).nan_to_num(float("inf"))
    shown = table.clamp(max=largest)
    axes.imshow(shown, cmap=AMOUNT.reversed(), aspect="auto", vmax=largest)
    middle = (shown.min() + largest) / 2
    for (row, column), value in zip(
        np.ndindex(*table.shape), table.flatten().tolist(), strict=True
    ):
        text = number.format(value) if value <= 1000 * largest else "lost"
        colour = "white" if value < middle else INK
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    best = divmod(int(table.argmin()), table.shape[1])
    axes.add_patch(
        Rectangle((best[1] - 0.5, best[0] - 0.5), 1, 1, fill=False, edgecolor=ORANGE, lw=2.5)
    )
    axes.set_xticks(range(len(column_names)), column_names)
    axes.set_yticks(range(len(row_names)), row_names)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)


def histograms(
    series: dict[str, Sequence[float]],
    *,
    title: str,
    xlabel: str,
    limit: tuple[str, float] | None = None,
    bins: int = 40,
    axes: Axes | None = None,
) -> None:
    """Draw how often values occur, on a logarithmic axis; `limit` is a named line across.

    Values that are not finite are left out.
    """
    axes = axes or plt.subplots()[1]
    kept = {name: [v for v in values if 0 < v < math.inf] for name, values in series.items()}
    everything = [value for values in kept.values() for value in values]
    edges = np.geomspace(min(everything), 1.001 * max(everything), bins + 1)
    for name, values in kept.items():
        axes.hist(values, bins=edges.tolist(), alpha=0.65, label=name)
    if limit:
        axes.axvline(limit[1], color=RED, linestyle="--", label=limit[0])
    axes.set_xscale("log")
    axes.set(title=title, xlabel=xlabel, ylabel="steps")
    axes.legend()
