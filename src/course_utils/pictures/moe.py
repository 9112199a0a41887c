"""Pictures of a mixture of experts: who has how much work."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
from jaxtyping import Float
from torch import Tensor

from course_utils.pictures.plots import COLOURS, INK


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
