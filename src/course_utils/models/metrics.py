"""How good is a classifier or a language model, and how large is it?"""

import math

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn


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


def confusion_matrix(
    labels: Int[Tensor, " n"], predictions: Int[Tensor, " n"], classes: int
) -> Int64[Tensor, "label prediction"]:
    """Count, for every class, what its examples were taken for.

    Entry [i, j] is the number of examples whose label is i and whose prediction is j: rows are the
    truth, the diagonal holds the hits. The table is (classes × classes) and int64, also when some
    class occurs in neither of the arguments, both of which are int64 and hold class numbers from 0
    to classes − 1.

    Write it without a loop: number the cells of the table row by row, and let `torch.bincount`
    count how often each number occurs.
    """
    cells = labels * classes + predictions
    return torch.bincount(cells, minlength=classes * classes).view(classes, classes)


def parameter_bytes(model: nn.Module) -> int:
    """Bytes that the parameters of `model` occupy.

    A parameter takes (number of values) × (bytes per value), and the bytes per value depend on its
    dtype: 4 for float32, 2 for bfloat16. Frozen parameters take memory too and count. A parameter
    that is used in two places (tied weights) exists once and counts once. Buffers, such as the
    running averages of batch normalisation, are not parameters and do not count.
    """
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
