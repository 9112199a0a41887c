"""Group-relative policy optimisation: learning from the marks of one's own answers."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SMALLEST_SPREAD = 1e-4  # added to a group's standard deviation


def group_advantages(rewards: Float[Tensor, "groups size"]) -> Float[Tensor, "groups size"]:
    """How much better each answer is than the others to the same question.

        advantage = (reward − mean of its group) / (standard deviation of its group + 1e-4)

    The model is compared with itself: in a hard question's group a single right answer stands out,
    in an easy one's a single wrong answer does. A group whose answers all got the same reward has
    nothing to tell, and its advantages are 0.

    Args:
        rewards: a row for each question, a column for each answer to it.

    Returns:
        The advantages, of the same shape and dtype. The standard deviation is that of these numbers
        themselves: the root of the mean square, dividing by `size` and not by `size` − 1.

    Paper: Shao et al. (2024), "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open
    Language Models".
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    return centred / (spread + SMALLEST_SPREAD)


def kl_estimate(
    log_probs: Float[Tensor, "*shape"], reference: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """An estimate of KL(π ‖ π_ref) from a token that was drawn from π: the one called k3.

        r − log r − 1      with r = π_ref(token) / π(token)

    Its mean over tokens drawn from π is exactly the KL divergence. Unlike −log r, whose mean is the
    same, it is never negative, and 0 exactly where both models agree; so it wavers much less.

    Source: Schulman (2020), "Approximating KL Divergence".
    """
    log_ratio = reference - log_probs
    return torch.expm1(log_ratio) - log_ratio


def grpo_loss(
    log_probs: Float[Tensor, "answers seq"],
    old: Float[Tensor, "answers seq"],
    reference: Float[Tensor, "answers seq"],
    advantages: Float[Tensor, "answers"],
    completion_mask: Bool[Tensor, "answers seq"],
    clip: float = 0.2,
    kl_weight: float = 0.04,
) -> Float[Tensor, "answers"]:
    """GRPO's loss of each answer: say more of what was better than the group, not too much at once.

    For each token, with ratio = exp(log_probs − old) and A the advantage of its whole answer:

        gain = min( ratio · A,  clamp(ratio, 1 − clip, 1 + clip) · A )
        loss = −gain + kl_weight · kl_estimate(log_probs, reference)

    The minimum takes away the reward for going further than `clip` in the direction that A asks
    for, and leaves the way back open. An answer's loss is the mean over its tokens.

    Args:
        log_probs: of each token under the model that learns; gradients flow to these alone.
        old: under the model that drew the answers. When that is the learning model itself, the
            ratio is 1, and its gradient is that of log_probs.
        reference: under the model that learning started from.
        advantages: one for each answer.
        completion_mask: True where a token belongs to the answer; other positions do not count,
            whatever numbers they hold. Each answer has at least one token.
        clip: how far the ratio may move, ε in the paper.
        kl_weight: the price of moving away from the reference, β in the paper.

    Returns:
        One loss for each answer.

    Papers: Shao et al. (2024), "DeepSeekMath"; the clipped ratio is from Schulman et al. (2017),
    "Proximal Policy Optimization Algorithms".
    """
    ratio = (log_probs - old.detach()).exp()
    advantage = advantages[:, None]
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    loss = -gain + kl_weight * kl_estimate(log_probs, reference.detach())
    return loss.where(completion_mask, 0).sum(dim=1) / completion_mask.sum(dim=1)
