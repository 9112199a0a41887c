"""Muon for a model's matrices, AdamW for the rest.

AdamW treats a matrix as independent numbers. Muon treats it as a linear map: it takes the running
mean of the gradient (momentum) and makes all its singular values about equal. So a step moves in
all directions of the gradient, not only in the few strongest.

    gradient ──► running mean ──► newton_schulz ──► step
                 (momentum)       U·S·Vᵀ → U·Vᵀ

Papers: Jordan et al. (2024), "Muon: An optimizer for hidden layers in neural networks"; Bernstein
and Newhouse (2024), "Old Optimizer, New Norm: An Anthology".
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.adamw import adamw

from course_utils.models.autocast import native_precision

OptimizerName = Literal["muon", "adamw"]

# The quintic a·s + b·s³ + c·s⁵ that lifts small singular values fastest and keeps all of them near
# one (Jordan et al., 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)


def newton_schulz(
    matrices: Float[Tensor, "*batch rows columns"], steps: int = 5
) -> Float[Tensor, "*batch rows columns"]:
    """Nearly the closest orthogonal matrices: U·S·Vᵀ becomes U·S′·Vᵀ with S′ between 0.7 and 1.2.

    With X scaled to singular values of at most 1, repeat

        A = X·Xᵀ
        X ← a·X + (b·A + c·A²)·X

    which applies the polynomial a·s + b·s³ + c·s⁵ to every singular value s and leaves the singular
    vectors alone: products of matrices instead of a decomposition. Singular values below about a
    thousandth of the largest stay smaller.

    Args:
        matrices: any number of matrices of one shape; none is changed in place.
        steps: repetitions; each multiplies small singular values by about 3.4.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # the smaller of the two products X·Xᵀ, XᵀX
    # The Frobenius norm is an upper bound of the largest singular value.
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """One optimizer, two rules: each parameter group names its own.

    A group with `rule="muon"` holds matrices, or stacks of them. With G the gradient, M its
    running mean, λ the decay:

        M ← μ·M + (1 − μ)·G
        O = newton_schulz(μ·M + (1 − μ)·G)             a look ahead, as in Nesterov's momentum
        W ← W − lr·λ·W − lr·√max(1, rows/columns)·O

    Matrices of one shape go through `newton_schulz` together. Every other group follows AdamW as
    PyTorch has it. `muon_groups` divides a model.

    Args:
        params: parameter groups.
        lr: the learning rate. For Muon it is the spectral norm of a step (0.02 is usual), whatever
            the gradient's size.
        momentum: μ, of Muon.
        steps: repetitions in `newton_schulz`.
        betas, eps: of AdamW.
        weight_decay: λ; each step takes the share lr·λ off every weight.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        *,
        rule: str = "muon",
        momentum: float = 0.95,
        steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "rule": rule,
            "momentum": momentum,
            "steps": steps,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters from their gradients; `closure` computes the loss again first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            if group["rule"] == "muon":
                self._muon(parameters, group)
            else:
                self._adamw(parameters, group)
        return loss

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # On loading, torch leaves step counts on the CPU, unless the group has fused=True.
        for parameter, entry in self.state.items():
            if "step" in entry:
                entry["step"] = entry["step"].to(parameter.device)

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = _gradients(parameters)
        means = [self._remembered(p, "mean") for p in parameters]
        torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, means, group["momentum"])
        alike: dict[torch.Size, list[int]] = defaultdict(list)
        for index, parameter in enumerate(parameters):
            alike[parameter.shape].append(index)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        for (*_, rows, columns), members in alike.items():
            stacked = torch.stack([ahead[i] for i in members])
            # The iteration forgives rounding, so it runs in the format that is fastest here.
            rough = stacked.to(_quick_dtype(stacked.device))
            together = newton_schulz(rough, group["steps"]).to(stacked.dtype)
            # A map to more dimensions than it comes from may step further (Jordan et al., 2024).
            size = group["lr"] * math.sqrt(max(1, rows / columns))
            torch._foreach_add_(
                [parameters[i] for i in members], list(together.unbind()), alpha=-size
            )

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if "step" not in self.state[parameter]:
                self.state[parameter]["step"] = torch.zeros((), device=parameter.device)
        adamw(
            parameters,
            _gradients(parameters),
            [self._remembered(p, "mean") for p in parameters],
            [self._remembered(p, "mean_square") for p in parameters],
            [],
            [self.state[p]["step"] for p in parameters],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _remembered(self, parameter: Tensor, name: str) -> Tensor:
        """The optimizer state of this name; zeros before the first step."""
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        return state[name]


@cache
def _quick_dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if native_precision(device) == "bf16" else torch.float32


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def muon_groups(
    model: nn.Module, *, lr_muon: float, lr: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Parameter groups for `MuonAdamW`: the blocks' matrices, and everything else.

    Embeddings and the output layer are tables with a row for each token; a row that is rare must
    be able to stay where it is, so they follow AdamW, and so do vectors such as norms' weights.

    Args:
        model: one whose repeated layers are in `blocks`, such as `GPT`.
        lr_muon, lr: the learning rates of the two groups.
        weight_decay: of the matrices; the rest does not decay.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in trained if p.ndim >= 2 and name.startswith("blocks.")]
    chosen = set(map(id, matrices))
    rest = [p for _, p in trained if id(p) not in chosen]
    return [
        {"params": matrices, "rule": "muon", "lr": lr_muon, "weight_decay": weight_decay},
        {"params": rest, "rule": "adamw", "lr": lr, "weight_decay": 0.0},
    ]


def make_optimizer(
    model: nn.Module,
    name: OptimizerName,
    *,
    lr: float,
    lr_muon: float,
    weight_decay: float,
    beta2: float,
    momentum: float = 0.95,
) -> torch.optim.Optimizer:
    """An optimizer over a language model's parameters; matrices decay, vectors do not.

    Args:
        lr: of AdamW, and with "muon" of what is no matrix of a block.
        lr_muon: of the blocks' matrices with "muon".
        momentum: of Muon; runs of a few hundred steps do better with 0.9.
    """
    betas = (0.9, beta2)
    if name == "muon":
        groups = muon_groups(model, lr_muon=lr_muon, lr=lr, weight_decay=weight_decay)
        return MuonAdamW(groups, betas=betas, momentum=momentum)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
