"""Which range to spend the integers on, when it has to be fixed before the numbers are seen.

Weights are known. Activations are not: their range is measured beforehand, on a few typical
inputs. The largest value ever seen is a bad choice when it is a single outlier, because all others
are then rounded to a few coarse steps.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_utils.models.quant.affine import dequantize, quantize_symmetric

Limit = Callable[[Float[Tensor, "n"], int], Float[Tensor, ""]]


def largest(x: Float[Tensor, "n"], bits: int = 8) -> Float[Tensor, ""]:
    """The largest magnitude: nothing is clipped."""
    return x.abs().max()


def percentile(x: Float[Tensor, "n"], bits: int = 8, *, share: float = 0.999) -> Float[Tensor, ""]:
    """The magnitude that a share of the numbers does not exceed."""
    magnitudes = x.abs().flatten()
    return magnitudes.kthvalue(max(1, round(share * len(magnitudes)))).values


def least_error_limit(
    x: Float[Tensor, "n"], bits: int = 8, candidates: int = 100
) -> Float[Tensor, ""]:
    """The limit with which symmetric quantization makes the least mean squared error.

    A smaller limit clips more numbers, and rounds all others more finely. Tried are `candidates`
    limits at equal distances: 1/candidates, 2/candidates, … of the largest magnitude, and that
    itself. For each, all numbers are quantized with it as `limit` and turned back; the limit with
    the least mean of (turned back − x)² is the result, and of equal ones the smallest.

    Args:
        x: a sample of the numbers that are to be quantized.
        bits: of the integers.
        candidates: how many limits are tried.

    Returns:
        The best limit, in the dtype of `x`, without axes.
    """
    steps = torch.arange(1, candidates + 1, device=x.device, dtype=x.dtype)
    limits = x.abs().max() * steps / candidates
    rows = x.expand(candidates, -1)
    codes, scale = quantize_symmetric(rows, bits, limit=limits[:, None])
    errors = (dequantize(codes, scale) - x).square().mean(dim=-1)
    return limits[errors.argmin()]


@contextmanager
def watching_inputs(modules: dict[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """Collect what goes into some modules while the body of the `with` runs.

    All of it is kept: outliers are so few that a sample is likely to miss them, and it is them that
    a limit is about. A hundred tokens are enough.

    Args:
        modules: by name.

    Yields:
        By name, a list that receives one vector for each call.
    """
    seen: dict[str, list[Tensor]] = {name: [] for name in modules}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[name].append(inputs[0].detach().flatten().float().cpu())

        return hook

    handles = [module.register_forward_pre_hook(keep(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
