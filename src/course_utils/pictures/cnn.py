"""Drawings of what a convolutional network does: windows, im2col, pooling, shapes, confusions.

Like `plots`, whose style they share, these functions draw with pyplot and return nothing.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from course_utils.pictures.plots import AMOUNT, BLUE, GREY, INK, ORANGE, PALE, RED, SIGNED, bare


def montage(
    images: Num[Tensor, "rows columns height width"], row_names: Sequence[str], *, title: str = ""
) -> None:
    """Draw many small images as one large one, a name in front of each row."""
    rows, columns, height, width = images.shape
    wall = images.cpu().transpose(1, 2).reshape(rows * height, columns * width)
    axes = plt.subplots(figsize=(0.5 * columns, 0.5 * rows + 0.4))[1]
    axes.imshow(wall)
    bare(axes)
    axes.set_yticks([height * (row + 0.5) for row in range(rows)], row_names)
    axes.tick_params(length=0)
    axes.set_title(title)


def window_arithmetic(
    image: Float[Tensor, "height width"],
    kernel: Float[Tensor, "kernel kernel"],
    corner: tuple[int, int],
) -> None:
    """Draw one output of a convolution: the window at `corner` × the kernel, added up."""
    size = len(kernel)
    row, column = corner
    window = image[row : row + size, column : column + size]
    products = window * kernel
    grid = plt.subplots(
        1, 5, figsize=(10.4, 2.6), gridspec_kw={"width_ratios": (1.25, 1, 1, 1, 0.75)}
    )[1]
    bare(grid[0], "the image")
    grid[0].imshow(image)
    _frame(grid[0], row, column, size)
    largest = products.abs().max().item()
    _numbers(grid[1], window, "the window", cmap="gray_r", vmin=0, vmax=1)
    _numbers(grid[2], kernel, "the filter", cmap=SIGNED, vmin=-2, vmax=2)
    _numbers(grid[3], products, "their products", cmap=SIGNED, vmin=-largest, vmax=largest)
    bare(grid[4], "added up")
    grid[4].set_box_aspect(1.35)
    total = products.sum().item()
    colour = BLUE if total >= 0 else RED
    grid[4].text(0.5, 0.5, f"{total:+.2f}", fontsize=20, color=colour, ha="center", va="center")
    for left, sign in zip(grid[1:4], "×=Σ", strict=True):
        left.text(1.1, 0.5, sign, fontsize=15, transform=left.transAxes, ha="center", va="center")


def im2col(
    image: Float[Tensor, "height width"], kernel: Float[Tensor, "kernel kernel"], window: int
) -> None:
    """Draw a convolution as a matrix product: every window a row, the filter a column.

    Args:
        window: the number of the window that is followed through the picture.
    """
    size = len(kernel)
    out_height, out_width = (n - size + 1 for n in image.shape)
    columns = F.unfold(image[None, None], size)[0].T
    products = columns @ kernel.flatten()[:, None]
    row, column = divmod(window, out_width)

    grid = plt.subplots(
        1, 5, figsize=(10.4, 4.0), gridspec_kw={"width_ratios": (2.3, 2.6, 0.75, 0.75, 1.7)}
    )[1]
    limit = products.abs().max().item()
    signed: dict[str, Any] = {"cmap": SIGNED, "vmin": -limit, "vmax": limit}
    pictures: tuple[tuple[str, Tensor, dict[str, Any]], ...] = (
        (f"image\n{image.shape[0]} × {image.shape[1]}", image, {"vmin": 0, "vmax": 1}),
        (f"every window a row\n{len(columns)} × {size * size}", columns, {"vmin": 0, "vmax": 1}),
        (
            f"filter\n{size * size} × 1",
            kernel.flatten()[:, None],
            {"cmap": SIGNED, "vmin": -2, "vmax": 2},
        ),
        (f"product\n{len(columns)} × 1", products, signed),
        (f"output\n{out_height} × {out_width}", products.view(out_height, out_width), signed),
    )
    for axes, (title, values, how) in zip(grid, pictures, strict=True):
        bare(axes, title)
        axes.imshow(values, **how)
        _rule(axes, *values.shape)
    for axes, sign in zip(grid[:4], ("→", "×", "=", "→"), strict=True):
        axes.text(1.02, 0.5, f" {sign}", fontsize=15, transform=axes.transAxes, va="center")
    _frame(grid[0], row, column, size)
    _frame(grid[1], window, 0, 1, size * size)
    _frame(grid[3], window, 0, 1)
    _frame(grid[4], row, column, 1)


def pooling(values: Float[Tensor, "height width"], kernel_size: int) -> None:
    """Draw max pooling: the blocks, their winners in orange, and what remains."""
    pooled, winners = F.max_pool2d(values[None, None], kernel_size, return_indices=True)
    grid = plt.subplots(
        1, 2, figsize=(6.4, 3.3), gridspec_kw={"width_ratios": (kernel_size, 1.15)}
    )[1]
    how: dict[str, Any] = {"cmap": AMOUNT, "vmin": 0, "vmax": 1.6 * max(values.max().item(), 1e-9)}
    _numbers(grid[0], values, "before", **how)
    _numbers(grid[1], pooled[0, 0], "after", **how)
    for row in range(0, len(values) - kernel_size + 1, kernel_size):
        for column in range(0, values.shape[1] - kernel_size + 1, kernel_size):
            _frame(grid[0], row, column, kernel_size, colour=INK)
    for index in winners.flatten().tolist():
        row, column = divmod(index, values.shape[1])
        _frame(grid[0], row, column, 0.86, inset=0.07)


def network_shapes(layers: Sequence[tuple[str, tuple[int, ...]]]) -> None:
    """Draw the output of each layer as a stack of sheets, true to scale in height and width.

    Args:
        layers: name and output shape of one example, (channels, height, width) or (features,).
    """
    axes = plt.subplots(figsize=(10.4, 2.9))[1]
    x = 0.0
    for name, shape in layers:
        if len(shape) == 3:
            channels, height, width = shape
            sheets = min(channels, 12)
            for sheet in reversed(range(sheets)):
                at = (x + 0.9 * sheet, 0.9 * sheet - height / 2)
                axes.add_patch(Rectangle(at, width, height, fc="white", ec=BLUE, lw=0.8))
            axes.add_patch(Rectangle((x, -height / 2), width, height, fc=PALE, ec=BLUE, lw=1))
            span = width + 0.9 * sheets
            label = f"{channels} × {height} × {width}"
        else:
            span, label = 2.0, f"{shape[0]:,}"
            tall = min(44.0, 4.0 + shape[0] ** 0.55)
            axes.add_patch(Rectangle((x, -tall / 2), span, tall, fc=PALE, ec=BLUE, lw=1))
        middle = x + span / 2
        axes.text(middle, -25, name, ha="center", va="top", fontsize=9, fontweight="bold")
        axes.text(middle, -29.5, label, ha="center", va="top", fontsize=8.5, color=GREY)
        x += max(span, 9.0) + 7
    axes.set(xlim=(-2, x - 4), ylim=(-35, 28), aspect="equal")
    bare(axes)


def confusion_table(
    matrix: Int[Tensor, "label prediction"], names: Sequence[str], title: str = ""
) -> None:
    """Draw a confusion matrix; only mistakes are coloured, or the hits would outshine them."""
    counts = matrix.cpu()
    mistakes = counts.clone().fill_diagonal_(0)
    axes = plt.subplots(figsize=(5.6, 5.2))[1]
    axes.imshow(mistakes, cmap=AMOUNT, vmin=0, vmax=max(1, mistakes.max().item()))
    dark = 0.6 * mistakes.max().item()
    for row, column in torch.cartesian_prod(*map(torch.arange, counts.shape)).tolist():
        count = int(counts[row, column])
        if row == column:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fc=PALE, ec="none"))
        if count:
            colour = "white" if row != column and count > dark else GREY if row == column else INK
            axes.text(column, row, str(count), ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set(xlabel="the network's answer", ylabel="the truth", title=title)


def _numbers(axes: Axes, values: Tensor, title: str, **how: Any) -> None:
    """Draw a small matrix as coloured cells with their numbers."""
    bare(axes, title)
    axes.imshow(values, **how)
    _rule(axes, *values.shape)
    low, high = how["vmin"], how["vmax"]
    middle, half = (low + high) / 2, (high - low) / 2
    for row, line in enumerate(values.tolist()):
        for column, value in enumerate(line):
            # On signed colours both ends are dark, on the others only the upper one.
            dark = abs(value - middle) > 0.55 * half if low < 0 else value > middle + 0.1 * half
            text = f"{round(value, 2) + 0.0:.2f}".removesuffix(".00")  # never "-0"
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=9,
                color="white" if dark else INK,
            )


def _rule(axes: Axes, rows: int, columns: int) -> None:
    """Thin lines between the cells of a small matrix."""
    for row in range(rows + 1):
        axes.plot((-0.5, columns - 0.5), (row - 0.5, row - 0.5), color=PALE, lw=0.7)
    for column in range(columns + 1):
        axes.plot((column - 0.5, column - 0.5), (-0.5, rows - 0.5), color=PALE, lw=0.7)


def _frame(
    axes: Axes,
    row: float,
    column: float,
    height: float,
    width: float | None = None,
    *,
    inset: float = 0.0,
    colour: str = ORANGE,
) -> None:
    at = (column - 0.5 + inset, row - 0.5 + inset)
    size = (height if width is None else width, height)
    axes.add_patch(Rectangle(at, *size, fill=False, ec=colour, lw=2, clip_on=False))
