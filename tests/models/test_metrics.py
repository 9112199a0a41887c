"""Accuracy against counting by hand."""

import torch

from course_utils.models.metrics import accuracy


def test_counts_correct_predictions():
    logits = torch.tensor([[1.0, 2.0, 0.0, 0.5], [3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, -1.0]])
    assert accuracy(logits, torch.tensor([1, 0, 0])) == 2 / 3
    assert accuracy(logits, torch.tensor([1, 0, 2])) == 1.0
    assert accuracy(logits, torch.tensor([0, 1, 0])) == 0.0


def test_is_exact_for_many_examples():
    """A float32 mean of 0s and 1s would stop counting at 2²⁴; a sum of booleans is an integer."""
    logits = torch.zeros(2**24 + 2, 1)
    assert accuracy(logits, torch.zeros(len(logits), dtype=torch.int64)) == 1.0


def test_takes_labels_of_any_integer_type():
    logits = torch.eye(3)
    assert accuracy(logits, torch.tensor([0, 1, 1], dtype=torch.uint8)) == 2 / 3
    assert isinstance(accuracy(logits, torch.tensor([0, 1, 2], dtype=torch.int32)), float)
