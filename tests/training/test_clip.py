"""Clipping against PyTorch's own, and what it promises at the edges."""

import copy

import pytest
import torch
from torch import nn

from course_utils.training.parts.clip import clip_grad_norm


def parameters(scale: float = 1.0, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    found = []
    for shape in [(4, 3), (), (7,), (2, 2, 2)]:
        parameter = nn.Parameter(torch.zeros(shape, dtype=dtype))
        parameter.grad = scale * torch.randn(shape, generator=generator, dtype=dtype)
        found.append(parameter)
    return found


def gradients(of: list[nn.Parameter]) -> list[torch.Tensor]:
    return [p.grad.clone() for p in of if p.grad is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_equals_torch(scale: float, dtype: torch.dtype) -> None:
    ours = parameters(scale, dtype)
    theirs = copy.deepcopy(ours)
    for mine, other in zip(ours, theirs, strict=True):
        other.grad = mine.grad.clone()
    expected = nn.utils.clip_grad_norm_(theirs, 1.0)
    torch.testing.assert_close(clip_grad_norm(iter(ours), 1.0), expected)
    torch.testing.assert_close(gradients(ours), gradients(theirs))


def test_in_place_and_past_missing_gradients() -> None:
    found = parameters(10.0)
    found[1].grad = None
    kept = found[0].grad
    norm = clip_grad_norm(found, 0.5)
    whole = torch.cat([g.flatten() for g in gradients(found)])
    assert norm > 0.5 and whole.norm().item() == pytest.approx(0.5, rel=1e-4)
    assert found[0].grad is kept and not norm.requires_grad
    assert clip_grad_norm([nn.Parameter(torch.ones(2))], 1.0) == 0


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_norm_that_is_not_finite_changes_nothing(bad: float) -> None:
    found = parameters()
    found[2].grad[3] = bad
    before = gradients(found)
    assert not clip_grad_norm(found, 1.0).isfinite()
    torch.testing.assert_close(gradients(found), before, rtol=0, atol=0, equal_nan=True)
