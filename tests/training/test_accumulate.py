"""Accumulated gradients equal the big batch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.training.parts.accumulate import accumulate


@pytest.mark.parametrize("sizes", [[12], [4, 4, 4], [1, 8, 3], [11, 1]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_big_batch(sizes: list[int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).to(dtype)
    images, labels = torch.randn(12, 2, 3, dtype=dtype), torch.randint(3, (12,))

    F.cross_entropy(model(images), labels).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    weights = [p.detach().clone() for p in model.parameters()]

    # The old gradients are still there: they must not be added to.
    parts = list(zip(images.split(sizes), labels.split(sizes), strict=True))
    loss = accumulate(model, parts)
    torch.testing.assert_close([p.grad for p in model.parameters()], expected)
    torch.testing.assert_close(loss, F.cross_entropy(model(images), labels).detach())
    assert not loss.requires_grad
    torch.testing.assert_close([p.detach() for p in model.parameters()], weights, rtol=0, atol=0)


def test_holds_one_micro_batch_at_a_time() -> None:
    """The activations kept for the backward pass never exceed one micro-batch's."""
    alive = most = 0

    class Count(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            nonlocal alive, most
            alive += len(x)
            most = max(most, alive)
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):  # type: ignore[no-untyped-def]
            nonlocal alive
            alive -= len(gradient)
            return gradient

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Count.apply(self.linear(x))

    parts = [(torch.randn(n, 4), torch.randint(3, (n,))) for n in (2, 5, 3)]
    accumulate(Counted(), parts)
    assert (alive, most) == (0, 5)
