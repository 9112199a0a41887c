"""The functions of lesson 01 against PyTorch's own."""

import math

import pytest
import torch
from torch.nn import functional as F

from course_utils.models.functional import cross_entropy, pairwise_distances, softmax

DTYPES = (torch.float32, torch.float64)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class TestPairwiseDistances:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(1, 1, 1), (5, 8, 3), (40, 30, 784)])
    def test_equals_cdist(self, shape, dtype):
        n, m, features = shape
        x, y = normal(n, features, dtype=dtype), normal(m, features, seed=1, dtype=dtype)
        expected = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        torch.testing.assert_close(pairwise_distances(x, y), expected)

    def test_is_never_nan_where_points_coincide(self):
        x = normal(200, 16, dtype=torch.float32) + 100
        assert (x.square().sum(1)[:, None] + x.square().sum(1) - 2 * x @ x.T).min() < 0
        distances = pairwise_distances(x, x)
        assert distances.isfinite().all() and distances.diag().max() < 1

    def test_gradient(self):
        x, y = normal(4, 3).requires_grad_(), normal(5, 3, seed=1).requires_grad_()
        assert torch.autograd.gradcheck(pairwise_distances, (x, y))


class TestSoftmax:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("dim", [0, 1, 2, -1])
    def test_equals_torch(self, dim, dtype):
        x = 5 * normal(3, 4, 5, dtype=dtype)
        torch.testing.assert_close(softmax(x, dim=dim), torch.softmax(x, dim=dim))

    def test_survives_extreme_scores(self):
        x = torch.tensor([[1000.0, -1000.0], [-1000.0, -999.0], [-math.inf, 3.0]])
        torch.testing.assert_close(softmax(x), torch.softmax(x, dim=-1))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_keeps_a_small_dtype(self, dtype):
        x = normal(4, 6, dtype=dtype)
        torch.testing.assert_close(softmax(x), torch.softmax(x, dim=-1), rtol=2e-2, atol=1e-2)

    def test_gradient(self):
        assert torch.autograd.gradcheck(softmax, normal(3, 4).requires_grad_())


class TestCrossEntropy:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_equals_torch_with_its_gradient(self, dtype):
        logits = (5 * normal(7, 4, dtype=dtype)).requires_grad_()
        labels = torch.tensor([0, 1, 2, 3, 3, 0, 1])
        ours, theirs = cross_entropy(logits, labels), F.cross_entropy(logits, labels)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(
            *(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs))
        )

    def test_is_finite_when_certain_and_wrong(self):
        logits = torch.tensor([[1000.0, -1000.0]])
        assert cross_entropy(logits, torch.tensor([0])).item() == 0.0
        assert cross_entropy(logits, torch.tensor([1])).item() == 2000.0
