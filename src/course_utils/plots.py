"""Pictures for the notebooks, in one style.

Every function draws with pyplot and returns nothing: a notebook shows open figures when a cell
ends, and a figure that is returned as well would appear twice. A function that draws one set of
axes takes `axes=`, so that a lesson can place several pictures side by side.
"""

from collections.abc import Collection, Sequence
from typing import Any

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
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
    if "y" in log:
        axes.set_yscale("log")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if len(series) > 1:
        axes.legend()


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
