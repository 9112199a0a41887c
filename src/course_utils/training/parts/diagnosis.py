"""Diagnose a training run from its metrics."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import mean

# What a run can suffer from, and the line of code or the setting that was wrong.
DIAGNOSES = {
    "healthy": "nothing is wrong",
    "fp16_overflow": "steps were taken with gradients that had overflowed",
    "scale_collapse": "no gradient is ever finite, whatever the loss scale: a NaN from elsewhere",
    "scale_stuck": "the loss scale is far too small and never grows: gradients become 0 in fp16",
    "labels_shifted_twice": "the targets of training lie two tokens ahead, not one",
    "documents_leak": "in training, documents packed into a row attend to each other",
    "accumulation_not_divided": "the losses of micro-batches are summed, not averaged",
    "no_warmup": "the learning rate is at its peak from the first step on, which harms the run",
    "dropout_in_evaluation": "the model was not in evaluation mode during evaluation",
    "lr_too_small": "the learning rate is far too small",
    "lr_too_large": "the learning rate is far too large, warm-up or not",
    "not_shuffled": "the rows were not shuffled: they came in stored order, one kind after another",
}


def diagnose(metrics: Mapping[str, Sequence[float]]) -> str:
    """What is wrong with a run, as one of the names in DIAGNOSES.

    Args:
        metrics: what the run recorded. In training, one number for each step:

            "loss"        mean loss of the step's batch, in nats
            "grad_norm"   norm of the gradient before clipping; NaN when it was not finite
            "lr"          learning rate
            "loss_scale"  the factor on the loss; only in runs in fp16

            and one for each evaluation on held-out rows, of which the first comes before all
            training, when the model knows nothing and is about as good as guessing:

            "val_loss"    mean loss in nats, measured correctly: each document by itself, one token
                          ahead
            "val_again"   the same, of the same weights on the same rows, measured a second time

    Returns:
        A key of DIAGNOSES. Every run has one thing wrong with it, or nothing. A healthy run falls
        well below guessing within its steps, and the losses of its last batches and of its last
        evaluation are about the same. In fp16, a scaler's first steps may be left out while it
        finds its factor: that is healthy.
    """
    loss, val, lr = metrics["loss"], metrics["val_loss"], metrics["lr"]
    scale = metrics.get("loss_scale")
    guessing, end = val[0], mean(loss[-6:])
    if not all(map(math.isfinite, loss)):
        return "fp16_overflow"
    if scale and scale[-1] < scale[0] / 2**10:
        return "scale_collapse"
    if scale and max(scale) < 1:
        return "scale_stuck"
    # The same weights, the same rows: only something random in the model can make a difference.
    if metrics["val_again"] != val:
        return "dropout_in_evaluation"
    # Before the first step a batch is worth what guessing is worth, unless it is counted wrongly.
    if loss[0] > 1.5 * guessing:
        return "accumulation_not_divided"
    if lr[0] == max(lr) and max(loss[:10]) > 1.1 * guessing:
        return "no_warmup"
    if max(loss[:10]) > 1.5 * guessing:
        return "lr_too_large"
    # A new kind of rows: the loss leaps up from one step to the next, in the middle of the run.
    if max(after - before for before, after in pairwise(loss[10:])) > 1:
        return "not_shuffled"
    # It gets better at something, and worse than guessing at what it is measured by.
    if val[-1] > guessing:
        return "labels_shifted_twice"
    if end > 0.9 * guessing:
        return "lr_too_small"
    if val[-1] > end + 0.4:
        return "documents_leak"
    return "healthy"
