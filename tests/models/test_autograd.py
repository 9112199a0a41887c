"""Measured, propagated and derived gradients against PyTorch's autograd."""

import math

import pytest
import torch
from torch.nn import functional as F

from course_utils.models.autograd import (
    Scalar,
    backpropagate,
    linear_backward,
    numerical_gradient,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class TestNumericalGradient:
    @pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 3, 2)])
    def test_equals_autograd_in_any_shape(self, shape):
        def wave(x: torch.Tensor) -> torch.Tensor:
            return (x.sin() * x.exp()).sum() + x.mean() ** 3

        x = normal(*shape).requires_grad_()
        (expected,) = torch.autograd.grad(wave(x), x)
        torch.testing.assert_close(numerical_gradient(wave, x), expected, rtol=1e-6, atol=1e-8)

    def test_error_falls_with_the_square_of_the_step(self):
        """For x³ the central difference is 3x² + ε²; a one-sided one is off by 3xε."""
        x = torch.tensor([2.0], dtype=torch.float64)
        for epsilon in (0.1, 0.01):
            slope = numerical_gradient(lambda x: x.pow(3).sum(), x, epsilon)
            assert math.isclose(slope.item(), 12 + epsilon**2, rel_tol=1e-10)

    def test_leaves_x_alone_and_records_no_graph(self):
        x = normal(4).requires_grad_()
        before = x.detach().clone()
        assert not numerical_gradient(torch.var, x).requires_grad
        assert torch.equal(x, before)


class TestBackpropagate:
    def test_example_of_its_docstring(self):
        graph = {"z": {"y": 1.0, "a": 1.0}, "y": {"a": 3.0, "b": 2.0}, "a": {}, "b": {}}
        assert backpropagate(graph, "z") == {"z": 1.0, "y": 1.0, "a": 4.0, "b": 2.0}

    def test_nodes_without_a_path_have_derivative_zero(self):
        graph = {"late": {"y": 2.0}, "y": {"x": 3.0}, "x": {}, "other": {}}
        assert backpropagate(graph, "y") == {"late": 0.0, "y": 1.0, "x": 3.0, "other": 0.0}

    def test_is_linear_in_the_edges(self):
        """2¹⁰⁰⁰ paths, and deeper than Python's recursion goes."""
        graph: dict[str, dict[str, float]] = {"0": {}}
        for i in range(1000):
            graph |= {f"a{i}": {f"{i}": 0.5}, f"b{i}": {f"{i}": 0.5}}
            graph[f"{i + 1}"] = {f"a{i}": 1.0, f"b{i}": 1.0}
        assert backpropagate(graph, "1000")["0"] == 1.0


class TestScalar:
    def test_equals_autograd_on_a_calculation_with_reuse(self):
        def calculation(x, w, b):  # of Scalars or of tensors
            hidden = x + (w * x + b).tanh()
            return (hidden - w * w).exp() * hidden + (b - x) ** 3

        values = (0.7, -0.4, 0.3)
        scalars = [Scalar(value, name) for value, name in zip(values, "xwb", strict=True)]
        result = calculation(*scalars).named("loss")
        gradients = backpropagate(result.graph(), "loss")

        leaves = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]
        loss = calculation(*leaves)
        loss.backward()
        assert math.isclose(result.value, loss.item(), rel_tol=1e-12)
        for leaf, name in zip(leaves, "xwb", strict=True):
            assert math.isclose(gradients[name], leaf.grad.item(), rel_tol=1e-12)

    def test_an_operand_used_twice_has_the_sum_of_both_slopes(self):
        x = Scalar(3.0, "x")
        assert (x * x).graph() == {"x": {}, "×": {"x": 6.0}}

    def test_nodes_of_one_name_are_told_apart(self):
        x, y = Scalar(1.0, "x"), Scalar(2.0, "y")
        assert set((x + y + x + y).graph()) == {"x", "y", "+", "+ (2)", "+ (3)"}
        assert set((x + Scalar(1.0, "x")).graph()) == {"x", "x (2)", "+"}


class TestLinearBackward:
    @pytest.mark.parametrize("leading", [(), (1,), (6,), (2, 3), (2, 3, 4)])
    @pytest.mark.parametrize("sizes", [(4, 3), (5, 5), (1, 1)])
    def test_equals_autograd(self, leading, sizes):
        d_in, d_out = sizes
        x, weight = normal(*leading, d_in), normal(d_out, d_in, seed=1)
        bias, dy = normal(d_out, seed=2), normal(*leading, d_out, seed=3)
        leaves = [leaf.requires_grad_() for leaf in (x, weight, bias)]
        expected = torch.autograd.grad(F.linear(*leaves), leaves, dy)
        torch.testing.assert_close(linear_backward(x, weight, dy), expected)

    def test_equals_measured_gradients(self):
        x, weight, dy = normal(3, 4), normal(2, 4, seed=1), normal(3, 2, seed=2)
        _, dw, _ = linear_backward(x, weight, dy)
        measured = numerical_gradient(lambda w: (dy * (x @ w.T)).sum(), weight)
        torch.testing.assert_close(dw, measured, rtol=1e-6, atol=1e-8)
