"""The loss without stored logits equals the one with them, gradients included."""

import pytest
import torch
from torch.nn import functional as F

from course_utils.models.gpt import GPT, PRESETS, GPTConfig
from course_utils.models.gpt import loss as loss_module
from course_utils.models.gpt.loss import IGNORED, next_token_loss

VOCAB, WIDTH = 50, 12


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    features = torch.randn(3, 7, WIDTH, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCAB, WIDTH, dtype=dtype, requires_grad=True)
    targets = torch.randint(VOCAB, (3, 7))
    targets[1, 2:5] = IGNORED
    return features, weight, targets


def with_stored_logits(features, weight, targets):
    logits = F.linear(features, weight).float()
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum")


@pytest.mark.parametrize("at_a_time", [1, 4 * VOCAB, 2**22])
def test_loss_and_gradients_equal_those_of_stored_logits(monkeypatch, at_a_time):
    monkeypatch.setattr(loss_module, "LOGITS_AT_A_TIME", at_a_time)
    monkeypatch.setattr(loss_module, "ROWS_AT_LEAST", 1)
    results = []
    for loss_of in (next_token_loss, with_stored_logits):
        features, weight, targets = inputs()
        loss = loss_of(features, weight, targets)
        (3 * loss).backward()  # what follows the loss reaches the gradients
        results.append((loss.detach(), features.grad, weight.grad))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_under_autocast_it_rounds_as_autocast_does_and_gradients_stay_wide():
    results = []
    for loss_of in (next_token_loss, with_stored_logits):
        features, weight, targets = inputs()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(features, weight, targets)
        loss.backward()
        assert loss.dtype == features.grad.dtype == weight.grad.dtype == torch.float32
        results.append((loss.detach(), features.grad, weight.grad))
    for ours, expected in zip(*results, strict=True):
        error = (ours - expected).norm() / expected.norm()
        assert error < 0.01, f"relative error {error:.3f}"


@pytest.mark.parametrize("frozen", [0, 1])
def test_what_is_frozen_gets_no_gradient(frozen):
    features, weight, targets = inputs()
    expected = torch.autograd.grad(
        with_stored_logits(features, weight, targets), (features, weight)[1 - frozen]
    )[0]
    (features, weight)[frozen].requires_grad_(False)
    next_token_loss(features, weight, targets).backward()
    assert (features, weight)[frozen].grad is None
    torch.testing.assert_close((features, weight)[1 - frozen].grad, expected)


def test_without_gradients_only_the_loss_is_computed():
    features, weight, targets = inputs()
    with torch.no_grad():
        loss = next_token_loss(features, weight, targets)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, with_stored_logits(features, weight, targets).detach())


def test_nothing_that_counts_is_a_loss_of_zero():
    features, weight, targets = inputs()
    loss = next_token_loss(features, weight, torch.full_like(targets, IGNORED))
    loss.backward()
    assert loss == 0 and not features.grad.any() and not weight.grad.any()


@pytest.mark.parametrize("tied", [True, False])
def test_the_model_given_targets_returns_the_loss_and_learns_the_same(tied):
    config = GPTConfig(**{**PRESETS["nano"].__dict__, "vocab": 61, "n_layers": 1, "tied": tied})
    torch.manual_seed(0)
    model = GPT(config)
    tokens, targets = torch.randint(61, (2, 2, 9))
    targets[0, :3] = IGNORED
    gradients = []
    for loss in (
        model(tokens, targets=targets),
        F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), reduction="sum"),
    ):
        model.zero_grad()
        loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)
