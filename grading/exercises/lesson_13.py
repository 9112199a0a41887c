"""Lesson 13, preferences and distillation: an answer's tokens, its rivals, and a teacher."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.alignment.distillation import soft_target_loss
from course_utils.alignment.log_probs import token_log_probs
from course_utils.alignment.preference import dpo_loss
from course_utils.alignment.reinforcement import group_advantages, grpo_loss, kl_estimate
from course_utils.base.ignored import IGNORED
from course_utils.exercises import CheckFailure, Exercise, Mutant, assert_close, assert_equal
from course_utils.models.gpt import moe


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    """The gradient of the loss with respect to a tensor; fails when there is none."""
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise CheckFailure("No gradient flows from your result to the input")
    [found] = torch.autograd.grad(loss.sum(), of, allow_unused=True)
    if found is None:
        raise CheckFailure("No gradient flows from your result to the input")
    return found


# --- The answers' tokens --------------------------------------------------------------------------


def some_targets(rng: torch.Generator, rows: int, seq: int, vocab: int) -> Tensor:
    """Questions first, then an answer, then padding."""
    targets = torch.randint(vocab, (rows, seq), generator=rng)
    for row in range(rows):
        targets[row, : 1 + row % 3] = IGNORED
        targets[row, seq - row % 2 :] = IGNORED
    return targets


def halves_and_quarters(student: Any, rng: torch.Generator) -> None:
    """Probabilities of a half and a quarter have the logarithms −ln 2 and −ln 4"""
    logits = torch.tensor([[[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]]).log() + 3
    targets = torch.tensor([[0, 1]])
    expected = torch.tensor([[-math.log(2), -math.log(4)]])
    assert_close(student(logits, targets), expected, "The log-probabilities are wrong")


def like_log_softmax(student: Any, rng: torch.Generator) -> None:
    """Each target's own log-probability, at its own position"""
    logits = 3 * torch.randn(3, 5, 7, generator=rng)
    targets = torch.randint(7, (3, 5), generator=rng)
    expected = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    assert_close(student(logits, targets), expected, "The log-probabilities are wrong")


def questions_do_not_count(student: Any, rng: torch.Generator) -> None:
    """Where the target is IGNORED there is a 0"""
    logits = 3 * torch.randn(4, 6, 7, generator=rng)
    targets = some_targets(rng, 4, 6, 7)
    expected = token_log_probs(logits, targets)
    assert_close(student(logits, targets), expected, "The log-probabilities are wrong")


def rounded_logits(student: Any, rng: torch.Generator) -> None:
    """16-bit logits give float32 log-probabilities, computed in float32"""
    logits = (3 * torch.randn(3, 6, 50, generator=rng)).bfloat16()
    targets = some_targets(rng, 3, 6, 50)
    expected = token_log_probs(logits, targets)
    assert_close(student(logits, targets), expected, "The log-probabilities are wrong")


def pushes_the_target_up(student: Any, rng: torch.Generator) -> None:
    """The gradient raises the target's logit and lowers the others"""
    logits = torch.randn(3, 5, 4, generator=rng).requires_grad_()
    targets = some_targets(rng, 3, 5, 4)
    counts = (targets != IGNORED)[..., None]
    one_hot = F.one_hot(targets.clamp(min=0), 4)
    expected = ((one_hot - logits.detach().softmax(-1)) * counts).float()
    found = gradient(student(logits, targets), logits)
    assert_close(found, expected, "The gradient is wrong")


def unmasked(logits: Tensor, targets: Tensor) -> Tensor:
    log_probs = logits.float().log_softmax(dim=-1)
    return log_probs.gather(-1, targets.clamp(min=0)[..., None])[..., 0]


def shifted_again(logits: Tensor, targets: Tensor) -> Tensor:
    found = torch.zeros(targets.shape)
    log_probs = logits[:, :-1].float().log_softmax(dim=-1)
    following = targets[:, 1:]
    picked = log_probs.gather(-1, following.clamp(min=0)[..., None])[..., 0]
    found[:, :-1] = picked * (following != IGNORED)
    return found


def no_softmax(logits: Tensor, targets: Tensor) -> Tensor:
    picked = logits.float().gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return picked.where(targets != IGNORED, 0)


def over_the_sequence(logits: Tensor, targets: Tensor) -> Tensor:
    log_probs = logits.float().log_softmax(dim=1)
    picked = log_probs.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return picked.where(targets != IGNORED, 0)


LOG_PROBS = Exercise(
    id="preference.log_probs",
    reference="course_utils.alignment.log_probs:token_log_probs",
    title="How likely is this answer?",
    points=3,
    minutes=12,
    difficulty=2,
    checks=(
        halves_and_quarters,
        like_log_softmax,
        questions_do_not_count,
        rounded_logits,
        pushes_the_target_up,
    ),
    mutants=(
        Mutant(
            replace=("return -losses", "return losses"),
            says="You return losses: log-probabilities are never positive, losses never negative. "
            "Change the sign.",
            why="Cross-entropy is the more familiar computation.",
        ),
        Mutant(
            replace=(
                "return -losses.view(targets.shape)",
                "return (-losses).exp().view(targets.shape)",
            ),
            says="You return probabilities. Return their logarithms: products of many "
            "probabilities round to 0, sums of logarithms do not.",
            why="The question is how likely an answer is.",
        ),
        Mutant(
            function=unmasked,
            says="The question and the padding count too. Where the target is IGNORED, the result "
            "is 0, whatever the token's probability.",
            why="Clamping −100 to 0 avoids the error, and the mask is forgotten after that.",
        ),
        Mutant(
            function=shifted_again,
            says="You shifted the targets once more. They are shifted already: the target at a "
            "position is what comes next there.",
            why="Some libraries pass labels that are not shifted yet.",
        ),
        Mutant(
            function=no_softmax,
            says="You picked the target's logit. Only log_softmax makes log-probabilities of "
            "logits: the other tokens' logits matter as well.",
            why="Logits look like log-probabilities, and differ by a constant only.",
        ),
        Mutant(
            function=over_the_sequence,
            says="Your softmax goes over the positions. It is the tokens of the vocabulary, the "
            "last dimension, that compete with each other.",
            why="dim=1 is the class dimension in many other places.",
        ),
        Mutant(
            replace=("logits.flatten(0, 1).float()", "logits.flatten(0, 1)"),
            says="You compute in the logits' own 16 bits. Bring them to float32 first: an answer's "
            "log-probability is a sum, and the differences that matter are small.",
            why="With float32 logits there is no difference.",
        ),
    ),
    hints=(
        "It is the loss of lesson 06 with another sign, for each token instead of their sum.",
        "`log_softmax(dim=-1)` and then `gather` picks the target's; −100 is no index, so clamp "
        "the targets first and set those positions to 0 afterwards.",
        '`F.cross_entropy(…, ignore_index=IGNORED, reduction="none")` does all of it for logits of '
        "shape (positions, vocab).",
    ),
)


# --- DPO ------------------------------------------------------------------------------------------


def four(rng: torch.Generator, pairs: int = 6) -> list[Tensor]:
    return [-8 * torch.rand(pairs, generator=rng) for _ in range(4)]


def a_pair_by_hand(student: Any, rng: torch.Generator) -> None:
    """A pair worked out by hand: rewards 0.2 and −0.1, loss −log σ(0.3)"""
    inputs = [torch.tensor([x]) for x in (-3.0, -6.0, -5.0, -5.0)]
    expected = torch.tensor([math.log1p(math.exp(-0.3))]), torch.tensor([0.2]), torch.tensor([-0.1])
    found = student(*inputs, beta=0.1)
    assert_close(found, expected, "loss, chosen reward, rejected reward")


def many_pairs(student: Any, rng: torch.Generator) -> None:
    """Loss and rewards of each pair, for several β"""
    for beta in (0.05, 0.5, 2.0):
        inputs = four(rng)
        found = student(*inputs, beta=beta)
        assert_close(found, dpo_loss(*inputs, beta=beta), f"With beta={beta}")


def at_the_start(student: Any, rng: torch.Generator) -> None:
    """Where the model still equals its reference, the loss is ln 2 and its rewards are 0"""
    chosen, rejected, other, another = four(rng)
    expected = torch.full((6,), math.log(2)), torch.zeros(6), torch.zeros(6)
    assert_close(student(chosen, rejected, chosen, rejected), expected, "At the start")
    found = student(chosen, rejected, other, another, beta=0.3)
    assert_close(found, dpo_loss(chosen, rejected, other, another, 0.3), "After it")


def far_away(student: Any, rng: torch.Generator) -> None:
    """Differences in the hundreds give finite losses"""
    chosen = torch.tensor([-900.0, -1.0, -400.0])
    rejected = torch.tensor([-1.0, -900.0, -399.0])
    zeros = torch.zeros(3)
    found = student(chosen, rejected, zeros, zeros, beta=1.0)
    assert_close(found, dpo_loss(chosen, rejected, zeros, zeros, 1.0), "Far from the reference")


def pulls_them_apart(student: Any, rng: torch.Generator) -> None:
    """The gradient raises the chosen and lowers the rejected, most where the ranking is wrong"""
    chosen, rejected, reference_chosen, reference_rejected = four(rng)
    chosen.requires_grad_()
    rejected.requires_grad_()
    margin = 0.5 * (chosen - reference_chosen - rejected + reference_rejected).detach()
    push = 0.5 * (-margin).sigmoid()
    for name, answers, expected in (("chosen", chosen, -push), ("rejected", rejected, push)):
        loss, *_ = student(chosen, rejected, reference_chosen, reference_rejected, beta=0.5)
        found = gradient(loss.sum() + 0 * answers.sum(), answers)  # 0 where nothing flows
        assert_close(found, expected, f"The gradient for the {name} answers")


def rewards_without_beta(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor,
    beta: float = 0.1,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    chosen_reward = chosen - reference_chosen
    rejected_reward = rejected - reference_rejected
    return -F.logsigmoid(beta * (chosen_reward - rejected_reward)), chosen_reward, rejected_reward


def without_reference(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor,
    beta: float = 0.1,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    chosen_reward, rejected_reward = beta * chosen, beta * rejected
    return -F.logsigmoid(chosen_reward - rejected_reward), chosen_reward, rejected_reward


DPO = Exercise(
    id="preference.dpo_loss",
    reference="course_utils.alignment.preference:dpo_loss",
    title="This answer rather than that one",
    points=4,
    minutes=15,
    difficulty=2,
    checks=(a_pair_by_hand, many_pairs, at_the_start, far_away, pulls_them_apart),
    mutants=(
        Mutant(
            replace=(
                "F.logsigmoid(chosen_reward - rejected_reward)",
                "F.logsigmoid(rejected_reward - chosen_reward)",
            ),
            says="Your loss is small when the rejected answer has the higher reward. The "
            "difference is chosen − rejected.",
            why="Two minus signs follow each other, and one is easily taken for the other.",
        ),
        Mutant(
            replace=("loss = -F.logsigmoid", "loss = F.logsigmoid"),
            says="The loss is the negative logarithm; yours grows towards 0 as the model gets "
            "better, and training would make it worse.",
            why="log σ is what the paper maximizes in words.",
        ),
        Mutant(
            replace=(
                "-F.logsigmoid(chosen_reward - rejected_reward)",
                "-(chosen_reward - rejected_reward).sigmoid().log()",
            ),
            says="log(sigmoid(x)) is −∞ as soon as sigmoid rounds to 0, at differences of about "
            "−100. `F.logsigmoid` computes it in one piece.",
            why="It is the formula, word by word.",
        ),
        Mutant(
            function=without_reference,
            says="You left the reference out. A reward is how far the model has moved towards an "
            "answer, not how likely it is: otherwise common answers would always win.",
            why="The log-probabilities alone already rank the answers.",
        ),
        Mutant(
            function=rewards_without_beta,
            says="Your rewards lack the factor β; the loss is right. A reward is "
            "β · (log π − log π_ref).",
            why="In the loss it can be multiplied in last.",
        ),
        Mutant(
            replace=("return loss,", "return loss.mean(),"),
            says="You return the mean. Return one loss for each pair: the caller decides how to "
            "average.",
            why="Losses usually come as one number.",
        ),
        Mutant(
            replace=(
                "return loss, chosen_reward, rejected_reward",
                "return loss, rejected_reward, chosen_reward",
            ),
            says="The rewards come in the wrong order: first that of the chosen answer.",
            why="Nothing in their values tells them apart.",
        ),
        Mutant(
            replace=("(rejected - reference_rejected)", "(rejected.detach() - reference_rejected)"),
            says="The rejected answers get no gradient. Then the chosen ones rise, and nothing "
            "pushes the others down: both come from the model that learns.",
            why="The loss is the same, and the rejected answer looks like a mere comparison.",
        ),
    ),
    hints=(
        "First the two rewards, each from two of the four arguments.",
        "The loss is −log σ(difference of the rewards). torch has log σ as one function.",
        "`-F.logsigmoid(chosen_reward - rejected_reward)`",
    ),
)


# --- Advantages -----------------------------------------------------------------------------------


def one_right_of_four(student: Any, rng: torch.Generator) -> None:
    """One right answer of four lies √3 standard deviations above the mean, the others 1/√3 below"""
    expected = torch.tensor([[math.sqrt(3), *3 * [-1 / math.sqrt(3)]]])
    found = student(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    assert_close(found, expected, "The advantages differ", rtol=1e-3)


def every_group_by_itself(student: Any, rng: torch.Generator) -> None:
    """Every question's answers are compared among themselves"""
    rewards = torch.rand(5, 6, generator=rng) + torch.arange(5)[:, None]
    assert_close(student(rewards), group_advantages(rewards), "The advantages differ")


def nothing_to_tell(student: Any, rng: torch.Generator) -> None:
    """A group with equal rewards gets zeros, and does not disturb the others"""
    rewards = torch.randint(2, (4, 8), generator=rng).float()
    rewards[1], rewards[3] = 0, 1
    rewards[0, :2] = torch.tensor([0.0, 1.0])
    assert_close(student(rewards), group_advantages(rewards), "The advantages differ")


def in_any_unit(student: Any, rng: torch.Generator) -> None:
    """In double precision, and the same for rewards from 0 to 100 as from 0 to 1"""
    rewards = torch.rand(3, 5, generator=rng, dtype=torch.float64)
    found = student(100 * rewards - 7)
    assert_close(found, group_advantages(100 * rewards - 7), "The advantages differ")
    assert_close(
        found,
        group_advantages(rewards),
        "The unit of the rewards changed them",
        rtol=1e-2,
        atol=1e-2,
    )


ADVANTAGES = Exercise(
    id="reinforcement.advantages",
    reference="course_utils.alignment.reinforcement:group_advantages",
    title="Better than the others",
    points=3,
    minutes=10,
    difficulty=1,
    checks=(one_right_of_four, every_group_by_itself, nothing_to_tell, in_any_unit),
    mutants=(
        Mutant(
            replace=(
                "centred.square().mean(dim=1, keepdim=True).sqrt()",
                "rewards.std(dim=1, keepdim=True)",
            ),
            says="Your standard deviation divides by size − 1, which is torch's default. Here it "
            "is that of these very numbers: divide by size.",
            why="`std` does so by default.",
        ),
        Mutant(
            replace=(
                "centred = rewards - rewards.mean(dim=1, keepdim=True)",
                "centred = rewards - rewards.mean()",
            ),
            says="You compare with the mean of the whole batch. Then answers to easy questions "
            "look good: compare within the group.",
            why="Normalizing over the batch is common elsewhere.",
        ),
        Mutant(
            replace=(
                "centred = rewards - rewards.mean(dim=1, keepdim=True)",
                "centred = rewards - rewards.mean(dim=0, keepdim=True)",
            ),
            says="Your mean goes over the questions. A group is a row, so the mean goes along it, "
            "dim=1.",
            why="dim=0 is the batch dimension of most means.",
        ),
        Mutant(
            replace=("centred / (spread + SMALLEST_SPREAD)", "centred / spread"),
            says="A group with equal rewards gives 0 / 0 = NaN, and that is every group that the "
            "model always or never solves. Add the small number below.",
            why="It does not happen on random numbers.",
        ),
        Mutant(
            replace=("return centred / (spread + SMALLEST_SPREAD)", "return centred"),
            says="You subtract the mean and do not divide by the standard deviation.",
            why="There are good arguments for leaving it out (Liu et al. 2025, Dr. GRPO).",
        ),
        Mutant(
            replace=(".mean(dim=1, keepdim=True).sqrt()", ".mean(dim=1, keepdim=True)"),
            says="You divide by the variance. The standard deviation is its root.",
            why="The mean of squares looks complete.",
        ),
    ),
    hints=(
        "Everything goes along the rows: dim=1, and keepdim=True so that the shapes fit.",
        "The standard deviation (spread): the mean of the squared differences, and then the root "
        "of it.",
        "`centred / (spread + 1e-4)`",
    ),
)


# --- GRPO -----------------------------------------------------------------------------------------


def some_answers(rng: torch.Generator, rows: int = 5, seq: int = 6) -> dict[str, Tensor]:
    """Log-probabilities that have moved a good way from the old ones."""
    old = -3 * torch.rand(rows, seq, generator=rng) - 0.1
    lengths = torch.randint(1, seq, (rows, 1), generator=rng)
    return {
        "log_probs": old + 0.5 * torch.randn(rows, seq, generator=rng),
        "old": old,
        "reference": old + 0.4 * torch.randn(rows, seq, generator=rng),
        "advantages": torch.randn(rows, generator=rng),
        "completion_mask": torch.arange(seq) < lengths,
    }


def first_update(student: Any, rng: torch.Generator) -> None:
    """With the weights that gave the answers, the loss is −A and the gradient proportional to A"""
    given = some_answers(rng)
    given["completion_mask"] = torch.ones_like(given["completion_mask"])
    log_probs = given["old"].clone().requires_grad_()
    given |= {"log_probs": log_probs, "reference": given["old"]}
    loss = student(*given.values())
    assert_close(loss, -given["advantages"], "The losses differ")
    expected = (-given["advantages"] / 6)[:, None].expand(-1, 6).contiguous()
    assert_close(gradient(loss, log_probs), expected, "The gradient differs")


def four_ways_to_move(student: Any, rng: torch.Generator) -> None:
    """Good or bad, more likely or less: what is clipped and what is not"""
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5])
    old = -torch.rand(4, 1, generator=rng)
    log_probs = (old + ratio.log()[:, None]).requires_grad_()
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    completion_mask = torch.ones(4, 1, dtype=torch.bool)
    loss = student(log_probs, old, old, advantages, completion_mask, clip=0.2, kl_weight=0.0)
    message = "Losses of (better, went up), (better, went down), (worse, up), (worse, down)"
    assert_close(loss, torch.tensor([-1.2, -0.5, 1.5, 0.8]), message)
    expected = torch.tensor([[0.0], [-0.5], [1.5], [0.0]])
    assert_close(gradient(loss, log_probs), expected, "What is clipped has no gradient")


def price_of_moving(student: Any, rng: torch.Generator) -> None:
    """Moving away from the reference costs kl_weight times the estimated KL"""
    given = some_answers(rng)
    given["completion_mask"] = torch.ones_like(given["completion_mask"])
    given["advantages"] = torch.zeros(5)
    log_probs, reference = given["log_probs"], given["reference"]
    expected = 0.7 * kl_estimate(log_probs, reference).mean(dim=1)
    loss = student(*(given | {"log_probs": log_probs.requires_grad_()}).values(), kl_weight=0.7)
    assert_close(loss, expected, "With advantages of 0")
    expected = 0.7 * (1 - (reference - log_probs.detach()).exp()) / 6
    assert_close(gradient(loss, log_probs), expected, "With advantages of 0, the gradient")


def only_the_learner_moves(student: Any, rng: torch.Generator) -> None:
    """Gradients go to log_probs alone: old and reference stay what they are"""
    given = some_answers(rng)
    log_probs = given["log_probs"].clone().requires_grad_()
    expected = gradient(grpo_loss(**given | {"log_probs": log_probs}), log_probs)
    for name in ("log_probs", "old", "reference"):
        given[name].requires_grad_()
    found = gradient(student(*given.values()), given["log_probs"])
    assert_close(found, expected, "The gradient of log_probs")
    for name in ("old", "reference"):
        found = gradient(student(*given.values()).sum() + 0 * given[name].sum(), given[name])
        assert_close(found, torch.zeros(5, 6), f"`{name}` gets a gradient, and would move too")


def all_of_it(student: Any, rng: torch.Generator) -> None:
    """Answers of different lengths: every answer's mean over its own tokens"""
    given = some_answers(rng)
    for clip, kl_weight in ((0.2, 0.04), (0.1, 0.5)):
        expected = grpo_loss(**given, clip=clip, kl_weight=kl_weight)
        found = student(*given.values(), clip=clip, kl_weight=kl_weight)
        assert_close(found, expected, f"With clip={clip}, kl_weight={kl_weight}")


GRPO = Exercise(
    id="reinforcement.grpo_loss",
    reference="course_utils.alignment.reinforcement:grpo_loss",
    title="More of what was better",
    points=5,
    minutes=25,
    difficulty=3,
    checks=(first_update, four_ways_to_move, price_of_moving, all_of_it, only_the_learner_moves),
    mutants=(
        Mutant(
            replace=("gain = torch.minimum(", "gain = torch.maximum("),
            says="You take the larger of the two gains. Take the smaller one: clipping may take a "
            "reward away, never add one.",
            why="The gain is to be maximized.",
        ),
        Mutant(
            replace=(
                "torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)",
                "ratio * advantage",
            ),
            says="Nothing is clipped: after a few updates on the same answers the ratio runs away.",
            why="At the first update both terms are equal.",
        ),
        Mutant(
            replace=(
                "torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)",
                "ratio.clamp(1 - clip, 1 + clip) * advantage",
            ),
            says="You only use the clamped ratio. Then a token that went the wrong way has no "
            "gradient either, and never comes back: take the minimum of both.",
            why="The clamped term alone looks like the clipped objective.",
        ),
        Mutant(
            replace=("(log_probs - old.detach())", "(old.detach() - log_probs)"),
            says="Your ratio is upside down: new over old, exp(log_probs − old).",
            why="Either order gives 1 at the beginning.",
        ),
        Mutant(
            replace=("loss = -gain +", "loss = gain +"),
            says="Your loss is the gain itself; training would make it smaller, and the model "
            "worse.",
            why="The paper maximizes an objective, the optimizer minimizes a loss.",
        ),
        Mutant(
            replace=("-gain + kl_weight", "-gain - kl_weight"),
            says="You reward the model for moving away from the reference. The KL divergence is a "
            "penalty: it is added to the loss.",
            why="In the paper's objective it has a minus sign, and the loss is its negative.",
        ),
        Mutant(
            replace=("/ completion_mask.sum(dim=1)", "/ completion_mask.shape[1]"),
            says="You divide by the length of the row, padding included. A short answer's loss is "
            "the mean over its own tokens.",
            why="`mean(dim=1)` does that.",
        ),
        Mutant(
            replace=(".sum(dim=1) / completion_mask.sum(dim=1)", ".sum(dim=1)"),
            says="You add up an answer's tokens. Take the mean; with the sum, long answers count "
            "more.",
            why="Losses in this course are sums over tokens.",
        ),
        Mutant(
            replace=("loss.where(completion_mask, 0).sum(dim=1)", "loss.sum(dim=1)"),
            says="Positions outside the answer count too. Set them to 0 before you add up.",
            why="The division already knows the answer's length.",
        ),
        Mutant(
            replace=(
                "kl_estimate(log_probs, reference.detach())",
                "kl_estimate(log_probs.detach(), reference.detach())",
            ),
            says="Your KL term has the right size and no gradient, so it has no effect. It needs "
            "log_probs with their graph: only the reference is detached.",
            why="A KL divergence is mostly something that one logs, and logs are detached.",
        ),
        Mutant(
            replace=("old.detach()", "old"),
            says="`old` gets a gradient. It holds the log-probabilities from when the answers "
            "were drawn, which must not change: detach it. Where `old` is log_probs itself, the "
            "gradient of the ratio would be 0.",
            why="Usually it was stored without a graph, so there is no difference.",
        ),
        Mutant(
            replace=("reference.detach()", "reference"),
            says="The reference gets a gradient, and would follow the model. Detach it.",
            why="Usually the reference runs under no_grad, so there is no difference.",
        ),
    ),
    hints=(
        "The advantages have one number for each answer; `advantages[:, None]` fits the tokens.",
        "Two gains for each token, with the ratio `(log_probs - old.detach()).exp()` as it is and "
        "clamped; `torch.minimum` of them. The reference is detached, too.",
        "The mean over the tokens of the answer: set the others to 0, add up along the row, and "
        "divide by `completion_mask.sum(dim=1)`.",
    ),
)


# --- Soft targets ---------------------------------------------------------------------------------


def two_tokens_by_hand(student: Any, rng: torch.Generator) -> None:
    """Two tokens by hand: a teacher with probability 3/4, a uniform student"""
    teacher = torch.tensor([0.75, 0.25]).log()
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    found = student(torch.zeros(2), teacher)
    assert_close(found, torch.tensor(expected), "KL(teacher ‖ student)")


def forward_like_torch(student: Any, rng: torch.Generator) -> None:
    """Forward KL at several temperatures, as torch's kl_div computes it"""
    for temperature in (0.5, 1.0, 4.0):
        mine, theirs = (
            3 * torch.randn(2, 4, 6, generator=rng),
            3 * torch.randn(2, 4, 6, generator=rng),
        )
        log_q = (mine / temperature).log_softmax(-1)
        log_p = (theirs / temperature).log_softmax(-1)
        divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
        found = student(mine, theirs, temperature)
        assert_close(found, temperature**2 * divergence, f"At temperature {temperature}")


def reverse_too(student: Any, rng: torch.Generator) -> None:
    """Reverse KL, with the roles exchanged"""
    mine, theirs = 3 * torch.randn(5, 6, generator=rng), 3 * torch.randn(5, 6, generator=rng)
    for temperature in (1.0, 2.0):
        expected = soft_target_loss(mine, theirs, temperature, "reverse")
        found = student(mine, theirs, temperature, "reverse")
        assert_close(found, expected, f"Reverse, at temperature {temperature}")


def only_the_student_learns(student: Any, rng: torch.Generator) -> None:
    """Gradients go to the student alone: T · (q − p) for each logit"""
    mine = torch.randn(3, 5, generator=rng).requires_grad_()
    theirs = torch.randn(3, 5, generator=rng).requires_grad_()
    loss = student(mine, theirs, 3.0)
    to_mine = gradient(loss.sum() + 0 * theirs.sum(), mine)
    p, q = (theirs.detach() / 3).softmax(-1), (mine.detach() / 3).softmax(-1)
    assert_close(to_mine, 3 * (q - p), "The student's gradient")
    loss = student(mine, theirs, 3.0)
    [to_teacher] = torch.autograd.grad(loss.sum(), theirs, allow_unused=True)
    found = torch.zeros_like(theirs) if to_teacher is None else to_teacher
    assert_close(found, torch.zeros(3, 5), "The teacher gets a gradient, and would be trained too")


SOFT_TARGETS = Exercise(
    id="distillation.soft_targets",
    reference="course_utils.alignment.distillation:soft_target_loss",
    title="Learning what a teacher finds possible",
    points=4,
    minutes=18,
    difficulty=2,
    checks=(two_tokens_by_hand, forward_like_torch, reverse_too, only_the_student_learns),
    mutants=(
        Mutant(
            replace=("return temperature**2 * divergence", "return divergence"),
            says="The factor T² is missing. Without it, a high temperature makes the gradient "
            "small, and beside another loss it vanishes.",
            why="The KL divergence looks complete without it.",
        ),
        Mutant(
            replace=("return temperature**2 * divergence", "return temperature * divergence"),
            says="You multiply by T; the gradient shrinks with 1/T², so the factor is T².",
            why="The logits are divided by T once.",
        ),
        Mutant(
            replace=("(student / temperature).log_softmax", "student.log_softmax"),
            says="Only the teacher is softened. Both are compared at the same temperature.",
            why="Only the teacher seems too certain.",
        ),
        Mutant(
            replace=("(log_p.exp() * (log_p - log_q))", "-(log_p.exp() * log_q)"),
            says="You return the cross-entropy with the teacher. It has the same gradient, and "
            "lacks the teacher's own entropy: a perfect student's loss must be 0.",
            why="Hinton's paper trains with it.",
        ),
        Mutant(
            replace=('if direction == "forward":', 'if direction != "forward":'),
            says="Forward and reverse are exchanged. Forward weighs with the teacher's "
            "probabilities, p; reverse with the student's.",
            why="The two directions of the KL divergence are easily confused.",
        ),
        Mutant(
            replace=("(teacher.detach() / temperature)", "(teacher / temperature)"),
            says="The teacher gets a gradient too: it would be trained to agree with its student. "
            "Detach it.",
            why="Usually the teacher runs under no_grad, so there is no difference.",
        ),
        Mutant(
            replace=(
                "(log_p.exp() * (log_p - log_q)).sum(dim=-1)",
                "(log_p.exp() * (log_p - log_q)).mean(dim=-1)",
            ),
            says="You take the mean over the vocabulary. A divergence is a sum over it.",
            why="Means are the default of torch's losses, `F.kl_div` included.",
        ),
    ),
    hints=(
        "Divide both logits by the temperature, and take log_softmax of both.",
        "The probabilities are the exponentials of the log-probabilities. Forward weighs the "
        "difference of the logarithms with the teacher's, reverse with the student's.",
        "`temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=-1)`",
    ),
)

# --- Mixture of experts: routing -----------------------------------------------------------------


def routed(student: Any, logits: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    found = student(logits, top_k)
    if not isinstance(found, tuple | list) or len(found) != 3:
        raise CheckFailure("Return three tensors: weights, chosen, probabilities")
    return found[0], found[1], found[2]


def draw_logits(rng: torch.Generator, *shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=rng)


def probabilities_of_experts(student: Any, rng: torch.Generator) -> None:
    """The probabilities of all experts are a softmax, for any number of leading axes"""
    for shape in ((4,), (5, 3), (2, 7, 6)):
        logits = draw_logits(rng, *shape)
        _, _, found = routed(student, logits, 2)
        assert_close(found, logits.softmax(-1), f"Logits of shape {shape}: probabilities are wrong")


def best_first(student: Any, rng: torch.Generator) -> None:
    """Chosen are the most probable experts, the best first"""
    for top_k in (1, 2, 3):
        logits = draw_logits(rng, 2, 6, 5)
        _, chosen, _ = routed(student, logits, top_k)
        expected = logits.argsort(dim=-1, descending=True)[..., :top_k]
        assert_equal(chosen, expected, f"top_k = {top_k}: other experts should be chosen")


def weights_of_several(student: Any, rng: torch.Generator) -> None:
    """With several experts, their weights are their probabilities, made to add up to 1"""
    for top_k in (2, 4):
        logits = draw_logits(rng, 3, 5, 6)
        weights, _, _ = routed(student, logits, top_k)
        found = logits.softmax(-1).sort(dim=-1, descending=True).values[..., :top_k]
        expected = found / found.sum(-1, keepdim=True)
        assert_close(weights, expected, f"top_k = {top_k}: the weights are wrong")


def weight_of_one(student: Any, rng: torch.Generator) -> None:
    """With a single expert, its weight is its probability, and the router can learn from it"""
    logits, direction = draw_logits(rng, 8, 4), draw_logits(rng, 8, 1)
    mine, twin = (logits.clone().requires_grad_() for _ in range(2))
    weights, _, _ = routed(student, mine, 1)
    expected = twin.softmax(-1).amax(-1, keepdim=True)
    assert_close(weights, expected, "top_k = 1: the weights are wrong")
    if not weights.requires_grad:
        raise CheckFailure("top_k = 1: no gradient flows from the weights back to the logits")
    (weights * direction).sum().backward()
    (expected * direction).sum().backward()
    assert_close(mine.grad, twin.grad, "top_k = 1: the gradient that reaches the logits is wrong")


def in_float32(student: Any, rng: torch.Generator) -> None:
    """With bfloat16 logits, softmax and weights are computed in float32"""
    logits = draw_logits(rng, 6, 5).bfloat16()
    weights, _, probabilities = routed(student, logits, 2)
    expected = logits.float().softmax(-1)
    assert_close(probabilities, expected, "bfloat16 logits: the probabilities are wrong")
    best = expected.topk(2).values
    best = best / best.sum(-1, keepdim=True)
    assert_close(weights, best, "bfloat16 logits: the weights are wrong")


ROUTE = Exercise(
    id="moe.route",
    reference="course_utils.models.gpt.moe:route",
    title="The router's choice",
    points=4,
    minutes=15,
    difficulty=2,
    checks=(probabilities_of_experts, best_first, weights_of_several, weight_of_one, in_float32),
    mutants=(
        Mutant(
            replace=("    if top_k > 1:\n        weights =", "    weights ="),
            says="With a single expert you divide its probability by itself. The weight is 1 "
            "whatever the router thinks, so no gradient tells it which choice was good. Divide "
            "only when top_k > 1.",
            why="The rule for several experts looks general.",
        ),
        Mutant(
            replace=("weights / weights.sum(dim=-1, keepdim=True)", "weights"),
            says="Your weights do not add up to 1: divide those of the chosen experts by their "
            "sum. Otherwise the output shrinks by what the others would have got.",
            why="They are probabilities already, and those add up to one, over all experts.",
        ),
        Mutant(
            replace=("weights.sum(dim=-1, keepdim=True)", "weights.sum()"),
            says="You divide by the sum over all tokens. Each token's weights add up to 1 by "
            "themselves: sum over the last axis, with keepdim=True.",
            why="`sum()` is shorter, and right for a single token.",
        ),
        Mutant(
            replace=("softmax(dim=-1)", "sigmoid()"),
            says="You took sigmoid, where experts do not compete. Here the probabilities are a "
            "softmax over all experts.",
            why="DeepSeek-V3 routes that way.",
        ),
        Mutant(
            replace=("logits.float().softmax(dim=-1)", "logits.float().softmax(dim=0)"),
            says="Your softmax goes over the tokens. It is each token that chooses among experts: "
            "the last axis.",
            why="There is also routing in which experts choose tokens.",
        ),
        Mutant(
            replace=("logits.float().softmax(dim=-1)", "logits.softmax(dim=-1)"),
            says="You compute in the logits' dtype. In bfloat16 a probability has two or three "
            "digits, and close experts become equal: compute in float32, `logits.float()`.",
            why="With float32 inputs it does not show.",
        ),
        Mutant(
            replace=("probabilities.topk(", "probabilities.detach().topk("),
            says="No gradient flows through your weights. The choice has none, but the weights of "
            "the chosen experts do: that is how a router learns.",
            why="Choosing cannot be differentiated, so gradients are switched off.",
        ),
        Mutant(
            replace=("topk(top_k, dim=-1)", "topk(top_k, dim=-1, largest=False)"),
            says="You chose the experts with the lowest probabilities.",
            why="Sorting goes upwards unless told otherwise.",
        ),
        Mutant(
            replace=("return weights, chosen, ", "return weights, chosen.sort().values, "),
            says="You sorted the experts by their numbers, and their weights stayed where they "
            "were: the best expert comes first.",
            why="A tidy list looks better.",
        ),
    ),
    hints=(
        "Three lines: a softmax, `topk`, and a division that is not always done.",
        "`tensor.topk(k, dim=-1)` returns values and indices, the largest first.",
        "probabilities = logits.float().softmax(-1); weights, chosen = probabilities.topk(top_k); "
        "and if top_k > 1, weights / weights.sum(-1, keepdim=True).",
    ),
)  # fmt: skip


# --- Mixture of experts: balance -----------------------------------------------------------------


def draw_routing(
    rng: torch.Generator, *shape: int, n_experts: int = 5, top_k: int = 1
) -> tuple[Tensor, Tensor]:
    probabilities = draw_logits(rng, *shape, n_experts).softmax(-1)
    return probabilities, probabilities.topk(top_k).indices


def by_hand(student: Any, rng: torch.Generator) -> None:
    """Four tokens and two experts, computed by hand"""
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]])
    chosen = torch.tensor([[0], [0], [0], [1]])
    # f = (3/4, 1/4), P = (0.7, 0.3): 2 · (0.525 + 0.075)
    found = student(probabilities, chosen)
    assert_close(found, torch.tensor(1.2), "f = (0.75, 0.25), P = (0.7, 0.3): the loss is wrong")


def a_row_each(student: Any, rng: torch.Generator) -> None:
    """One number for each row, and a single one without rows"""
    for shape in ((9,), (3, 8), (2, 2, 6)):
        probabilities, chosen = draw_routing(rng, *shape)
        expected = moe.balance_loss(probabilities, chosen)
        assert_close(
            student(probabilities, chosen), expected, f"Tokens of shape {shape}: the loss is wrong"
        )


def several_choices(student: Any, rng: torch.Generator) -> None:
    """With several experts for each token, every choice counts, and even loads still give 1"""
    chosen = torch.tensor([[[0, 1], [2, 3], [1, 2], [3, 0]]])
    even = torch.full((1, 4, 4), 0.25)
    assert_close(
        student(even, chosen), torch.ones(1), "Two experts each, evenly: the loss is wrong"
    )
    probabilities, chosen = draw_routing(rng, 3, 7, top_k=3)
    expected = moe.balance_loss(probabilities, chosen)
    assert_close(student(probabilities, chosen), expected, "Three experts each: the loss is wrong")


def pushes_back(student: Any, rng: torch.Generator) -> None:
    """The gradient lowers the probability of experts that are chosen too often"""
    probabilities, chosen = draw_routing(rng, 2, 8)
    mine, twin = (probabilities.clone().requires_grad_() for _ in range(2))
    loss = student(mine, chosen)
    expected = moe.balance_loss(twin, chosen)
    assert_close(loss, expected, "The loss is wrong")
    if not loss.requires_grad:
        raise CheckFailure("No gradient flows from the loss back to the probabilities")
    loss.sum().backward()
    expected.sum().backward()
    assert_close(mine.grad, twin.grad, "The gradient of the probabilities is wrong")


def padding_does_not_count(student: Any, rng: torch.Generator) -> None:
    """Padding counts neither in f nor in P, and a row of padding gives 0"""
    probabilities, chosen = draw_routing(rng, 3, 8, top_k=2)
    counts = torch.arange(8) < torch.tensor([[5], [8], [0]])
    expected = moe.balance_loss(probabilities, chosen, counts)
    message = "5, 8 and 0 of 8 tokens count: the losses are wrong"
    assert_close(student(probabilities, chosen, counts), expected, message)


EVEN = "return n_experts * (hits.mean(-2) * probabilities.mean(-2)).sum(-1)"

BALANCE = Exercise(
    id="moe.balance_loss",
    reference="course_utils.models.gpt.moe:balance_loss",
    title="Even loads",
    points=4,
    minutes=20,
    difficulty=3,
    checks=(by_hand, a_row_each, several_choices, pushes_back, padding_does_not_count),
    mutants=(
        Mutant(
            replace=(EVEN + "\n    real",
                     "return (hits.mean(-2) * probabilities.mean(-2)).sum(-1)\n    real"),
            says="The factor n_experts is missing: even loads should give 1, whatever the number "
            "of experts.",
            why="The sum is the idea; the factor looks like a mere scale.",
        ),
        Mutant(
            replace=("scatter(-1, chosen, 1.0 / top_k)", "scatter(-1, chosen, 1.0)"),
            says="Your shares add up to top_k. There are seq · top_k choices: divide by top_k, "
            "too.",
            why="Switch has a single choice per token; and transformers leaves it out as well.",
        ),
        Mutant(
            replace=("scatter(-1, chosen, 1.0 / top_k)", "scatter(-1, chosen[..., :1], 1.0)"),
            says="You count each token's first choice alone. All of its top_k experts process it.",
            why="The paper has one choice per token.",
        ),
        Mutant(
            replace=(EVEN + "\n    real",
                     "return n_experts * (probabilities.mean(-2) ** 2).sum(-1)\n    real"),
            says="You squared the mean probabilities, and the choices play no part. f is a share "
            "of choices: count them.",
            why="The soft version can be differentiated everywhere.",
        ),
        Mutant(
            replace=(EVEN + "\n    real",
                     "return n_experts * (hits.mean(-2) ** 2).sum(-1)\n    real"),
            says="You squared the shares. A count passes no gradient, so nothing would be "
            "learned: multiply them with the mean probabilities.",
            why="The load should be even, so measuring the load seems right.",
        ),
        Mutant(
            replace=(EVEN + "\n    real",
                     "return n_experts * (hits * probabilities).mean(-2).sum(-1)\n    real"),
            says="You multiply token by token and then take the mean. Take both means first: f and "
            "P belong to an expert, not to a token.",
            why="The code is shorter with one mean instead of two.",
        ),
        Mutant(
            replace=("    if counts is None:\n", "    if True:\n"),
            says="You leave `counts` out: padding changes your loss.",
            why="Without packed rows there is none.",
        ),
        Mutant(
            replace=("n_tokens = real.sum(-2).clamp(min=1)", "n_tokens = probabilities.shape[-2]"),
            says="You divide by the length of the row. With padding there are fewer tokens that "
            "count: divide by their number.",
            why="`mean` divides by the length of the row.",
        ),
        Mutant(
            replace=("real.sum(-2).clamp(min=1)", "real.sum(-2)"),
            says="A row of padding alone gives 0/0, which is nan, and one nan spoils the whole "
            "batch. Divide by at least 1.",
            why="Such rows are rare.",
        ),
    ),
    hints=(
        "First a table like `probabilities`, with a number at each chosen expert and zeros "
        "elsewhere: `torch.zeros_like(probabilities).scatter(-1, chosen, …)`.",
        "f is the mean of that table over the tokens (axis −2), P the mean of the probabilities. "
        "A choice counts 1 / top_k, so that f adds up to 1.",
        "With `counts`, multiply both by counts[..., None] before summing over the tokens, and "
        "divide by the number of tokens that count, at least 1.",
    ),
)  # fmt: skip


EXERCISES = (LOG_PROBS, DPO, ADVANTAGES, GRPO, SOFT_TARGETS, ROUTE, BALANCE)
