"""Accuracy and bits per byte against counting by hand."""

import math

import pytest
import torch

from course_utils.models.metrics import accuracy, bits_per_byte


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


def test_bits_per_byte_of_a_model_that_knows_nothing():
    """256 equally likely bytes: 8 bits each; as tokens of two bytes, 16 bits each."""
    for size, n_bytes in ((256, 1), (256**2, 2)):
        losses = torch.full((10,), math.log(size))
        tokens = torch.arange(10)
        token_bytes = torch.full((10,), n_bytes)
        assert bits_per_byte(losses, tokens, token_bytes) == pytest.approx(8.0)


def test_bits_per_byte_weighs_bytes_not_tokens_and_ignores_special_tokens():
    losses = torch.tensor([math.log(2), 3 * math.log(2), 1000.0])
    token_bytes = torch.tensor([1, 7, 0])
    assert bits_per_byte(losses, torch.tensor([0, 1, 2]), token_bytes) == pytest.approx(4 / 8)
