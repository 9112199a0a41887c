"""How likely a model finds the answers that somebody gave."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.base.ignored import IGNORED


def token_log_probs(
    logits: Float[Tensor, "rows seq vocab"], targets: Int[Tensor, "rows seq"]
) -> Float[Tensor, "rows seq"]:
    """The log-probability that a model gives to each token of an answer.

        log π(token at t + 1 | tokens up to t) = log_softmax(logits at t)[target at t]

    The sum over a row is log π(answer | question), as the probabilities of its tokens multiply.

    Args:
        logits: the model's, at each position of the question and the answer.
        targets: at each position the token that comes **next**, where that token belongs to the
            answer; IGNORED (−100) everywhere else: in the question, and in the padding.

    Returns:
        Float32, whatever the logits' type: the log-probability of each target, at its position,
        and 0 where the target is IGNORED. Gradients flow to the logits.
    """
    # Cross-entropy is minus this, and has a kernel that makes no second copy of the logits.
    losses = F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return -losses.view(targets.shape)
