"""Muon's iteration against a decomposition, the optimizer against PyTorch's two."""

import copy
import math

import pytest
import torch
from torch import nn
from toy_training import toy_model, toy_trainer, trace

from course_utils.models.gpt import GPT, GPTConfig
from course_utils.training.parts.muon import QUINTIC, MuonAdamW, muon_groups, newton_schulz

SMALL = GPTConfig(
    vocab=31, d_model=24, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=12, d_ff=40, context=16
)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (3, 5, 7), (2, 3, 7, 5)])
def test_newton_schulz_applies_the_polynomial_to_the_singular_values(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape, dtype=torch.float64)
    before = matrices.clone()
    u, s, vt = torch.linalg.svd(matrices, full_matrices=False)
    s = s / s.norm(dim=-1, keepdim=True)
    a, b, c = QUINTIC
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(newton_schulz(matrices), u @ torch.diag_embed(s) @ vt)
    assert torch.equal(matrices, before)


def test_newton_schulz_brings_singular_values_near_one():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(newton_schulz(torch.randn(8, 32, 48)))
    assert values.min() > 0.6 and values.max() < 1.25


def test_newton_schulz_of_nothing_is_nothing():
    assert not newton_schulz(torch.zeros(3, 4, 5)).any()


def trained(model: nn.Module, optimizers: list[torch.optim.Optimizer], steps: int = 6) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        tokens = torch.randint(31, (4, 12), generator=generator)
        model.zero_grad()
        model(tokens[:, :-1], targets=tokens[:, 1:]).backward()
        for optimizer in optimizers:
            optimizer.step()
    return model


def test_it_equals_torchs_muon_and_torchs_adamw():
    torch.manual_seed(0)
    start = GPT(SMALL)
    ours, theirs = copy.deepcopy(start), copy.deepcopy(start)
    groups = muon_groups(ours, lr_muon=0.02, lr=0.003, weight_decay=0.1)
    trained(ours, [MuonAdamW(groups)])
    matrices, rest = (group["params"] for group in muon_groups(theirs, lr_muon=1, lr=1))
    trained(
        theirs,
        [
            torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, momentum=0.95),
            torch.optim.AdamW(rest, lr=0.003, betas=(0.9, 0.95), weight_decay=0.0),
        ],
    )
    for (name, mine), other, first in zip(
        ours.named_parameters(), theirs.parameters(), start.parameters(), strict=True
    ):
        # torch's Muon iterates in bfloat16, whose rounding is what remains of the difference.
        error = (mine - other).norm() / (other - first).norm()
        assert error < 0.05, f"{name}: {error:.3f} of what it moved"


def test_matrices_of_the_blocks_follow_muon_and_everything_else_adamw():
    model = GPT(SMALL)
    names = {id(p): name for name, p in model.named_parameters()}
    muon, rest = (
        {names[id(p)] for p in group["params"]} for group in muon_groups(model, lr_muon=1, lr=1)
    )
    assert muon | rest == set(names.values()) and not muon & rest
    assert rest == {"embedding.weight"} | {name for name in names.values() if "norm" in name}
    model.blocks[0].requires_grad_(False)
    frozen = muon_groups(model, lr_muon=1, lr=1)
    assert len(frozen[0]["params"]) == 7


def test_a_step_has_the_learning_rate_as_its_spectral_norm():
    weight = nn.Parameter(torch.randn(30, 20))
    before = weight.detach().clone()
    weight.grad = 1e-6 * torch.randn(30, 20)  # however small the gradient
    MuonAdamW([weight], lr=0.1).step()
    size = torch.linalg.matrix_norm(before - weight.detach(), 2) / math.sqrt(30 / 20)
    assert 0.07 < size < 0.125


def test_a_parameter_without_a_gradient_stays():
    weights = [nn.Parameter(torch.ones(3, 3)) for _ in range(2)]
    weights[0].grad = torch.eye(3)
    MuonAdamW(weights, lr=0.1).step()
    assert torch.equal(weights[1].detach(), torch.ones(3, 3))
    assert not torch.equal(weights[0].detach(), torch.ones(3, 3))


def toy_optimizer(model: nn.Module) -> MuonAdamW:
    return MuonAdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim == 2], "lr": 0.02},
            {"params": [p for p in model.parameters() if p.ndim < 2], "rule": "adamw", "lr": 0.01},
        ]
    )


def test_a_loaded_step_count_lies_where_its_parameter_does():
    """On a GPU the fused step takes no count from the CPU."""
    here, there = toy_model(), toy_model().to("meta")
    optimizer = toy_optimizer(here)
    for parameter in here.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    saved = optimizer.state_dict()
    elsewhere = toy_optimizer(there)
    elsewhere.load_state_dict(saved)
    states = [state for state in elsewhere.state.values() if "step" in state]
    assert states and all(state["step"].device.type == "meta" for state in states)


def test_a_run_taken_up_again_goes_on_bit_for_bit(tmp_path):
    for name, lengths in (("whole", [8]), ("resumed", [3, 8])):
        for steps in lengths:
            model = toy_model()
            toy_trainer(
                tmp_path / name, model=model, optimizer=toy_optimizer(model), steps=steps
            ).train()
    whole, resumed = (trace(tmp_path / name / "toy") for name in ("whole", "resumed"))
    assert [line["loss"] for line in whole] == [line["loss"] for line in resumed]
