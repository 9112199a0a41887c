"""Mixture of experts against a loop over tokens, transformers' Qwen3-MoE, and its own promises."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from course_utils.base.errors import CourseError
from course_utils.exchange.hf import from_hf, to_hf
from course_utils.generation.engine import generate
from course_utils.generation.fused import FusedGPT
from course_utils.generation.sampling import Sampling
from course_utils.models.gpt import GPT, GPTConfig, KVCache, SwiGLU
from course_utils.models.gpt.moe import MoE, balance_loss, balance_term, route, sort_by_expert
from course_utils.training.parts.muon import MuonAdamW, muon_groups

SMALL = GPTConfig(
    vocab=41, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=24, context=32,
    n_experts=4, top_k=2,
)  # fmt: skip


def moe(n_experts: int, top_k: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> MoE:
    torch.manual_seed(seed)
    layer = MoE(12, 20, n_experts, top_k).to(dtype)
    torch.nn.init.normal_(layer.router.weight)
    return layer


def token_by_token(layer: MoE, x: Tensor) -> Tensor:
    """The definition, with a dense SwiGLU for each expert and a loop over the tokens."""
    rows = []
    for token in x.flatten(0, -2):
        probabilities = (layer.router.weight @ token).softmax(0)
        best = probabilities.argsort(descending=True)[: layer.top_k]
        weights = probabilities[best]
        if layer.top_k > 1:
            weights = weights / weights.sum()
        found = torch.zeros_like(token)
        for weight, expert in zip(weights, best.tolist(), strict=True):
            gate, up = (layer.gate_up.weight[expert] @ token).chunk(2)
            found = found + weight * (layer.down.weight[expert] @ (F.silu(gate) * up))
        rows.append(found)
    return torch.stack(rows).view_as(x)


def relative(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


# --- the layer --------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_experts", "top_k"), [(1, 1), (4, 1), (4, 2), (5, 3), (4, 4), (64, 2)])
def test_it_equals_a_loop_over_tokens_in_outputs_and_gradients(n_experts, top_k):
    layer = moe(n_experts, top_k)
    x, direction = torch.randn(2, 3, 7, 12, dtype=torch.float64)
    results = []
    for compute in (layer, lambda x: token_by_token(layer, x)):
        entry = x.clone().requires_grad_()
        y = compute(entry)
        wanted = [entry, *layer.parameters()]
        gradients = torch.autograd.grad((y * direction).sum(), wanted, materialize_grads=True)
        results.append((y, *gradients))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)  # softmax is in float32
    if n_experts > 1:
        assert results[0][2].abs().sum() > 0, "the router learns from the loss, with one expert too"


def test_no_token_is_dropped_when_all_choose_the_same_expert():
    layer = moe(6, 1)
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[3] = 1.0
    x = torch.rand(1, 50, 12, dtype=torch.float64) + 0.1
    torch.testing.assert_close(layer(x), token_by_token(layer, x), rtol=1e-5, atol=1e-6)
    assert set(layer.routing[1].flatten().tolist()) == {3}


def test_one_expert_is_the_dense_network():
    layer, dense = moe(1, 1, torch.float32), SwiGLU(12, 20)
    gate, up = layer.gate_up.weight[0].chunk(2)
    dense.load_state_dict(
        {"gate.weight": gate, "up.weight": up, "down.weight": layer.down.weight[0]}
    )
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(layer(x), dense(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("top_k", [1, 2])
def test_under_autocast_it_computes_in_bfloat16_and_gradients_stay_float32(top_k):
    layer = moe(4, top_k, torch.float32)
    x, direction = torch.randn(2, 2, 40, 12)
    found = []
    for on in (False, True):
        entry = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            y = layer(entry)
        found.append((y, *torch.autograd.grad((y * direction).sum(), [entry, *layer.parameters()])))
    assert all(g.dtype == torch.float32 for g in found[1][1:])
    same = layer.router(x).topk(top_k).indices.sort().values
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer.router(x).topk(top_k).indices.sort().values
    close = (same == rounded).all(-1)  # near ties may fall to another expert
    assert close.float().mean() > 0.9
    assert relative(found[1][0][close], found[0][0][close]) < 0.02
    for ours, exact in zip(found[1][2:], found[0][2:], strict=True):
        assert relative(ours, exact) < 0.2


def test_choices_are_sorted_by_expert_and_keep_their_order_within():
    chosen = torch.tensor([[2, 0], [0, 2], [3, 2]])
    order, ends = sort_by_expert(chosen, 5)
    assert order.tolist() == [1, 2, 0, 3, 5, 4]
    assert ends.tolist() == [2, 2, 5, 6, 6]


# --- routing and balance ----------------------------------------------------------------------


def test_a_single_expert_counts_with_its_probability_and_several_add_up_to_one():
    logits = torch.tensor([[1.0, 3.0, 2.0]]).log()
    weights, chosen, probabilities = route(logits, 1)
    torch.testing.assert_close(weights, torch.tensor([[0.5]]))
    assert chosen.tolist() == [[1]]
    torch.testing.assert_close(probabilities, torch.tensor([[1 / 6, 1 / 2, 1 / 3]]))
    weights, chosen, _ = route(logits, 2)
    torch.testing.assert_close(weights, torch.tensor([[0.6, 0.4]]))
    assert chosen.tolist() == [[1, 2]]


def test_the_balance_loss_is_the_papers_on_an_example_computed_by_hand():
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]])
    chosen = torch.tensor([[0], [0], [0], [1]])
    # f = (3/4, 1/4), P = (0.7, 0.3): 2 · (0.75·0.7 + 0.25·0.3)
    assert balance_loss(probabilities, chosen).item() == pytest.approx(1.2)
    even = torch.full((8, 4), 0.25)
    assert balance_loss(even, torch.arange(8)[:, None] % 4).item() == pytest.approx(1)
    certain = F.one_hot(torch.full((8,), 2), 4).float()
    assert balance_loss(certain, torch.full((8, 1), 2)).item() == pytest.approx(4)


def test_the_balance_loss_equals_transformers_up_to_its_factor_top_k():
    from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

    for top_k in (1, 2, 3):
        logits = 2 * torch.randn(50, 6)
        _, chosen, probabilities = route(logits, top_k)
        theirs = load_balancing_loss_func((logits,), 6, top_k)
        torch.testing.assert_close(balance_loss(probabilities, chosen), theirs / top_k)


def model_and_batch(**changes: object) -> tuple[GPT, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = GPT(replace(SMALL, **changes))
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.router.weight.normal_()
    tokens, targets = torch.randint(41, (2, 6, 16))
    targets[torch.rand(6, 16) < 0.3] = -100
    documents = torch.zeros(6, 16, dtype=torch.long)
    documents[:, 9:] = 1
    documents[torch.arange(16) >= torch.tensor([10, 16, 14, 12, 16, 8])[:, None]] = -1
    targets[documents < 0] = -100
    return model, {"tokens": tokens, "targets": targets, "documents": documents}


def test_the_balance_enters_the_training_loss_exactly_and_evaluation_not_at_all():
    model, batch = model_and_batch(balance=0.25)
    plain = model.eval()(**batch)
    model.train()
    model.features(batch["tokens"], documents=batch["documents"])
    expected = torch.zeros(())
    for block in model.blocks:
        probabilities, chosen = block.mlp.routing
        for row in range(6):
            real = batch["documents"][row] >= 0
            one = balance_loss(probabilities[row, real], chosen[row, real])
            expected = expected + one * (batch["targets"][row] != -100).sum()
    torch.testing.assert_close(model(**batch), plain + 0.25 * expected)
    assert all(block.mlp.routing is None for block in model.blocks)
    model.config = replace(model.config, balance=0.0)
    torch.testing.assert_close(model(**batch), plain)


def test_how_a_batch_is_divided_changes_neither_the_loss_nor_its_gradient():
    """Also when a part's rows are cut where its longest one ends, as ChatTask does."""
    model, batch = model_and_batch(balance=0.5)
    whole = model(**batch)
    expected = torch.autograd.grad(whole, list(model.parameters()))
    total, found = 0.0, [torch.zeros_like(p) for p in model.parameters()]
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
        rows = {name: tensor[part] for name, tensor in batch.items()}
        used = int((rows["documents"] >= 0).sum(1).max())
        loss = model(**{name: tensor[:, :used] for name, tensor in rows.items()})
        total += loss.item()
        torch._foreach_add_(found, torch.autograd.grad(loss, list(model.parameters())))
    assert total == pytest.approx(whole.item(), rel=1e-5)
    for ours, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-3, atol=1e-4)


def test_its_gradient_evens_the_loads_out():
    model, batch = model_and_batch(balance=1.0, n_experts=8, top_k=1)
    del batch["documents"]
    batch["targets"] = batch["tokens"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def busiest() -> float:
        model.features(batch["tokens"])
        counts = model.blocks[0].mlp.routing[1].flatten().bincount(minlength=8)
        return (counts.max() / counts.sum()).item()

    before = busiest()
    for _ in range(40):
        optimizer.zero_grad()
        (model(**batch) / batch["targets"].numel()).backward()
        optimizer.step()
    assert busiest() < min(0.25, before)


# --- the model --------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_experts", "top_k"), [(4, 1), (4, 2), (3, 3)])
def test_logits_equal_transformers_qwen3_moe_and_the_weights_come_back(n_experts, top_k):
    model, batch = model_and_batch(n_experts=n_experts, top_k=top_k)
    theirs = to_hf(model.eval())
    assert theirs.config.model_type == "qwen3_moe"
    with torch.no_grad():
        ours, expected = model(batch["tokens"]), theirs(batch["tokens"]).logits
    assert relative(ours, expected) < 1e-5
    back = from_hf(theirs)
    assert replace(back.config, balance=0.01) == model.config
    assert all(torch.equal(back.state_dict()[n], w) for n, w in model.state_dict().items())


def test_parameters_are_counted_in_all_and_active():
    for top_k in (1, 2):
        config = replace(SMALL, top_k=top_k)
        model = GPT(config)
        assert sum(p.numel() for p in model.parameters()) == config.n_parameters()
        experts = sum(
            b.mlp.gate_up.weight.numel() + b.mlp.down.weight.numel() for b in model.blocks
        )
        assert config.n_active() == config.n_parameters() - experts * (4 - top_k) // 4
    dense = replace(SMALL, n_experts=0)
    assert dense.n_active() == dense.n_parameters()
    assert replace(SMALL, top_k=1).n_active() == dense.n_parameters() + 2 * 4 * 32  # two routers


def test_a_shape_with_too_few_experts_is_refused():
    for top_k in (0, 5):
        with pytest.raises(CourseError, match=f"cannot use {top_k} of 4"):
            replace(SMALL, top_k=top_k)


def test_stacked_matrices_start_like_single_ones():
    model = GPT(replace(SMALL, d_model=96, d_ff=160, n_experts=8))
    mlp = model.blocks[0].mlp
    assert mlp.gate_up.weight.std().item() == pytest.approx(0.5 / 96**0.5, rel=0.05)
    assert mlp.down.weight.std().item() == pytest.approx(0.5 / 160**0.5 / 2, rel=0.05)


def test_with_a_cache_and_fused_it_computes_the_same():
    model, batch = model_and_batch()
    model.eval()
    tokens = batch["tokens"]
    fused = FusedGPT(model)
    with torch.no_grad():
        expected = model(tokens)
        torch.testing.assert_close(fused(tokens), expected, rtol=1e-4, atol=1e-5)
        for writer in (model, fused):
            cache = KVCache(model.config, batch=6, capacity=16)
            pieces = [writer(piece, cache=cache) for piece in tokens.split([5, 1, 1, 9], dim=1)]
            torch.testing.assert_close(torch.cat(pieces, 1), expected, rtol=1e-4, atol=1e-5)
    prompts = [row.tolist() for row in tokens[:2, :4]]
    greedy = Sampling(temperature=0.0)
    written = [generate(m, prompts, max_new_tokens=6, sampling=greedy) for m in (model, fused)]
    assert written[0] == written[1]


def test_muon_treats_each_expert_as_a_matrix_of_its_own():
    torch.manual_seed(0)
    stacked = torch.nn.Parameter(torch.randn(3, 8, 5))
    single = [torch.nn.Parameter(part.clone()) for part in stacked.detach()]
    gradients = torch.randn(3, 8, 5)
    stacked.grad = gradients.clone()
    for parameter, gradient in zip(single, gradients, strict=True):
        parameter.grad = gradient.clone()
    MuonAdamW([stacked], lr=0.1).step()
    MuonAdamW(single, lr=0.1).step()
    torch.testing.assert_close(stacked.detach(), torch.stack([p.detach() for p in single]))
    muon, _ = muon_groups(GPT(SMALL), lr_muon=1, lr=1)
    assert sum(p.ndim == 3 for p in muon["params"]) == 2 * SMALL.n_layers


def test_recomputed_activations_give_the_same_gradients():
    model, batch = model_and_batch(balance=0.5)
    expected = torch.autograd.grad(model(**batch), list(model.parameters()))
    for block in model.blocks:
        inner = block.forward
        block.forward = lambda *a, f=inner: checkpoint(f, *a, use_reentrant=False)
    found = torch.autograd.grad(model(**batch), list(model.parameters()))
    for ours, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, exact)


def test_a_model_can_be_copied_after_a_forward_pass():
    model, batch = model_and_batch()
    model(batch["tokens"])
    twin = copy.deepcopy(model)
    assert twin.blocks[0].mlp.routing is None
    assert torch.equal(twin(batch["tokens"]), model(batch["tokens"]))


def test_a_dense_model_has_no_balance():
    _, batch = model_and_batch()
    assert balance_term(GPT(replace(SMALL, n_experts=0)).blocks, batch["targets"]).item() == 0
