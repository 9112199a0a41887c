"""Which weights are these? A name says little: the run behind it may have been trained again."""

import hashlib

import torch
from torch import nn


def fingerprint(model: nn.Module) -> str:
    """What tells these weights from any others."""
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
