"""Bytes of a model against sizes known by construction."""

import pytest
import torch
from torch import nn

from course_utils.models.metrics import parameter_bytes


@pytest.mark.parametrize(
    ("dtype", "size"), [(torch.float64, 8), (torch.float32, 4), (torch.bfloat16, 2)]
)
def test_depends_on_the_dtype(dtype, size):
    assert parameter_bytes(nn.Linear(10, 3, dtype=dtype)) == size * 33


def test_counts_tied_weights_once_and_frozen_ones_too():
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7, bias=False))
    model[1].weight = model[0].weight
    model.requires_grad_(False)
    assert parameter_bytes(model) == 4 * 28


def test_leaves_buffers_out():
    assert parameter_bytes(nn.BatchNorm1d(5)) == 4 * 2 * 5
    assert parameter_bytes(nn.ReLU()) == 0


def test_needs_no_memory_for_a_model_on_the_meta_device():
    with torch.device("meta"):
        assert parameter_bytes(nn.Linear(100_000, 100_000, bias=False)) == 40_000_000_000
