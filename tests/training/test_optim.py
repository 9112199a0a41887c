"""The update rules and their optimizer classes against PyTorch's own."""

import copy

import pytest
import torch
from torch import nn

from course_utils.training.parts.optim import SGD, AdamW, adamw, sgd_momentum


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 30
) -> list[torch.Tensor]:
    """The parameters after training on a fixed stream of random batches, lr falling half-way."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    for step in range(steps):
        if step == steps // 2:
            for group in optimizer.param_groups:
                group["lr"] /= 2
        x = torch.randn(16, 5, generator=generator, dtype=dtype)
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True).sin()).square().mean().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def network(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0.05, "momentum": 0.0},
        {"lr": 0.05, "momentum": 0.9},
        {"lr": 0.03, "momentum": 0.8, "weight_decay": 0.1},
        {"lr": 0.03, "momentum": 0.8, "weight_decay": 0.1, "nesterov": True},
    ],
)
def test_sgd_equals_torch(settings: dict, dtype: torch.dtype) -> None:
    ours = network(dtype)
    theirs = copy.deepcopy(ours)
    torch.testing.assert_close(
        train(ours, SGD(ours.parameters(), **settings)),
        train(theirs, torch.optim.SGD(theirs.parameters(), **settings)),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0.01},
        {"lr": 0.01, "weight_decay": 0.5},
        {"lr": 0.03, "betas": (0.7, 0.95), "eps": 1e-2, "weight_decay": 0.0},
    ],
)
def test_adamw_equals_torch(settings: dict, dtype: torch.dtype) -> None:
    ours = network(dtype)
    theirs = copy.deepcopy(ours)
    torch.testing.assert_close(
        train(ours, AdamW(ours.parameters(), **settings)),
        train(theirs, torch.optim.AdamW(theirs.parameters(), **settings)),
    )


@pytest.mark.parametrize("shape", [(), (1,), (3, 0), (2, 3, 4)])
def test_rules_leave_their_arguments_alone(shape: tuple[int, ...]) -> None:
    given = [torch.rand(shape) for _ in range(4)]
    before = [tensor.clone() for tensor in given]
    parameter, velocity = sgd_momentum(*given[:3], lr=0.1, weight_decay=0.1, nesterov=True)
    moved = adamw(*given, 3, lr=0.1)
    torch.testing.assert_close(given, before, rtol=0, atol=0)
    assert all(t.shape == shape for t in (parameter, velocity, *moved))


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_groups_schedulers_missing_gradients_and_closures(kind: type) -> None:
    fast, slow, unused = (nn.Parameter(torch.ones(3)) for _ in range(3))
    optimizer = kind([{"params": [fast, unused]}, {"params": [slow], "lr": 0.0}], lr=0.1)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (fast.square() + slow.square()).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 6.0
    assert (fast < 1).all() and (slow == 1).all() and (unused == 1).all()


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_goes_on_exactly_from_a_saved_state(kind: type) -> None:
    model = network(torch.float32)
    optimizer = kind(model.parameters(), lr=0.01)
    train(model, optimizer, steps=5)
    twin = copy.deepcopy(model)
    twin_optimizer = kind(twin.parameters(), lr=0.5)
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    torch.testing.assert_close(train(twin, twin_optimizer), train(model, optimizer), rtol=0, atol=0)


def test_uses_the_rule_it_is_given() -> None:
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    SGD([parameter], lr=0.1, rule=lambda p, g, v, **settings: (p + 41, v)).step()
    assert parameter.tolist() == [42.0, 42.0]
    AdamW([parameter], lr=0.1, rule=lambda p, g, m, s, step, **_: (p + step, m, s)).step()
    assert parameter.tolist() == [43.0, 43.0]
