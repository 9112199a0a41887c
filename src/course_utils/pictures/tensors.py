"""Drawings that explain: a tensor's place in memory, broadcasting, the graph of a calculation.

Like `plots`, whose style they share, these functions draw with pyplot and return nothing.
"""

from collections.abc import Sequence
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.path import Path
from torch import Tensor

from course_utils.pictures.plots import AMOUNT, BLUE, GREY, INK, ORANGE, PALE


def memory_layout(views: dict[str, Tensor]) -> None:
    """Draw 2-d views of one block of memory; a cell's colour is its place in that block.

    Args:
        views: tensors that share one storage, by the expression that makes each.
    """
    first = next(iter(views.values()))
    block = torch.tensor([], dtype=first.dtype).set_(first.untyped_storage())
    places = len(block)
    tallest = max(len(view) for view in views.values())
    widths = [view.shape[1] + 1 for view in views.values()]
    scale = 0.42
    figure = plt.figure(figsize=(scale * sum(widths), scale * (tallest + 5)))
    grid = figure.add_gridspec(2, len(views), height_ratios=(2.2, tallest + 1), width_ratios=widths)

    strip = figure.add_subplot(grid[0, :])
    _cells(strip, block[None], torch.arange(places)[None], places)
    strip.set_title("the memory: one long row of numbers", fontsize=9, fontweight="normal")
    for index, (name, view) in enumerate(views.items()):
        axes = figure.add_subplot(grid[1, index])
        rows, columns = (torch.arange(size) for size in view.shape)
        start = int(view.storage_offset())
        place = start + rows[:, None] * view.stride(0) + columns * view.stride(1)
        _cells(axes, view, place, places)
        axes.set_title(name, fontsize=10, family="monospace")
        axes.set_xlabel(f"shape {tuple(view.shape)}\nstrides {view.stride()}", fontsize=9)


def broadcasting(a: Tensor, b: Tensor) -> None:
    """Draw a + b for 2-d tensors: the numbers that exist dark, the repeated ones pale."""
    total = a + b
    rows, columns = total.shape
    figure, grid = plt.subplots(1, 3, figsize=(0.42 * (3 * columns + 5), 0.42 * (rows + 3)))
    for axes, part, sign in zip(grid, (a, b, total), ("+", "=", ""), strict=True):
        exists = torch.zeros(rows, columns, dtype=torch.bool)
        exists[: part.shape[0], : part.shape[1]] = True
        _cells(axes, part.expand(rows, columns), None, 1, exists)
        axes.set_title(f"shape {tuple(part.shape)}", fontsize=10)
        axes.text(columns + 0.1, rows / 2 - 0.5, sign, fontsize=16, va="center")
    figure.suptitle("An axis of length 1 is repeated to fit, without copying anything", fontsize=10)


def _cells(
    axes: Axes, numbers: Tensor, place: Tensor | None, places: int, exists: Tensor | None = None
) -> None:
    rows, columns = numbers.shape
    for i in range(rows):
        for j in range(columns):
            real = exists is None or bool(exists[i, j])
            depth = 0.25 if place is None else 0.08 + 0.7 * int(place[i, j]) / max(places - 1, 1)
            cell = Rectangle((j - 0.5, i - 0.5), 1, 1)
            cell.set(
                facecolor=AMOUNT(depth) if real else "white",
                edgecolor="white" if real else GREY,
                linestyle="-" if real else ":",
            )
            axes.add_patch(cell)
            ink = "white" if real and depth > 0.45 else INK if real else GREY
            axes.text(j, i, f"{numbers[i, j].item():g}", ha="center", va="center", color=ink)
    axes.set(xlim=(-0.6, columns - 0.4), ylim=(rows - 0.4, -0.6), xticks=[], yticks=[])
    axes.set_aspect("equal", anchor="NW")
    axes.grid(False)
    axes.spines[:].set_visible(False)


def computation_graph(
    graph: dict[str, dict[str, float]],
    values: dict[str, float],
    gradients: dict[str, float] | None = None,
    title: str = "",
) -> None:
    """Draw a calculation from left to right: values in the boxes, local slopes on the arrows.

    Args:
        graph: for every node its parents, and its derivative by each of them.
        values: each node's value.
        gradients: the output's derivative by each node, drawn below it in orange.
    """
    column = _columns(graph)
    # An edge that skips columns passes through points that keep a place free for it, like nodes.
    via = {
        (parent, node): [
            f"{parent} → {node} at {c}" for c in range(column[parent] + 1, column[node])
        ]
        for node in graph
        for parent in graph[node]
    }
    at = _places(column, via)
    wide, high = (max(place[axis] for place in at.values()) + 1 for axis in (0, 1))
    _, axes = plt.subplots(figsize=(1.45 * wide, 1.05 * high + 0.3))
    for (parent, node), points in via.items():
        _arrow(axes, [at[point] for point in (parent, *points, node)], f"{graph[node][parent]:.2g}")
    for node in graph:
        x, y = at[node]
        frame = BLUE if graph[node] else INK
        box: dict[str, Any] = {"boxstyle": "round,pad=0.4", "facecolor": PALE, "edgecolor": frame}
        middle: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 3}
        axes.text(x, y, f"{node}\n{values[node]:.3g}", bbox=box, **middle)
        if gradients is not None:
            below = f"{gradients[node]:.3g}"
            axes.text(x, y + 0.43, below, color=ORANGE, weight="bold", **middle)
    axes.set(xlim=(-0.6, wide - 0.4), ylim=(high - 0.3, -0.6))
    axes.axis("off")
    axes.set_title(title)


def _arrow(axes: Axes, points: Sequence[tuple[float, float]], label: str) -> None:
    """A curve through `points` from left to right, with the label on its first piece."""
    (x, y), (end_x, end_y) = points[0], points[-1]
    track = [(x + 0.24, y), *points[1:-1], (end_x - 0.27, end_y)]
    vertices, codes = [track[0]], [Path.MOVETO]
    for (x1, y1), (x2, y2) in pairwise(track):
        middle = (x1 + x2) / 2
        vertices += [(middle, y1), (middle, y2), (x2, y2)]
        codes += [Path.CURVE4] * 3
    path = Path(vertices, codes)
    axes.add_patch(FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=11, color=GREY))
    (x1, y1), (x2, y2) = track[:2]
    plain = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    at: dict[str, Any] = {"ha": "center", "va": "center", "bbox": plain}
    axes.text((x1 + x2) / 2, (y1 + y2) / 2, label, fontsize=8, color=GREY, **at)


def _columns(graph: dict[str, dict[str, float]]) -> dict[str, int]:
    """Every node's column: right of all its parents; an input right before its first use."""
    column: dict[str, int] = {}
    for node in TopologicalSorter(graph).static_order():
        column[node] = 1 + max((column[parent] for parent in graph[node]), default=-1)
    for node in graph:
        uses = [column[child] for child in graph if node in graph[child]]
        if uses and not graph[node]:
            column[node] = min(uses) - 1
    return column


def _places(
    column: dict[str, int], via: dict[tuple[str, str], list[str]]
) -> dict[str, tuple[float, float]]:
    """(x, y) of every node and every point in between: rows near the nodes that they lead to."""
    next_points: dict[str, list[str]] = {node: [] for node in column}
    where = dict(column)
    for (parent, node), points in via.items():
        for number, (here, there) in enumerate(pairwise([parent, *points, node])):
            next_points.setdefault(here, []).append(there)
            where.setdefault(there, column[parent] + 1 + number)

    row: dict[str, float] = {}
    for number in range(max(where.values()), -1, -1):
        wish = {
            point: sum(row[child] for child in next_points[point]) / max(len(next_points[point]), 1)
            for point in where
            if where[point] == number
        }
        members = sorted(wish, key=lambda point: wish[point])
        row |= zip(members, _spread([wish[point] for point in members]), strict=True)
    top = min(row.values())
    return {point: (float(where[point]), row[point] - top) for point in where}


def _spread(wishes: Sequence[float]) -> list[float]:
    """Sorted places at least 1 apart, and on average where they were wished."""
    places: list[float] = []
    for wish in wishes:
        places.append(max(wish, places[-1] + 1) if places else wish)
    shift = sum(places) / len(places) - sum(wishes) / len(wishes)
    return [place - shift for place in places]
