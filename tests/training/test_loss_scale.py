"""The loss scaler decides as torch's does, step by step."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_utils.training.parts.loss_scale import LossScaler

DAMAGE = st.sampled_from(["", "", "", "inf", "-inf", "nan"])


@settings(max_examples=40, deadline=None)
@given(st.lists(DAMAGE, min_size=1, max_size=25), st.integers(1, 5), st.sampled_from([None, 0.5]))
def test_every_decision_is_torchs(damages: list[str], interval: int, clip: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(4)) for _ in range(2))
    optimizers = [torch.optim.AdamW([p], lr=0.1) for p in (ours, theirs)]
    scaler = LossScaler(2.0**10, growth=4.0, backoff=0.25, interval=interval)
    torchs = torch.amp.GradScaler(
        "cpu", 2.0**10, growth_factor=4.0, backoff_factor=0.25, growth_interval=interval
    )
    for damage in damages:
        direction = torch.randn(4, generator=generator)
        for parameter, one in ((ours, scaler), (theirs, torchs)):
            parameter.grad = None
            one.scale((parameter * direction).sum()).backward()
            if damage:
                parameter.grad[2] = float(damage)
        before = ours.detach().clone()
        stepped = scaler.step(optimizers[0], max_norm=clip)
        torchs.unscale_(optimizers[1])
        if clip is not None:
            nn.utils.clip_grad_norm_([theirs], clip)
        torchs.step(optimizers[1])
        torchs.update()
        assert stepped == (damage == "") == (not torch.equal(before, ours))
        assert scaler.factor == torchs.get_scale()
        assert scaler.good_steps == torchs._get_growth_tracker()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_parameter_without_a_gradient_is_passed_over() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    scaler = LossScaler(8.0)
    scaler.scale(used.sum()).backward()
    assert scaler.step(torch.optim.SGD([used, unused], lr=1.0))
    assert used.tolist() == [0.0, 0.0] and unused.tolist() == [1.0, 1.0]
