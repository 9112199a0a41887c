"""Gradients, three ways: measured, passed back through a graph, and derived for one layer.

    measured      (f(x + ε) − f(x − ε)) / 2ε      slow, approximate, needs no thinking: the referee
    graph         chain rule, node by node        what `loss.backward()` does
    one layer     dx, dW, db in closed form       what each of PyTorch's operators brings along

A `Scalar` records the graph of a calculation with numbers, as PyTorch does with tensors.
"""

import math
from collections.abc import Callable
from graphlib import TopologicalSorter

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def numerical_gradient(
    function: Callable[[Float[Tensor, "..."]], Float[Tensor, ""]],
    x: Float[Tensor, "..."],
    epsilon: float = 1e-6,
) -> Float[Tensor, "..."]:
    """Measure the gradient of `function` at `x`, one element of `x` after the other.

    `function` takes a tensor of `x`'s shape and returns a scalar tensor. With eᵢ a tensor of zeros
    but for a single 1 at position i, the central difference is

        ∂f/∂xᵢ ≈ (f(x + ε·eᵢ) − f(x − ε·eᵢ)) / 2ε

    Its error shrinks with ε², that of the one-sided difference (f(x + ε·eᵢ) − f(x)) / ε only with
    ε. The result has the shape and dtype of `x`; `x` itself is unchanged when the function returns,
    to the last bit (+ε, −2ε, +ε would round: keep the old value, or work on a copy).
    """
    steps = epsilon * torch.eye(x.numel(), dtype=x.dtype, device=x.device)
    slopes = [
        (function(x + step) - function(x - step)) / (2 * epsilon)
        for step in steps.reshape(-1, *x.shape)
    ]
    return torch.stack(slopes).reshape(x.shape)


def backpropagate(graph: dict[str, dict[str, float]], output: str) -> dict[str, float]:
    """The derivative of one node of a graph by every node of it: the chain rule, backwards.

    `graph` has an entry for every node: the nodes that it was computed from, its parents, and its
    derivative by each of them. For y = a · b with a = 2 and b = 3, and z = y + a:

        {"z": {"y": 1.0, "a": 1.0}, "y": {"a": 3.0, "b": 2.0}, "a": {}, "b": {}}

    The result maps every node n to ∂output/∂n. For the output itself that is 1. Elsewhere it is a
    sum over all nodes c that were computed from n, of ∂output/∂c · ∂c/∂n, so a node may only be
    passed on to its parents when its own sum is complete. A node that the output does not depend on
    has the derivative 0. In the example, backpropagate(graph, "z") is

        {"z": 1.0, "y": 1.0, "a": 4.0, "b": 2.0}

    Each edge is used once: a graph may have far more paths than edges. The standard library's
    `graphlib.TopologicalSorter(graph).static_order()` yields every node after its parents.
    `graph` is not modified.
    """
    gradients = dict.fromkeys(graph, 0.0)
    gradients[output] = 1.0
    for node in reversed([*TopologicalSorter(graph).static_order()]):
        for parent, slope in graph[node].items():
            gradients[parent] += gradients[node] * slope
    return gradients


def linear_backward(
    x: Float[Tensor, "*batch d_in"],
    weight: Float[Tensor, "d_out d_in"],
    dy: Float[Tensor, "*batch d_out"],
) -> tuple[Float[Tensor, "*batch d_in"], Float[Tensor, "d_out d_in"], Float[Tensor, " d_out"]]:
    """The backward pass of a linear layer y = x Wᵀ + b: returns (dx, dw, db).

    `dy` is the gradient of the loss by y, an array of y's shape. By the chain rule the loss changes

        by one input    dxᵢ  = Σₒ dyₒ Wₒᵢ          for each example, over all outputs o
        by one weight   dWₒᵢ = Σₙ dyₙₒ xₙᵢ         over all examples n
        by one bias     dbₒ  = Σₙ dyₙₒ             over all examples n

    Sums, not means: if the loss is a mean over examples, `dy` has that factor in it already. `x`
    may have any number of leading axes (a batch of sequences: batch, seq, d_in), also none; the
    sums over examples run over all of them. Shapes: `dx` as `x`, `dw` as `weight`, `db` (d_out,).
    """
    rows, examples = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
    return dy @ weight, rows.T @ examples, rows.sum(dim=0)


class Scalar:
    """A number that remembers what it was computed from, and its derivative by each of those.

    `x = Scalar(2.0, "x")` is an input of the calculation. Arithmetic makes more of them:
    `y = (x * x + x.exp()).named("y")`. Then `y.graph()` is what `backpropagate` works on.
    """

    def __init__(self, value: float, name: str = "", *edges: tuple["Scalar", float]) -> None:
        self.value = value
        self.name = name
        # An operand may occur twice, as in x * x: its derivatives add up.
        self.slopes: dict[Scalar, float] = {}
        for parent, slope in edges:
            self.slopes[parent] = self.slopes.get(parent, 0.0) + slope

    def __repr__(self) -> str:
        return f"Scalar({self.value:.4g}, {self.name!r})"

    def named(self, name: str) -> "Scalar":
        """This scalar, with a name for its place in the graph."""
        self.name = name
        return self

    def __add__(self, other: "Scalar") -> "Scalar":
        return Scalar(self.value + other.value, "+", (self, 1.0), (other, 1.0))

    def __sub__(self, other: "Scalar") -> "Scalar":
        return Scalar(self.value - other.value, "−", (self, 1.0), (other, -1.0))

    def __mul__(self, other: "Scalar") -> "Scalar":
        return Scalar(self.value * other.value, "×", (self, other.value), (other, self.value))

    def __pow__(self, power: float) -> "Scalar":
        slope = power * self.value ** (power - 1)
        return Scalar(self.value**power, f"^{power:g}", (self, slope))

    def exp(self) -> "Scalar":
        value = math.exp(self.value)
        return Scalar(value, "exp", (self, value))

    def tanh(self) -> "Scalar":
        value = math.tanh(self.value)
        return Scalar(value, "tanh", (self, 1 - value**2))

    def nodes(self) -> dict[str, "Scalar"]:
        """Everything this scalar was computed from, itself included, by name, parents first.

        Nodes of one name are told apart by a number: "×", "× (2)", "× (3)".
        """
        by_name: dict[str, Scalar] = {}
        order = TopologicalSorter(self._parents()).static_order()
        for node in order:
            name, count = node.name, 1
            while name in by_name:
                count += 1
                name = f"{node.name} ({count})"
            by_name[name] = node
        return by_name

    def graph(self) -> dict[str, dict[str, float]]:
        """For every node its parents, and its derivative by each: what `backpropagate` takes."""
        by_name = self.nodes()
        names = {node: name for name, node in by_name.items()}
        return {
            name: {names[parent]: slope for parent, slope in node.slopes.items()}
            for name, node in by_name.items()
        }

    def _parents(self) -> dict["Scalar", list["Scalar"]]:
        found: dict[Scalar, list[Scalar]] = {}
        waiting = [self]
        while waiting:
            node = waiting.pop()
            if node not in found:
                found[node] = list(node.slopes)
                waiting += node.slopes
        return found
