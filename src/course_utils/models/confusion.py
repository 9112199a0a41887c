"""Who is taken for whom: the table of a classifier's hits and confusions."""

import torch
from jaxtyping import Int, Int64
from torch import Tensor


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
