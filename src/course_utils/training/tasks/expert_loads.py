"""How evenly a mixture of experts uses its experts, measured while it learns."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.models.gpt import GPT
from course_utils.models.gpt.moe import MoE, balance_loss


@dataclass(frozen=True)
class ExpertLoads:
    """A measure for a `LanguageTask`, on some held-out rows.

    Returns:
        "val_balance": the mean of `balance_loss` over rows and layers; 1 when all experts have
            equal shares. This is what training adds to the loss, before its coefficient.
        "val_busiest": the largest share of a layer's choices that one expert has.
    """

    tokens: Int[Tensor, "rows seq"]

    def __call__(self, model: GPT) -> dict[str, float]:
        loads, balance = expert_loads(model, self.tokens)
        return {"val_balance": balance.mean().item(), "val_busiest": loads.max().item()}


@torch.no_grad()
def expert_loads(
    model: GPT, tokens: Int[Tensor, "rows seq"]
) -> tuple[Float[Tensor, "layers n_experts"], Float[Tensor, "layers"]]:
    """Each expert's share of its layer's choices on some rows, and each layer's balance loss."""
    model.features(tokens.to(model.embedding.weight.device))
    loads, balance = [], []
    for layer in (block.mlp for block in model.blocks):
        assert isinstance(layer, MoE) and layer.routing is not None
        probabilities, chosen = layer.routing
        counts = chosen.flatten().bincount(minlength=probabilities.shape[-1])
        loads.append((counts / counts.sum()).cpu())
        balance.append(balance_loss(probabilities, chosen).mean().cpu())
        layer.routing = None
    return torch.stack(loads), torch.stack(balance)
