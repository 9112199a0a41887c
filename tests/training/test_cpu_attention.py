"""Attention with stored scores against PyTorch's, and when it steps in."""

import pytest
import torch
from torch.nn import functional as F

from course_utils.models.gpt.attention import causal_mask
from course_utils.training.loop import cpu_attention
from course_utils.training.loop.cpu_attention import StoredScores, attend_storing_scores

DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 1, 1, 1]])
TOGETHER = DOCUMENTS[:, None, :, None] == DOCUMENTS[:, None, None, :]


def inputs(kv_heads: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = [(2, 4, 7, 8), (2, kv_heads, 7, 8), (2, kv_heads, 7, 8)]
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(
    "mask",
    [
        {"is_causal": True},
        {},
        {"attn_mask": causal_mask(7, 7)},
        {"attn_mask": causal_mask(7, 7) & TOGETHER},
    ],
    ids=["causal", "all", "mask", "documents"],
)
def test_results_and_gradients_equal_torchs(kv_heads, mask):
    results = []
    for attention in (attend_storing_scores, F.scaled_dot_product_attention):
        given = inputs(kv_heads)
        gathered = attention(*given, enable_gqa=kv_heads < 4, **mask)
        gathered.square().sum().backward()
        results.append([gathered.detach(), *(x.grad for x in given)])
    torch.testing.assert_close(*results)


def test_it_steps_in_for_bf16_training_on_a_cpu_and_nowhere_else(monkeypatch):
    calls = []

    def spy(*args, **kwargs):
        calls.append(args[0].shape)
        return attend_storing_scores(*args, **kwargs)

    monkeypatch.setattr(cpu_attention, "attend_storing_scores", spy)
    given = inputs(4)

    def attended() -> torch.Tensor:
        return F.scaled_dot_product_attention(*given, is_causal=True)

    attended()
    with StoredScores():
        attended()  # float32
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            attended()  # nothing to go back through
    assert not calls
    with StoredScores(), torch.autocast("cpu", torch.bfloat16):
        stored = attended()
    assert len(calls) == 1
    assert stored.dtype == torch.bfloat16
    assert (stored - attended()).norm() / attended().norm() < 0.02
    monkeypatch.setattr(cpu_attention, "LONGEST", 6)
    with StoredScores(), torch.autocast("cpu", torch.bfloat16):
        attended()
    assert len(calls) == 1
