"""Direct preference optimisation: learning from which of two answers is better."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def dpo_loss(
    chosen: Float[Tensor, "pairs"],
    rejected: Float[Tensor, "pairs"],
    reference_chosen: Float[Tensor, "pairs"],
    reference_rejected: Float[Tensor, "pairs"],
    beta: float = 0.1,
) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs"], Float[Tensor, "pairs"]]:
    """The DPO loss of each pair of answers, and what the model thinks the answers are worth.

        reward(answer) = β · (log π(answer | question) − log π_ref(answer | question))
        loss           = −log σ(reward(chosen) − reward(rejected))

    A model that has moved towards an answer, measured from where it started, thinks well of it:
    that is its *implicit reward*. σ is the logistic function, so σ(difference) is the probability
    with which the model would prefer the chosen answer, and the loss is its negative logarithm. It
    must stay finite for differences in the hundreds, where σ itself rounds to 0.

    Args:
        chosen, rejected: log π of whole answers under the model that learns.
        reference_chosen, reference_rejected: the same under the model that it started from.
        beta: how much a step away from the reference is worth; a larger β keeps closer to it.

    Returns:
        loss, reward of the chosen answer, reward of the rejected one: each of shape (pairs,), in
        this order. Gradients flow through all three.

    Paper: Rafailov et al. (2023), "Direct Preference Optimization: Your Language Model is Secretly
    a Reward Model".
    """
    chosen_reward = beta * (chosen - reference_chosen)
    rejected_reward = beta * (rejected - reference_rejected)
    loss = -F.logsigmoid(chosen_reward - rejected_reward)
    return loss, chosen_reward, rejected_reward
