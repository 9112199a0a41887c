"""How good is a classifier?"""

from jaxtyping import Float, Int
from torch import Tensor


def accuracy(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> float:
    """The share of examples that are classified correctly, a float from 0.0 to 1.0.

    Each row of `logits` holds one example's scores, one for each class. The class with the largest
    score is the prediction; the example counts as correct if that equals its label.
    """
    predictions = logits.argmax(dim=1)
    return (predictions == labels).sum().item() / len(labels)
