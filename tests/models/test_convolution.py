"""Convolution and pooling against PyTorch's own."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from course_utils.models.functional import conv2d, max_pool2d


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradients(y: torch.Tensor, leaves: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    pull = torch.randn(y.shape, generator=generator(9), dtype=y.dtype)
    return torch.autograd.grad(y, leaves, pull)


class TestConv2d:
    @pytest.mark.parametrize(
        ("kernel", "stride", "padding", "with_bias"),
        itertools.product([(1, 1), (3, 3), (5, 2), (2, 4)], [1, 2, 3], [0, 1, 2], [False, True]),
    )
    def test_equals_torch_with_its_gradients(self, kernel, stride, padding, with_bias):
        rng = generator(stride)
        shapes = [(2, 3, 8, 11), (4, 3, *kernel)] + [(4,)] * with_bias
        leaves = [
            torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True)
            for shape in shapes
        ]
        bias = leaves[2] if with_bias else None
        y = conv2d(leaves[0], leaves[1], bias, stride, padding)
        expected = F.conv2d(leaves[0], leaves[1], bias, stride, padding)
        torch.testing.assert_close(y, expected)
        for mine, torchs in zip(gradients(y, leaves), gradients(expected, leaves), strict=True):
            torch.testing.assert_close(mine, torchs)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_keeps_dtype_and_arguments(self, dtype):
        x = torch.randn(2, 1, 6, 6, generator=generator()).to(dtype)
        weight = torch.randn(3, 1, 3, 3, generator=generator(1)).to(dtype)
        before = x.clone()
        y = conv2d(x, weight, padding=1)
        assert y.dtype == dtype and y.shape == (2, 3, 6, 6)
        assert torch.equal(x, before)

    def test_a_kernel_as_large_as_the_image_is_a_dot_product(self):
        x, weight = torch.randn(2, 2, 3, 5, 4, generator=generator())
        torch.testing.assert_close(conv2d(x, weight).flatten(1), x.flatten(1) @ weight.flatten(1).T)

    def test_a_shifted_image_gives_a_shifted_map(self):
        x = torch.randn(1, 1, 12, 12, generator=generator())
        weight = torch.randn(2, 1, 3, 3, generator=generator(1))
        y, later = conv2d(x, weight), conv2d(x.roll((2, 3), (2, 3)), weight)
        torch.testing.assert_close(later[:, :, 2:, 3:], y[:, :, :-2, :-3])

    @pytest.mark.parametrize("shape", [(1, 3, 9, 9), (1, 1, 2, 9)])
    def test_wrong_channels_or_an_image_too_small_are_errors(self, shape):
        with pytest.raises(RuntimeError):
            conv2d(torch.zeros(shape), torch.zeros(4, 1, 3, 3))


class TestMaxPool2d:
    @pytest.mark.parametrize(
        ("size", "kernel", "stride"),
        itertools.product([(4, 4), (7, 9), (11, 6)], [1, 2, 3], [None, 1, 2, 3]),
    )
    def test_equals_torch_with_its_gradient(self, size, kernel, stride):
        """On small whole numbers too: most windows then hold their maximum more than once."""
        smooth = torch.randn(2, 3, *size, generator=generator(), dtype=torch.float64)
        tied = torch.randint(-2, 2, (2, 3, *size), generator=generator()).double()
        for x in (smooth, tied, tied.relu()):
            x.requires_grad_()
            y, expected = max_pool2d(x, kernel, stride), F.max_pool2d(x, kernel, stride)
            assert torch.equal(y, expected)
            torch.testing.assert_close(gradients(y, [x]), gradients(expected, [x]))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_keeps_dtype(self, dtype):
        x = torch.randn(1, 2, 6, 6, generator=generator()).to(dtype)
        y = max_pool2d(x, 2)
        assert y.dtype == dtype and torch.equal(y, F.max_pool2d(x, 2))

    def test_infinities_and_nan_come_through(self):
        x = torch.randn(1, 1, 4, 4, generator=generator())
        x[0, 0, 0, 0], x[0, 0, 2, 2], x[0, 0, :2, 2:] = torch.inf, torch.nan, -torch.inf
        torch.testing.assert_close(max_pool2d(x, 2), F.max_pool2d(x, 2), equal_nan=True)
