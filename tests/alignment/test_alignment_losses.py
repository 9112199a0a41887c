"""The losses of lesson 13: worked out by hand, their properties, and their gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from course_utils.alignment.distillation import soft_target_loss
from course_utils.alignment.log_probs import token_log_probs
from course_utils.alignment.preference import dpo_loss
from course_utils.alignment.reinforcement import group_advantages, grpo_loss, kl_estimate
from course_utils.base.ignored import IGNORED

seeds = st.integers(0, 2**31)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def doubles(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


# --- log-probabilities ----------------------------------------------------------------------------


def test_log_probs_by_hand() -> None:
    logits = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [1.0, 2.0, 3.0]]]).log() - 7
    found = token_log_probs(logits, torch.tensor([[1, 2, IGNORED]]))
    torch.testing.assert_close(found, torch.tensor([[math.log(0.25), math.log(0.8), 0.0]]))


@given(seeds)
def test_log_probs_are_those_of_log_softmax_and_know_no_masked_place(seed: int) -> None:
    logits = 4 * torch.randn(3, 5, 9, generator=generator(seed))
    targets = torch.randint(9, (3, 5), generator=generator(seed))
    targets[torch.rand(3, 5, generator=generator(seed + 1)) < 0.4] = IGNORED
    logits.requires_grad_()
    found = token_log_probs(logits, targets)
    counts = targets != IGNORED
    expected = logits.log_softmax(-1)[counts].gather(-1, targets[counts][:, None])[:, 0]
    torch.testing.assert_close(found[counts], expected)
    assert (found[~counts] == 0).all() and (found <= 0).all()
    found.sum().backward()
    assert (logits.grad[~counts] == 0).all()
    assert token_log_probs(logits.bfloat16(), targets).dtype == torch.float32


# --- DPO ------------------------------------------------------------------------------------------


def test_dpo_by_hand() -> None:
    # rewards 0.1·(−3 + 5) = 0.2 and 0.1·(−6 + 5) = −0.1; −ln σ(0.3) = ln(1 + e^−0.3)
    loss, chosen, rejected = dpo_loss(*(torch.tensor([x]) for x in (-3.0, -6.0, -5.0, -5.0)), 0.1)
    assert loss.item() == pytest.approx(0.554355, abs=1e-6)
    assert chosen.item() == pytest.approx(0.2) and rejected.item() == pytest.approx(-0.1)


@given(seeds, st.floats(0.01, 3))
def test_dpo_properties(seed: int, beta: float) -> None:
    chosen, rejected, a, b = (doubles(seed + i, 7) * 5 for i in range(4))
    at_start, *rewards = dpo_loss(chosen, rejected, chosen, rejected, beta)
    torch.testing.assert_close(at_start, torch.full_like(chosen, math.log(2)))
    assert all((reward == 0).all() for reward in rewards)
    loss, *_ = dpo_loss(chosen, rejected, a, b, beta)
    # What is said of a question as a whole does not matter, only the difference.
    shift = doubles(seed + 9, 7)
    shifted, *_ = dpo_loss(chosen + shift, rejected + shift, a, b, beta)
    torch.testing.assert_close(shifted, loss)
    # Preferring the other answer as well is certain: the two probabilities add up to 1.
    other, *_ = dpo_loss(rejected, chosen, b, a, beta)
    torch.testing.assert_close((-loss).exp() + (-other).exp(), torch.ones_like(loss))
    assert (dpo_loss(chosen + 0.1, rejected, a, b, beta)[0] < loss).all()
    assert (dpo_loss(chosen, rejected + 0.1, a, b, beta)[0] > loss).all()


def test_dpo_gradients_and_extremes() -> None:
    inputs = [doubles(i, 4).requires_grad_() for i in range(4)]
    assert torch.autograd.gradcheck(lambda *x: dpo_loss(*x, 0.7), inputs)
    far = torch.tensor([-1e4, 0.0])
    loss, *_ = dpo_loss(far, far.flip(0), torch.zeros(2), torch.zeros(2), 1.0)
    torch.testing.assert_close(loss, torch.tensor([1e4, 0.0]))


# --- GRPO -----------------------------------------------------------------------------------------


def test_advantages_by_hand() -> None:
    # mean 1/4, standard deviation √3/4
    found = group_advantages(torch.tensor([[1.0, 0, 0, 0], [1.0, 1, 1, 1]]))
    expected = torch.tensor([[3**0.5, -(3**-0.5), -(3**-0.5), -(3**-0.5)], [0.0, 0, 0, 0]])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


@given(seeds, st.floats(0.5, 50), st.floats(-9, 9))
def test_advantages_do_not_know_units_or_other_groups(seed: int, a: float, b: float) -> None:
    rewards = torch.rand(4, 6, generator=generator(seed), dtype=torch.float64)
    found = group_advantages(rewards)
    torch.testing.assert_close(group_advantages(a * rewards + b), found, rtol=0.01, atol=0.01)
    torch.testing.assert_close(found.mean(dim=1), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(group_advantages(rewards[2:3])[0], found[2])
    order = torch.randperm(6, generator=generator(seed))
    torch.testing.assert_close(group_advantages(rewards[:, order]), found[:, order])


@given(seeds)
def test_k3_has_the_mean_of_the_kl_and_is_never_negative(seed: int) -> None:
    log_p, log_q = (doubles(seed + i, 8).log_softmax(0) for i in range(2))
    kl = (log_p.exp() * (log_p - log_q)).sum()
    torch.testing.assert_close((log_p.exp() * kl_estimate(log_p, log_q)).sum(), kl)
    assert (kl_estimate(log_p, log_q) >= 0).all()
    assert (kl_estimate(log_p, log_p) == 0).all()


def test_grpo_by_hand() -> None:
    # An answer of two tokens with A = 2: ratio 1.5 is clipped to 1.2, ratio 0.5 is not;
    # the reference finds the first token twice as likely as the model: r − ln r − 1 = 1 − ln 2.
    old = torch.tensor([[0.2, 0.4, 0.9]]).log()
    new = torch.tensor([[0.3, 0.2, 0.1]]).log()
    reference = torch.tensor([[0.6, 0.2, 0.5]]).log()
    mask = torch.tensor([[True, True, False]])
    found = grpo_loss(new, old, reference, torch.tensor([2.0]), mask, clip=0.2, kl_weight=0.5)
    expected = (-2 * 1.2 - 2 * 0.5 + 0.5 * (1 - math.log(2))) / 2
    assert found.item() == pytest.approx(expected, rel=1e-5)


@given(seeds)
def test_grpo_at_the_first_update_is_the_policy_gradient(seed: int) -> None:
    log_probs = -doubles(seed, 3, 5).abs().requires_grad_()
    advantages, mask = (
        doubles(seed + 1, 3),
        torch.arange(5) < torch.tensor([[1], [3], [5]]),
    )
    loss = grpo_loss(log_probs, log_probs.detach(), log_probs.detach(), advantages, mask)
    torch.testing.assert_close(loss, -advantages)
    [found] = torch.autograd.grad(loss.sum(), log_probs)
    expected = -advantages[:, None] * mask / mask.sum(1, keepdim=True)
    torch.testing.assert_close(found, expected)


def test_grpo_gradients() -> None:
    log_probs, old, reference = (-doubles(i, 3, 4).abs() for i in range(3))
    mask = torch.arange(4) < torch.tensor([[2], [3], [4]])
    log_probs.requires_grad_()

    def loss(x: torch.Tensor) -> torch.Tensor:
        return grpo_loss(x, old, reference, torch.tensor([1.0, -2.0, 0.5]).double(), mask)

    assert torch.autograd.gradcheck(loss, [log_probs])
    with torch.no_grad():
        log_probs[~mask] += 3.0
    [found] = torch.autograd.grad(loss(log_probs).sum(), log_probs)
    assert (found[~mask] == 0).all()


# --- distillation ---------------------------------------------------------------------------------


def test_soft_targets_by_hand() -> None:
    teacher, student = torch.tensor([0.75, 0.25]).log(), torch.zeros(2)
    forward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    reverse = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert soft_target_loss(student, teacher).item() == pytest.approx(forward, rel=1e-5)
    found = soft_target_loss(student, teacher, direction="reverse").item()
    assert found == pytest.approx(reverse, rel=1e-5)
    # Twice the logits at twice the temperature: the same distributions, four times the loss.
    found = soft_target_loss(2 * student, 2 * teacher, 2.0).item()
    assert found == pytest.approx(4 * forward, rel=1e-5)


@given(seeds, st.floats(0.3, 5), st.sampled_from(["forward", "reverse"]))
def test_soft_targets_properties(seed: int, temperature: float, direction: str) -> None:
    student, teacher = 3 * doubles(seed, 2, 5, 6), 3 * doubles(seed + 1, 2, 5, 6)
    found = soft_target_loss(student, teacher, temperature, direction)
    assert found.shape == (2, 5) and (found >= 0).all()
    same = soft_target_loss(teacher + 2, teacher, temperature, direction)
    torch.testing.assert_close(same, torch.zeros(2, 5, dtype=torch.float64))
    p, q = teacher / temperature, student / temperature
    inputs, target = (q, p) if direction == "forward" else (p, q)
    expected = F.kl_div(
        inputs.log_softmax(-1), target.log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    torch.testing.assert_close(found, temperature**2 * expected)


def test_soft_targets_gradients() -> None:
    student, teacher = doubles(0, 3, 5).requires_grad_(), doubles(1, 3, 5).requires_grad_()
    for direction in ("forward", "reverse"):
        fixed = teacher.detach()
        check = lambda x, d=direction, t=fixed: soft_target_loss(x, t, 1.7, d)  # noqa: E731
        assert torch.autograd.gradcheck(check, [student])
        soft_target_loss(student, teacher, 1.7, direction).sum().backward()
    assert teacher.grad is None
    with pytest.raises(ValueError, match="neither"):
        soft_target_loss(student, teacher, 1.0, "sideways")
    # At a high temperature the gradient does not vanish: it becomes that of the logits' distance.
    [found] = torch.autograd.grad(soft_target_loss(student, teacher, 1e4).sum(), student)
    gap = (student - teacher).detach()
    torch.testing.assert_close(found, (gap - gap.mean(-1, keepdim=True)) / 5, rtol=1e-2, atol=1e-3)
