"""The schedule against PyTorch's own, and its promises at the joints."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_utils.training.parts.schedule import warmup_cosine


@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
def test_equals_torch_linear_then_cosine(floor: float) -> None:
    warmup, total, peak = 9, 50, 0.3
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), 1.0, total_iters=warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(
                optimizer, T_max=total - warmup, eta_min=floor * peak
            ),
        ],
        milestones=[warmup],
    )
    for step in range(total):
        expected = optimizer.param_groups[0]["lr"]
        assert math.isclose(peak * warmup_cosine(step, warmup, total, floor), expected)
        optimizer.step()
        scheduler.step()


@given(
    warmup=st.integers(0, 50),
    length=st.integers(1, 200),
    floor=st.floats(0, 1),
    late=st.integers(0, 1000),
)
def test_promises(warmup: int, length: int, floor: float, late: int) -> None:
    total = warmup + length
    curve = [warmup_cosine(step, warmup, total, floor) for step in range(total + 1)]
    assert curve[0] > 0, "the first update must not be wasted"
    assert curve[warmup] == pytest.approx(1.0) and max(curve) <= 1 + 1e-12
    assert curve[: warmup + 1] == sorted(curve[: warmup + 1])
    assert all(a >= b - 1e-12 for a, b in zip(curve[warmup:], curve[warmup + 1 :], strict=False))
    assert curve[total] == pytest.approx(floor)
    assert warmup_cosine(total + late, warmup, total, floor) == pytest.approx(floor)


def test_works_as_a_lambda_and_for_a_run_that_is_all_warm_up() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, 3, 10))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)
    assert [warmup_cosine(step, 4, 4) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
