"""The optimisers that labs for language models offer, by name."""

from typing import Literal

import torch
from torch import nn

from course_utils.training.muon import MuonAdamW, muon_groups

OptimizerName = Literal["muon", "adamw"]


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
    """An optimiser over a language model's parameters; matrices decay, vectors do not.

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
