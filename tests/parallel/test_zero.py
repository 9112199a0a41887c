"""A sharded optimizer is AdamW: the same weights, and a part of its memory on each rank."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_utils.models.gpt import GPT, GPTConfig
from course_utils.parallel.census import storage_bytes
from course_utils.parallel.launch import launch
from course_utils.parallel.simulate import simulate
from course_utils.parallel.zero import ShardedAdamW, clip_shard, sharded_adamw

SETTINGS = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}


@pytest.mark.parametrize("ranks, n", [(1, 10), (2, 10), (3, 10), (4, 3), (5, 64)])
def test_a_sharded_step_is_adamws(ranks, n):
    rng = torch.Generator().manual_seed(ranks)
    row = torch.randn(n, generator=rng, dtype=torch.float64)
    whole = nn.Parameter(row.clone())
    optimizer = torch.optim.AdamW([whole], **SETTINGS)
    means = [torch.zeros_like(chunk) for chunk in row.tensor_split(ranks)]
    squares = [mean.clone() for mean in means]
    for step in (1, 2, 3):
        gradients = [torch.randn(n, generator=rng, dtype=torch.float64) for _ in range(ranks)]
        results = sharded_adamw([row] * ranks, gradients, means, squares, step=step, **SETTINGS)
        rows, means, squares = map(list, zip(*results, strict=True))
        whole.grad = torch.stack(gradients).mean(0)
        optimizer.step()
        row = rows[0]
        assert all(torch.equal(other, row) for other in rows)
        torch.testing.assert_close(row, whole.detach(), rtol=1e-12, atol=1e-12)
    state = optimizer.state[whole]
    torch.testing.assert_close(torch.cat(means), state["exp_avg"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat(squares), state["exp_avg_sq"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_a_clipped_shard_is_a_part_of_the_clipped_whole(max_norm):
    whole = nn.Parameter(torch.zeros(11))
    whole.grad = torch.randn(11, generator=torch.Generator().manual_seed(0))
    shards = list(whole.grad.clone().tensor_split(4))
    before = torch.nn.utils.clip_grad_norm_([whole], max_norm)
    clipped, norms = zip(*clip_shard(shards, max_norm=max_norm), strict=True)
    torch.testing.assert_close(torch.cat(clipped), whole.grad)
    for norm in norms:
        torch.testing.assert_close(norm, before)


TINY = GPTConfig(
    vocab=23, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=24, context=32
)


def train(link, optimizer_of):
    torch.manual_seed(0)
    model = GPT(TINY)
    optimizer = optimizer_of(link, model)
    losses = []
    for step in range(5):
        stream = torch.randint(23, (6, 9), generator=torch.Generator().manual_seed(step))
        mine = stream[link.rank :: link.world_size] if link else stream
        logits = model(mine[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), mine[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    kept = storage_bytes([optimizer.mean, optimizer.mean_square]) if link else 0
    return losses, [p.detach() for p in model.parameters()], kept


def sharded(link, model):
    return ShardedAdamW(link, model.parameters(), **SETTINGS)


def alone(_, model):
    return torch.optim.AdamW(model.parameters(), **SETTINGS)


@pytest.mark.parametrize("run, ranks", [(simulate, 3), (launch, 2)])
def test_a_gpt_learns_the_same_on_many_ranks(run, ranks):
    losses, parameters, _ = train(None, alone)
    results = run(lambda link, _: train(link, sharded), [0] * ranks)
    n = sum(p.numel() for p in parameters)
    for _, found, kept in results:
        for one, other in zip(found, parameters, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert kept <= 8 * -(-n // ranks)
    means = [sum(step) / ranks for step in zip(*(r[0] for r in results), strict=True)]
    torch.testing.assert_close(means, losses, rtol=1e-5, atol=1e-5)
