"""The nearest matrix of low rank: against the singular values, and as an adapter."""

import pytest
import torch
from torch import nn

from course_utils.models import lora
from course_utils.models.lora import LoRAConfig, LoRALinear, nearest_low_rank


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (9, 9)])
@pytest.mark.parametrize("rank", [1, 3, 9])
def test_what_is_left_over_is_what_the_dropped_singular_values_say(shape, rank):
    matrix = torch.randn(shape, dtype=torch.float64)
    up, down = nearest_low_rank(matrix, rank)
    assert up.shape == (shape[0], rank) and down.shape == (rank, shape[1])
    dropped = torch.linalg.svdvals(matrix)[rank:]
    torch.testing.assert_close((matrix - up @ down).norm(), dropped.square().sum().sqrt())
    torch.testing.assert_close(up.T @ up, down @ down.T)  # an equal share each


def test_a_low_rank_matrix_is_found_again():
    matrix = torch.randn(30, 4, dtype=torch.float64) @ torch.randn(4, 25, dtype=torch.float64)
    up, down = nearest_low_rank(matrix, 4)
    torch.testing.assert_close(up @ down, matrix)


def test_an_update_becomes_an_adapter():
    base, update = nn.Linear(8, 6), torch.randn(6, 2) @ torch.randn(2, 8)
    x = torch.randn(5, 8)
    expected = (base(x) + x @ update.T).detach()
    layer = LoRALinear(base, LoRAConfig(rank=2, alpha=2, targets=("*",)))
    with torch.no_grad():
        for own, found in zip((layer.up, layer.down), nearest_low_rank(update, 2), strict=True):
            own.copy_(found)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_under_autocast_the_input_is_rounded_once():
    x = torch.randn(3)
    assert lora.in_compute_dtype(x) is x
    with torch.autocast("cpu", torch.bfloat16):
        assert lora.in_compute_dtype(x).dtype == torch.bfloat16
