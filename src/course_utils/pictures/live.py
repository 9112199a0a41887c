"""A picture that grows while a cell trains."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from IPython.display import display

from course_utils.pictures.plots import BLUE, GREEN, GREY, plain_log_labels, smooth


class LiveCurves:
    """Loss of every step and accuracy on held-out images, redrawn in place.

    Drawing takes about as long as a few training steps, so call `show` a dozen times in a run
    rather than at every step.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._measured: list[tuple[int, float]] = []
        self._display: Any = None

    def show(self, losses: Sequence[float], accuracy: float) -> None:
        """Draw the losses so far, and one more measured accuracy (0 to 1)."""
        self._measured.append((len(losses), accuracy))
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
        left.plot(losses, color=GREY, lw=0.5, alpha=0.6)
        left.plot(smooth(losses), color=BLUE)
        left.set(title="Loss of each batch", ylabel="loss (nats)", yscale="log")
        steps, accuracies = zip(*self._measured, strict=True)
        wrong = [max(100 * (1 - a), 0.05) for a in accuracies]
        right.plot(steps, wrong, "o-", color=GREEN, ms=4)
        title = f"Held-out images: {accuracies[-1]:.2%} right"
        right.set(title=title, ylabel="wrong (%)", yscale="log")
        for axes in (left, right):
            axes.set(xlabel="step", xlim=(0, self._steps))
            plain_log_labels(axes.yaxis)
        if self._display is None:
            self._display = display(figure, display_id=True)
        else:
            self._display.update(figure)
        plt.close(figure)
