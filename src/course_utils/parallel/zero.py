"""ZeRO: data parallelism with sharded instead of replicated training state.

                 parameters   gradients   optimizer states
    stage 0      replicated   replicated  replicated          plain data parallelism
    stage 1      replicated   replicated  sharded
    stage 2      replicated   sharded     sharded
    stage 3      sharded      sharded     sharded

The functions below treat a model's parameters as one row of n values. Rank r owns chunk r of it,
`row.tensor_split(N)[r]`. They are collectives: see `simulate.collective` for the two ways to call
them.

Paper: Rajbhandari, Rasley, Ruwase and He (2020), "ZeRO: Memory Optimizations Toward Training
Trillion Parameter Models".
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_utils.parallel.buckets import flatten, unflatten
from course_utils.parallel.collectives import all_gather, all_reduce, reduce_scatter
from course_utils.parallel.link import Link
from course_utils.parallel.simulate import collective
from course_utils.training.parts.optim import adamw


@collective
def sharded_adamw(
    link: Link,
    parameters: Float[Tensor, "n"],
    gradient: Float[Tensor, "n"],
    mean: Float[Tensor, "shard"],
    mean_square: Float[Tensor, "shard"],
    *,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> tuple[Float[Tensor, "n"], Float[Tensor, "shard"], Float[Tensor, "shard"]]:
    """One step of AdamW of which every rank computes its shard only.

    1. `reduce_scatter` the gradients: this rank gets its chunk of their sum. The gradient of the
       whole batch is the **mean** over the ranks.
    2. `adamw` for this rank's chunk of the parameters, `parameters.tensor_split(N)[rank]`, with
       its mean and mean square: `adamw(parameter, gradient, mean, mean_square, step, lr=…, betas=…,
       eps=…, weight_decay=…)` returns the new values of the first, third and fourth.
    3. `all_gather` the chunks of the parameters.

    Args:
        link: this rank's connection.
        parameters: all of the model's, in a row; the same on every rank. Left as they are.
        gradient: of the loss of this rank's part of the batch, for all parameters. Left as it is.
        mean, mean_square: AdamW's state, of this rank's shard only. Left as they are.
        step: the number of this step, counted from 1.
        lr, betas, eps, weight_decay: AdamW's settings.

    Returns:
        All new parameters, and the new mean and mean square of this rank's shard.
    """
    own_gradient = reduce_scatter(link, gradient) / link.world_size
    own = parameters.tensor_split(link.world_size)[link.rank]
    own, mean, mean_square = adamw(
        own, own_gradient, mean, mean_square, step,
        lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
    )  # fmt: skip
    return all_gather(link, own), mean, mean_square


@collective
def clip_shard(
    link: Link, shard: Float[Tensor, "shard"], max_norm: float
) -> tuple[Float[Tensor, "shard"], Float[Tensor, ""]]:
    """Clip a gradient of which every rank holds a shard: the norm is that of the whole.

    With ‖g‖ the length of the whole gradient, the root of the sum of all squares on all ranks,
    every shard is multiplied by the one factor

        min(1, max_norm / (‖g‖ + 1e-6))

    `all_reduce(link, tensor)` adds up a tensor over the ranks, also one without axes.

    Args:
        link: this rank's connection.
        shard: this rank's, possibly empty. Left as it is.
        max_norm: the largest length allowed.

    Returns:
        The clipped shard, and ‖g‖ before clipping (without axes, the same on every rank).
    """
    norm = all_reduce(link, shard.square().sum()).sqrt()
    factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    return shard * factor, norm


class ShardedAdamW:
    """AdamW for a model on many ranks, with sharded optimizer state: ZeRO's first stage.

    It averages the gradients itself: the model needs no other wrapper.

    Args:
        link: this rank's connection; all ranks step together.
        params: of the model, equal on all ranks.
        lr, betas, eps, weight_decay: see `training.parts.optim.adamw`.
    """

    def __init__(
        self,
        link: Link,
        params: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        self.link, self.params = link, list(params)
        self.settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        own = flatten([p.detach() for p in self.params]).tensor_split(link.world_size)[link.rank]
        self.mean, self.mean_square = torch.zeros_like(own), torch.zeros_like(own)
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters, on all ranks alike."""
        self.steps += 1
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.params]
        row, self.mean, self.mean_square = sharded_adamw(
            self.link, flatten(self.params), flatten(gradients), self.mean, self.mean_square,
            step=self.steps, **self.settings,
        )  # fmt: skip
        for parameter, moved in zip(self.params, unflatten(row, self.params), strict=True):
            parameter.copy_(moved)

    def zero_grad(self) -> None:
        for parameter in self.params:
            parameter.grad = None
