"""Drawings of attention: a soft look-up, masks, angles, maps, and a map to point at.

Like `plots`, whose style they share, these functions draw (or display HTML) and return nothing.
"""

import json
from collections.abc import Sequence
from html import escape
from uuid import uuid4

import matplotlib.pyplot as plt
from IPython.display import HTML, display
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from torch import Tensor

from course_utils.pictures.plots import AMOUNT, BLUE, COLOURS, GREY, INK, ORANGE, PALE, SIGNED, bare


def soft_lookup(
    keys: Float[Tensor, "n 2"], query: Float[Tensor, "2"], weights: dict[str, Float[Tensor, "n"]]
) -> None:
    """Draw keys and a query in the plane, and for each title the weights the keys receive."""
    names = "ABCDEFGH"[: len(keys)]
    panels = len(weights) + 1
    grid = plt.subplots(1, panels, figsize=(2.6 * panels, 2.7))[1]
    plane = grid[0]
    bare(plane, "keys (dots) and a query (arrow)")
    plane.set(xlim=(-1.45, 1.45), ylim=(-1.45, 1.45), aspect="equal")
    plane.add_patch(Circle((0, 0), 1, fill=False, edgecolor=PALE))
    plane.annotate(
        "", query.tolist(), (0, 0), arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 2}
    )
    for name, key, colour in zip(names, keys.tolist(), COLOURS, strict=False):
        plane.plot(*key, "o", color=colour, ms=9)
        plane.text(1.22 * key[0], 1.22 * key[1], name, ha="center", va="center", fontsize=9)
    for axes, (title, heights) in zip(grid[1:], weights.items(), strict=True):
        bars = axes.bar(list(names), heights.tolist(), color=COLOURS[: len(keys)])
        axes.bar_label(bars, [f"{h:.0%}" for h in heights.tolist()], fontsize=8, padding=2)
        axes.set(ylim=(0, 1.12), yticks=[])
        axes.spines["left"].set_visible(False)
        axes.grid(False)
        axes.set_title(title, fontsize=9, fontweight="normal", loc="center")


def masks(tables: dict[str, Bool[Tensor, "queries keys"]]) -> None:
    """Draw masks as tables: blue where the row's query may look at the column's key."""
    tallest = max(len(table) for table in tables.values())
    widths = [table.shape[1] + 1.5 for table in tables.values()]
    _, grid = plt.subplots(
        1,
        len(tables),
        figsize=(0.36 * sum(widths), 0.36 * tallest + 1.1),
        width_ratios=widths,
        squeeze=False,
    )
    for axes, (title, table) in zip(grid[0], tables.items(), strict=True):
        seq, total = table.shape
        axes.pcolormesh(
            table.float(), cmap=AMOUNT, vmin=0, vmax=1.4, edgecolors="white", linewidth=1.5
        )
        axes.set(xlim=(0, total), ylim=(tallest, 0), aspect="equal")
        axes.set_xticks([place + 0.5 for place in range(total)], range(total))
        axes.set_yticks([place + 0.5 for place in range(seq)], range(total - seq, total))
        axes.tick_params(length=0)
        axes.xaxis.tick_top()
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_title(title, fontsize=10, loc="center")


def clocks(angles: Float[Tensor, "positions pairs"], shown: Sequence[int]) -> None:
    """Draw the pairs of a head as hands of clocks: one column for each position, one row a pair."""
    pairs = angles.shape[1]
    _, grid = plt.subplots(
        pairs, len(angles), figsize=(0.85 * len(angles) + 0.9, 0.85 * pairs + 0.5), squeeze=False
    )
    for row in range(pairs):
        for column, axes in enumerate(grid[:, : len(angles)][row]):
            bare(axes, f"position {column}" if row == 0 else "")
            axes.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal")
            axes.add_patch(Circle((0, 0), 1, facecolor=PALE, edgecolor=GREY, lw=0.6))
            angle = angles[column, row]
            axes.plot([0, angle.cos()], [0, angle.sin()], color=BLUE, lw=2.2)
            axes.plot(angle.cos(), angle.sin(), "o", color=ORANGE, ms=4)
        grid[row, 0].set_ylabel(f"pair {shown[row]}", rotation=0, ha="right", va="center")


def table(
    values: Float[Tensor, "rows columns"],
    *,
    limit: float,
    title: str,
    xlabel: str,
    ylabel: str,
    axes: Axes | None = None,
) -> None:
    """Draw a table of numbers from −limit (red) to limit (blue) as colours; zero is white."""
    axes = axes or plt.subplots(figsize=(4.2, 3.8))[1]
    image = axes.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit)
    axes.grid(False)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.figure.colorbar(image, ax=axes, shrink=0.8)


def attention_maps(
    weights: Float[Tensor, "maps seq seq"],
    tokens: Sequence[str],
    titles: Sequence[str],
    *,
    columns: int = 4,
    heading: str = "",
) -> None:
    """Draw attention maps side by side: row by row, where each token looks."""
    rows = -(-len(weights) // columns)
    columns = min(columns, len(weights))
    size = (3.1 * columns, 3.2 * rows + (0.4 if heading else 0))
    # One set of labels for each row and column: hundreds of small texts take seconds to draw.
    figure, grid = plt.subplots(
        rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True
    )
    places = range(len(tokens))
    for axes in grid.flat[len(weights) :]:
        axes.set_visible(False)
    for axes, one, title in zip(grid.flat, weights.detach().cpu(), titles, strict=False):
        axes.imshow(one, cmap=AMOUNT, vmin=0, vmax=1)
        axes.set_xticks(places, tokens, fontsize=7)
        axes.set_yticks(places, tokens, fontsize=7)
        axes.tick_params(length=0, pad=2)
        axes.tick_params(top=True, labeltop=axes in grid[0], labelbottom=False)
        axes.grid(False)
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color(PALE)
        axes.set_title(title, fontsize=10, loc="center")
    if heading:
        figure.suptitle(heading, fontsize=11, fontweight="bold", color=INK)


# --- a map to point at ------------------------------------------------------------------------


def attention_viewer(
    tokens: Sequence[str], weights: dict[str, Float[Tensor, "seq seq"]], start: int = -1
) -> None:
    """Display the tokens as a line; the one pointed at shows where it looks.

    It is plain HTML with a few lines of JavaScript, and works without a kernel, too.

    Args:
        weights: by the name of the head, one row for each token.
        start: the token that is pointed at in the beginning.
    """
    rounded = {
        name: [[round(weight, 3) for weight in row] for row in one.detach().cpu().tolist()]
        for name, one in weights.items()
    }
    data = json.dumps({"weights": rounded, "start": range(len(tokens))[start]})
    label = "font:13px system-ui,sans-serif;color:var(--jp-content-font-color2,#5a6672)"
    rows = "".join(
        f'<div data-head="{escape(name)}" style="display:flex;align-items:center;margin:3px 0">'
        f'<span style="{label};width:9em;flex:none">{escape(name)}</span>{_boxes(tokens)}</div>'
        for name in rounded
    )
    name = f"attention-viewer-{uuid4().hex[:12]}"
    display(
        HTML(
            f'<div id="{name}" style="max-width:70em;overflow-x:auto">{rows}</div>'
            + _VIEWER.replace("@NAME@", name).replace("@DATA@", data.replace("<", "\\u003c"))
        )
    )


def _boxes(tokens: Sequence[str]) -> str:
    style = (
        "display:inline-block;min-width:1.35em;padding:3px 4px;margin:0 1px;text-align:center;"
        "border-radius:4px;font:15px ui-monospace,Menlo,Consolas,monospace;cursor:default;"
        "border:2px solid transparent;color:#22303c;background:#fff"
    )
    return "".join(
        f'<span data-at="{place}" style="{style}">{escape(token)}</span>'
        for place, token in enumerate(tokens)
    )


_VIEWER = """
<script>
(function () {
  const data = @DATA@;
  const box = document.getElementById("@NAME@");
  if (!box) return;
  function point(at) {
    for (const row of box.querySelectorAll("[data-head]")) {
      const weights = data.weights[row.dataset.head][at];
      for (const token of row.querySelectorAll("[data-at]")) {
        const place = Number(token.dataset.at), weight = weights[place];
        const mix = (full) => Math.round(255 + (full - 255) * Math.sqrt(weight));
        token.style.background = `rgb(${mix(47)},${mix(109)},${mix(181)})`;
        token.style.color = weight > 0.4 ? "#fff" : "#22303c";
        token.style.borderColor = place === at ? "#e08a2e" : "transparent";
        token.style.opacity = place > at ? 0.35 : 1;
        token.title = `${(100 * weight).toFixed(0)} %`;
      }
    }
  }
  box.onpointerover = (event) => {
    const token = event.target.closest("[data-at]");
    if (token) point(Number(token.dataset.at));
  };
  point(data.start);
})();
</script>
"""
