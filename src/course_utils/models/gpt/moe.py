"""Mixture of experts: several feed-forward networks, of which each token uses only a few.

A dense model spends all its weights on every token. Here a small router chooses the experts that
suit a token, so a model can know more than it computes with.

    tokens ─┬─► router ─► which experts, and how much each of them counts
            │                        │
            └─► sorted by expert ────┼─► expert 0 │ expert 1 │ expert 2 │ …  each on its own stretch
                                     └─► back in their own order, weighted and added

No token is dropped, however many choose the same expert, and no step goes from token to token.

Papers: Shazeer et al. (2017), "Outrageously Large Neural Networks"; Fedus, Zoph, Shazeer (2021),
"Switch Transformers"; Gale et al. (2022), "MegaBlocks" (sorting instead of dropping).
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from course_utils.base.ignored import IGNORED
from course_utils.models.autocast import in_compute_dtype

Routing = tuple[Float[Tensor, "batch seq n_experts"], Int[Tensor, "batch seq top_k"]]


def route(
    logits: Float[Tensor, "*tokens n_experts"], top_k: int
) -> tuple[
    Float[Tensor, "*tokens top_k"], Int[Tensor, "*tokens top_k"], Float[Tensor, "*tokens n_experts"]
]:
    """Which experts each token goes to, and how much each of them counts.

    1. The probabilities are the softmax of the logits over all experts, in float32 whatever the
       logits are.
    2. Chosen are the `top_k` experts with the highest probabilities, the highest first.
    3. With top_k > 1, the weights are their probabilities, divided by their sum (as in Mixtral and
       Qwen3-MoE): they add up to 1. With top_k = 1, the weight is the probability itself (as in
       Switch): divided by itself it would always be 1, and the router would never learn from the
       loss which choice was good.

    Returns:
        (weights, chosen, probabilities): of the chosen experts, their numbers, and of all experts.
        Weights and probabilities are float32, and gradients flow through both.
    """
    probabilities = logits.float().softmax(dim=-1)
    weights, chosen = probabilities.topk(top_k, dim=-1)
    if top_k > 1:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights, chosen, probabilities


def balance_loss(
    probabilities: Float[Tensor, "*rows seq n_experts"],
    chosen: Int[Tensor, "*rows seq top_k"],
    counts: Bool[Tensor, "*rows seq"] | None = None,
) -> Float[Tensor, "*rows"]:
    """How unevenly the tokens of each row are spread over the experts: 1 when evenly.

        n_experts · Σₑ fₑ · Pₑ

    fₑ is the share of the row's seq · top_k choices that fell on expert e, Pₑ the mean of its
    probability over the row's tokens. Where an expert is chosen too often, f is large, and the
    gradient makes its probability smaller; f itself is a count and passes no gradient. The largest
    value is n_experts / top_k: always the same experts, with certainty.

    Args:
        probabilities, chosen: as `route` returns them.
        counts: False for tokens that are only padding; neither f nor P sees them. A row of padding
            alone gives 0. None: all tokens count.

    Returns:
        One number for each row: without leading dimensions, a single one.

    Paper: Fedus, Zoph, Shazeer (2021), "Switch Transformers", equation 4, for top_k = 1.
    """
    n_experts, top_k = probabilities.shape[-1], chosen.shape[-1]
    hits = torch.zeros_like(probabilities).scatter(-1, chosen, 1.0 / top_k)
    if counts is None:
        return n_experts * (hits.mean(-2) * probabilities.mean(-2)).sum(-1)
    real = counts[..., None].to(probabilities.dtype)
    n_tokens = real.sum(-2).clamp(min=1)
    share, mean = (hits * real).sum(-2) / n_tokens, (probabilities * real).sum(-2) / n_tokens
    return n_experts * (share * mean).sum(-1)


def sort_by_expert(
    chosen: Int[Tensor, "tokens top_k"], n_experts: int
) -> tuple[Int[Tensor, "choices"], Int[Tensor, "n_experts"]]:
    """The tokens × top_k choices in the order of their experts, and where each expert's end.

    Returns:
        (order, ends): choice order[i] comes i-th (choice c is of token c // top_k); expert e's are
        those from ends[e − 1], or 0, up to and without ends[e]. Both stay on the device.
    """
    expert, order = chosen.flatten().sort(stable=True)
    numbers = torch.arange(n_experts, device=chosen.device)
    return order, torch.searchsorted(expert, numbers, right=True, out_int32=True)


class GroupedLinear(nn.Module):
    """A linear layer for each expert, without bias, in one tensor."""

    def __init__(self, n_experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_experts, outputs, inputs))
        nn.init.normal_(self.weight, std=inputs**-0.5)

    def forward(
        self, x: Float[Tensor, "choices inputs"], ends: Int[Tensor, "n_experts"]
    ) -> Float[Tensor, "choices outputs"]:
        """Each expert's stretch of `x`, times its own matrix; `ends` as from `sort_by_expert`."""
        weight = self.weight.to(x.dtype)
        aligned = x.shape[1] % 8 == weight.shape[1] % 8 == 0
        if x.is_cuda and x.dtype == torch.bfloat16 and aligned:
            return F.grouped_mm(x, weight.mT, offs=ends)  # so the CPU need not wait for the ends
        return _GroupedProduct.apply(x, weight, ends.tolist())


class _GroupedProduct(torch.autograd.Function):
    """A product for each stretch of rows, written to its place: nothing is cut or joined."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, ends: list[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.ends = ends
        out = x.new_empty(len(x), weight.shape[1])
        for expert, part in _stretches(ends):
            torch.mm(x[part], weight[expert].mT, out=out[part])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_out: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        to_x, to_weight = torch.empty_like(x), torch.empty_like(weight)
        for expert, part in _stretches(ctx.ends):
            torch.mm(to_out[part], weight[expert], out=to_x[part])
            torch.mm(to_out[part].mT, x[part], out=to_weight[expert])
        return to_x, to_weight, None


class _Reordered(torch.autograd.Function):
    """Rows in another order, each as often as it occurs there.

    Indexing would do; but its gradient adds rows one by one, as it cannot know that `order` is a
    permutation of the copies, so that the gradient only needs the way back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor, copies: int) -> Tensor:
        ctx.save_for_backward(back)
        ctx.copies = copies
        return x.index_select(0, order if copies == 1 else order // copies)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_out: Tensor) -> tuple[Tensor, None, None, None]:
        (back,) = ctx.saved_tensors
        to_copies = to_out.index_select(0, back)
        if ctx.copies > 1:
            to_copies = to_copies.unflatten(0, (-1, ctx.copies)).sum(1)
        return to_copies, None, None, None


def _stretches(ends: list[int]) -> list[tuple[int, slice]]:
    """Each expert's rows; those of an expert that nobody chose are empty."""
    return [(e, slice(start, end)) for e, (start, end) in enumerate(zip([0, *ends], ends))]  # noqa: B905


class MoE(nn.Module):
    """`n_experts` SwiGLU networks and a router that sends each token to `top_k` of them.

        Σ over the chosen experts e:  weightₑ · downₑ( silu(gateₑ(x)) · upₑ(x) )

    Args:
        d_model: width of the residual stream.
        d_ff: hidden width of each expert.
        n_experts: how many there are.
        top_k: how many a token uses.

    Attributes:
        routing: the probabilities and the choices of the latest tokens, for `balance_term`.
    """

    def __init__(self, d_model: int, d_ff: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.router = nn.Linear(d_model, n_experts, bias=False)
        self.gate_up = GroupedLinear(n_experts, d_model, 2 * d_ff)
        self.down = GroupedLinear(n_experts, d_ff, d_model)
        self.routing: Routing | None = None

    def forward(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        """Each token through its own experts."""
        x = in_compute_dtype(x)
        weights, chosen, probabilities = route(self.router(x), self.top_k)
        self.routing = probabilities, chosen
        order, ends = sort_by_expert(chosen.flatten(0, -2), len(self.gate_up.weight))
        back = order.argsort()
        gathered = _Reordered.apply(x.flatten(0, -2), order, back, self.top_k)
        gate, up = self.gate_up(gathered, ends).chunk(2, dim=-1)
        found = self.down(F.silu(gate) * up, ends)
        found = _Reordered.apply(found, back, order, 1).view(*chosen.shape, -1)
        weighted = found * weights[..., None].type_as(found)
        return weighted[..., 0, :] if self.top_k == 1 else weighted.sum(-2)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: all but the traces of the latest tokens."""
        return {**self.__dict__, "routing": None}


def balance_term(
    blocks: Iterable[nn.Module],
    targets: Int[Tensor, "batch seq"],
    documents: Int[Tensor, "batch seq"] | None = None,
) -> Float[Tensor, ""]:
    """What uneven experts add to a batch's summed loss, before it is scaled by its coefficient.

    Each row's `balance_loss`, summed over the layers, counts once for every target of the row; a
    loss that is divided by the number of targets then holds the rows' weighted mean. Rows do not
    know each other, so the sum is the same however a batch is divided into micro-batches or among
    processes. (Switch balances the tokens of a device together, and there it is not the same.
    Balancing every sequence is stricter; DeepSeek-V3, 2024, does it, too.)

    Args:
        blocks: those whose `mlp` is an `MoE`, after a forward pass. Their `routing` is forgotten,
            and with it the graph of that pass.
        documents: −1 where a row is only padding, which does not count.
    """
    n_targets = (targets != IGNORED).sum(-1)
    counts = None if documents is None else documents >= 0
    term = torch.zeros((), device=targets.device)
    for layer in (block.mlp for block in blocks):
        if not isinstance(layer, MoE) or layer.routing is None:
            continue
        term = term + (balance_loss(*layer.routing, counts) * n_targets).sum()
        layer.routing = None
    return term
