"""Predicted bytes are those that a process then keeps."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from course_utils.models.gpt import GPT, PRESETS, GPTConfig
from course_utils.parallel.census import saved_bytes, storage_bytes
from course_utils.parallel.memory import (
    activation_bytes,
    bytes_per_rank,
    plan,
    traffic_per_step,
)
from course_utils.training.loop.recompute import recomputing


def test_the_figures_of_the_paper():
    """Rajbhandari et al. (2020), table 1: 7.5 billion parameters, in GB."""
    for ranks, stage, gigabytes in [
        (1, 1, 120), (4, 1, 52.5), (64, 1, 31.4), (1024, 1, 30.1),
        (4, 2, 41.3), (64, 2, 16.6), (1024, 2, 15.1),
        (4, 3, 30), (64, 3, 1.88), (1024, 3, 0.12),
    ]:  # fmt: skip
        found = sum(bytes_per_rank(7_500_000_000, ranks, stage).values()) / 1e9
        assert found == pytest.approx(gigabytes, abs=0.06)


def test_stages_divide_one_thing_after_another():
    whole, shard = 10, 4  # of three ranks
    kept = [
        bytes_per_rank(10, 3, stage, parameter=1, gradient=1, optimizer=1) for stage in range(4)
    ]
    assert [tuple(k.values()) for k in kept] == [
        (whole, whole, whole),
        (whole, whole, shard),
        (whole, shard, shard),
        (shard, shard, shard),
    ]
    with pytest.raises(ValueError, match="stages 0 to 3; found 4"):
        bytes_per_rank(10, 3, 4)


def test_a_plan_is_the_best_of_all():
    """By trying everything: lowest stage, then largest micro-batch."""
    rng = torch.Generator().manual_seed(0)
    kinds = set()
    for _ in range(300):
        n, ranks, memory, row, rows = (
            int(torch.randint(1, high, (), generator=rng)) for high in (50, 9, 1000, 60, 13)
        )
        for offload in (False, True):
            fitting = []
            for stage in range(1 if offload else 0, 4):
                kept = bytes_per_rank(n, ranks, stage, optimizer=0 if offload else 12)
                for size in range(1, rows + 1):
                    if rows % size == 0 and sum(kept.values()) + size * row <= memory:
                        fitting.append((-stage, size))
            stage, size = max(fitting, default=(None, None))
            expected = None if stage is None else (-stage, size, rows // size)
            assert plan(n, ranks, memory, row, rows, offload=offload) == expected
            kinds.add(expected and expected[0])
    assert kinds == {None, 0, 1, 2, 3}


def test_traffic_is_what_the_collectives_send():
    from course_utils.parallel.zero import sharded_adamw

    n, ranks = 60, 4
    rows = [torch.zeros(n)] * ranks
    shards = [torch.zeros(n // ranks)] * ranks
    _, sent, _ = sharded_adamw(rows, rows, shards, shards, step=1, lr=0.1, traffic=True)
    assert set(sent) == {traffic_per_step(n, ranks, 1, parameter=4, gradient=4)}
    assert traffic_per_step(n, ranks, 0) == traffic_per_step(n, ranks, 2)
    assert traffic_per_step(n, ranks, 3) == 1.5 * traffic_per_step(n, ranks, 2)


SHAPES = [
    replace(PRESETS["nano"], n_layers=2),
    GPTConfig(vocab=99, d_model=48, n_layers=3, n_heads=3, n_kv_heads=3, head_dim=24, d_ff=80),
]


@pytest.mark.parametrize("config", SHAPES)
@pytest.mark.parametrize("rows, seq", [(2, 64), (5, 100)])
def test_activations_are_predicted_within_a_percent(config, rows, seq):
    model = GPT(config)
    stream = torch.randint(config.vocab, (rows, seq + 1))
    counted = saved_bytes(model, lambda: model(stream[:, :-1], targets=stream[:, 1:]))
    assert counted == pytest.approx(activation_bytes(config, rows, seq), rel=0.01)


def test_recomputing_keeps_the_blocks_inputs():
    config = SHAPES[0]
    model = GPT(config)
    stream = torch.randint(config.vocab, (2, 65))

    def forward():
        return model(stream[:, :-1], targets=stream[:, 1:])

    with recomputing(model):
        between = saved_bytes(model, forward)
    one = activation_bytes(replace(config, n_layers=1), 2, 64) - 4 * (
        2 * 64 * 3 * config.d_model + config.vocab * config.d_model
    )
    predicted = activation_bytes(config, 2, 64, recomputing=True)
    inputs = 4 * 2 * 64 * config.d_model
    assert between == pytest.approx(predicted - one + inputs, rel=0.01)
    assert predicted < 0.8 * saved_bytes(model, forward)


def test_storages_count_once():
    x = torch.zeros(10)
    assert storage_bytes([x, x[2:], x.view(2, 5), torch.zeros(3, dtype=torch.float64)]) == 64


def test_the_peak_grows_with_what_is_touched():
    # In a process of its own: this one may have had more than that before.
    program = (
        "import torch; from course_utils.parallel.census import peak_resident_bytes as peak; "
        "before = peak(); kept = torch.ones(30_000_000); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert int(done.stdout) > 100e6, done.stderr
