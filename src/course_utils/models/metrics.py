"""How good is a classifier, or a language model?"""

import math

from jaxtyping import Float, Int
from torch import Tensor


def accuracy(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> float:
    """The share of examples that are classified correctly, a float from 0.0 to 1.0.

    Each row of `logits` holds one example's scores, one for each class. The class with the largest
    score is the prediction; the example counts as correct if that equals its label.
    """
    predictions = logits.argmax(dim=1)
    return (predictions == labels).sum().item() / len(labels)


def bits_per_byte(
    losses: Float[Tensor, " tokens"],
    tokens: Int[Tensor, " tokens"],
    token_bytes: Int[Tensor, " vocab"],
) -> float:
    """How many bits a language model needs for a byte of text, whatever its tokenizer.

        bits per byte = Σ losses / ln 2 / Σ bytes

    A loss per token cannot be compared between tokenizers: longer tokens are fewer and harder to
    guess. Per byte of the text it can; 8 would be no compression at all.

    Args:
        losses: −ln p of each token, in nats. A bit is ln 2 nats.
        tokens: the id of each token.
        token_bytes: the number of bytes that each id of the vocabulary stands for. Special tokens
            have 0: they are not text, so neither their losses nor their bytes count.
    """
    n_bytes = token_bytes[tokens]
    nats = losses[n_bytes > 0].sum().item()
    return nats / math.log(2) / n_bytes.sum().item()
