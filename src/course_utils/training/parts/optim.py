"""Optimizers: the update rules as pure functions, and classes that hold the optimizer state.

A rule takes one parameter, its gradient and its optimizer state, and returns the new parameter and
the new state. `SGD` and `AdamW` below apply a rule to every parameter of a model and keep the
optimizer state between steps. They have the interface of `torch.optim.Optimizer`, so they work
with schedulers, the `Trainer` and checkpoints.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def sgd_momentum(
    parameter: Float[Tensor, "*shape"],
    gradient: Float[Tensor, "*shape"],
    velocity: Float[Tensor, "*shape"],
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """One step of gradient descent with momentum, for one parameter.

    With θ the parameter, g the gradient, v the velocity, λ the weight decay, μ the momentum:

        g ← g + λ·θ               the pull of the L2 penalty λ/2·‖θ‖²
        v ← μ·v + g               the velocity, the new gradient at full weight
        d = v                     the direction, or with Nesterov
        d = g + μ·v               a look ahead along the new velocity
        θ ← θ − lr·d

    Args:
        parameter, gradient, velocity: same shape and dtype; none of them is changed in place.
            Before the first step the velocity is all zeros.
        lr: the learning rate, the length of the step.
        momentum: how much of the old velocity survives; 0 is plain gradient descent.
        weight_decay: the strength of the L2 penalty.
        nesterov: whether to look ahead.

    Returns:
        The new parameter and the new velocity.

    Papers: Polyak (1964), "Some methods of speeding up the convergence of iteration methods";
    Sutskever et al. (2013), "On the importance of initialization and momentum in deep learning".
    The conventions are those of `torch.optim.SGD`: lr multiplies the direction, not the velocity.
    """
    gradient = gradient + weight_decay * parameter
    velocity = momentum * velocity + gradient
    direction = gradient + momentum * velocity if nesterov else velocity
    return parameter - lr * direction, velocity


def adamw(
    parameter: Float[Tensor, "*shape"],
    gradient: Float[Tensor, "*shape"],
    mean: Float[Tensor, "*shape"],
    mean_square: Float[Tensor, "*shape"],
    step: int,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """One step of AdamW, for one parameter.

    With θ the parameter, g the gradient, m the mean, s the mean square, t the step, λ the decay:

        θ ← θ − lr·λ·θ                     decay first, apart from the gradient ("decoupled")
        m ← β₁·m + (1 − β₁)·g              running mean of the gradient
        s ← β₂·s + (1 − β₂)·g²             running mean of its square, element by element
        m̂ = m / (1 − β₁ᵗ)                  both start at zero and are too small at first;
        ŝ = s / (1 − β₂ᵗ)                  this takes the bias out
        θ ← θ − lr·m̂ / (√ŝ + ε)

    Args:
        parameter, gradient, mean, mean_square: same shape and dtype; none is changed in place.
            Before the first step mean and mean_square are all zeros.
        step: the number of this step, counted from 1.
        lr: the learning rate: about the largest change of one weight in one step.
        betas: (β₁, β₂), how slowly the two running means forget.
        eps: ε, keeps the division finite where gradients are almost zero.
        weight_decay: λ; each step takes the share lr·λ off every weight.

    Returns:
        The new parameter, the new m and the new s (as they are, without the bias taken out).

    Papers: Kingma and Ba (2015), "Adam: A Method for Stochastic Optimization"; Loshchilov and
    Hutter (2019), "Decoupled Weight Decay Regularization".
    """
    beta1, beta2 = betas
    parameter = parameter * (1 - lr * weight_decay)
    mean = beta1 * mean + (1 - beta1) * gradient
    mean_square = beta2 * mean_square + (1 - beta2) * gradient**2
    unbiased_mean = mean / (1 - beta1**step)
    unbiased_square = mean_square / (1 - beta2**step)
    parameter = parameter - lr * unbiased_mean / (unbiased_square.sqrt() + eps)
    return parameter, mean, mean_square


class _RuleOptimizer(torch.optim.Optimizer):
    """Applies `self.update` to every parameter that has a gradient.

    `setting_names` are the rule's settings among the entries of a parameter group; PyTorch and the
    schedulers keep entries of their own there.
    """

    setting_names: tuple[str, ...]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters from their gradients; `closure` computes the loss again first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            settings = {name: group[name] for name in self.setting_names}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad, self.state[parameter], settings)
        return loss

    def update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], settings: dict[str, Any]
    ) -> None:
        """Change one parameter in place and put into `state` what its next step needs."""
        raise NotImplementedError


class SGD(_RuleOptimizer):
    """Gradient descent with momentum for a whole model.

    Args:
        params: the model's parameters, or groups of them, as for any PyTorch optimizer.
        lr, momentum, weight_decay, nesterov: see `sgd_momentum`.
        rule: the update rule; a learner's own version of `sgd_momentum` fits here.
    """

    setting_names = ("lr", "momentum", "weight_decay", "nesterov")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        rule: Callable[..., tuple[Tensor, Tensor]] = sgd_momentum,
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov},
        )
        self.rule = rule

    def update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], settings: dict[str, Any]
    ) -> None:
        velocity = state["velocity"] if state else torch.zeros_like(parameter)
        moved, state["velocity"] = self.rule(parameter, gradient, velocity, **settings)
        parameter.copy_(moved)


class AdamW(_RuleOptimizer):
    """AdamW for a whole model.

    Args:
        params: the model's parameters, or groups of them, as for any PyTorch optimizer.
        lr, betas, eps, weight_decay: see `adamw`.
        rule: the update rule; a learner's own version of `adamw` fits here.
    """

    setting_names = ("lr", "betas", "eps", "weight_decay")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        rule: Callable[..., tuple[Tensor, Tensor, Tensor]] = adamw,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )
        self.rule = rule

    def update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], settings: dict[str, Any]
    ) -> None:
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["mean_square"] = torch.zeros_like(parameter)
        state["step"] += 1
        moved, state["mean"], state["mean_square"] = self.rule(
            parameter, gradient, state["mean"], state["mean_square"], state["step"], **settings
        )
        parameter.copy_(moved)
