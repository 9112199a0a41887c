"""Pictures of a mixture of experts: who has how much work, and which tokens go to whom."""

from collections.abc import Mapping, Sequence
from html import escape

import matplotlib.pyplot as plt
from IPython.display import HTML, display
from jaxtyping import Float
from matplotlib.colors import to_hex, to_rgb
from torch import Tensor

from course_utils.plots import COLOURS, INK

SHADES = (0.25, 0.4)  # how strongly a token is coloured: neighbours are told apart


def expert_shares(cases: Mapping[str, Float[Tensor, "layers n_experts"]]) -> None:
    """Each layer's experts with their shares of the tokens, one bar per layer, for several models.

    Args:
        cases: by title, what `training.expert_loads.expert_loads` found.
    """
    layers, n_experts = next(iter(cases.values())).shape
    _, grid = plt.subplots(
        1, len(cases), figsize=(10, 0.42 * layers + 1.5), sharey=True, squeeze=False
    )
    names = [f"layer {layer + 1}" for layer in range(layers)]
    for axes, (title, loads) in zip(grid[0], cases.items(), strict=True):
        left = [0.0] * layers
        for expert in range(n_experts):
            shares = (100 * loads[:, expert]).tolist()
            colour = COLOURS[expert % len(COLOURS)]
            axes.barh(names, shares, left=left, color=colour, edgecolor="white", height=0.7)
            for layer, share in enumerate(shares):
                if share >= 8:
                    where = (left[layer] + share / 2, layer)
                    axes.text(*where, f"{share:.0f}", ha="center", va="center", color="white")
            left = [a + b for a, b in zip(left, shares, strict=True)]
        for part in range(1, n_experts):
            axes.axvline(100 * part / n_experts, color=INK, lw=0.8, ls=":")
        axes.set(title=title, xlim=(0, 100), xlabel="% of the tokens, one colour per expert")
        axes.grid(False)
    grid[0][0].invert_yaxis()


def tokens_by_expert(pieces: Sequence[str], experts: Sequence[int]) -> None:
    """A text whose tokens have the colours of the experts that they went to."""
    spans = []
    for place, (piece, expert) in enumerate(zip(pieces, experts, strict=True)):
        text = escape(piece).replace("\n", "⏎<br>")
        style = f"background:{_pale(expert, SHADES[place % 2])};color:{INK}"
        spans.append(f'<span style="{style}" title="expert {expert + 1}">{text}</span>')
    legend = " ".join(
        f'<span style="background:{_pale(e, 0.5)};color:{INK};padding:0 .6em">expert {e + 1}</span>'
        for e in sorted(set(experts))
    )
    style = "font-family:monospace;line-height:1.7;white-space:pre-wrap;max-width:62em"
    display(HTML(f'<div style="{style}">{"".join(spans)}</div><p>{legend}</p>'))


def _pale(expert: int, share: float) -> str:
    """An expert's colour, mixed with so much white that dark letters stand on it well."""
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(COLOURS[expert % len(COLOURS)]))
    return to_hex((red, green, blue))
