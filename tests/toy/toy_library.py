"""A library of one function and one class, to test the exercise engine on."""

import torch
from torch import Tensor


def mean_of_rows(x: Tensor, scale: float = 1.0) -> Tensor:
    """The mean of every row, times `scale`.

    Args:
        x: (rows, columns).

    Returns:
        (rows,)
    """
    # A reason that belongs to the solution.
    total = x.sum(dim=1)

    return total / x.shape[1] * scale


class Counter:
    """Counts calls."""

    def __init__(self, start: int) -> None:
        """Begin at `start`."""
        self.value = start

    def step(self, by: int = 1) -> int:
        """Add `by` and return the new value."""
        self.value += by
        return self.value

    def peek(self) -> int:
        """The value, unchanged."""
        return self.value


def random_rows(rng: torch.Generator) -> Tensor:
    return torch.randn(3, 5, generator=rng)
