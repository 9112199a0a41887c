"""Random numbers that come out the same every time."""

import torch
from jaxtyping import Float
from torch import Tensor


def seeded_normal(shape: tuple[int, ...], seed: int, std: float = 1.0) -> Float[Tensor, "..."]:
    """Normal random numbers, with mean 0 and standard deviation `std`, that come out the same.

    They depend on the arguments alone: they are `std` times the float32 numbers that `torch.randn`
    draws from a CPU generator of its own, a new `torch.Generator` seeded with `seed`. PyTorch's
    global generator, which all other code draws from, is neither used nor changed: adding a call of
    this function to a program must not change any other random number in it.
    """
    generator = torch.Generator().manual_seed(seed)
    return std * torch.randn(shape, generator=generator)
