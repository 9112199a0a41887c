"""The cost arithmetic against real models: their parameters, their caches, their counted FLOPs."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from course_utils.generation import cost
from course_utils.models.gpt import GPT, PRESETS, GPTConfig, KVCache

GROUPED = GPTConfig(
    vocab=61, d_model=24, n_layers=3, n_heads=6, n_kv_heads=2, head_dim=8, d_ff=40, context=64
)
UNTIED = GPTConfig(**{**GROUPED.__dict__, "tied": False, "n_kv_heads": 6})


@pytest.mark.parametrize("config", [GROUPED, UNTIED])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 20)])
def test_flops_are_those_that_torch_counts(config, batch, length):
    model, cache = GPT(config), KVCache(config, batch, 32)
    if length > 1:
        model(torch.zeros(batch, length - 1, dtype=torch.long), cache=cache)
    # Written-out attention, so that its products are among those that are counted.
    written_out = sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), written_out:
        model(torch.zeros(batch, 1, dtype=torch.long), cache=cache)
    assert cost.decode_flops(config, batch, length) == counter.get_total_flops()


@pytest.mark.parametrize("config", [GROUPED, UNTIED])
def test_bytes_are_those_of_the_weights_and_of_the_cache(config):
    model = GPT(config).bfloat16()
    cache = KVCache(config, batch=3, capacity=20, dtype=torch.bfloat16)
    assert cost.cache_bytes(config, 3, 20) == cache.nbytes
    weights = sum(p.nbytes for p in model.parameters())
    looked_up = 0 if config.tied else model.embedding.weight.nbytes
    assert cost.decode_bytes(config, 3, 20) == weights - looked_up + cache.nbytes
    assert cost.decode_bytes(config, 3, 20, 4) == 2 * cost.decode_bytes(config, 3, 20)


def test_speed_is_limited_by_memory_first_and_by_arithmetic_later():
    config = PRESETS["gpt2-124m"]
    machine = cost.Machine(bytes_per_s=10e9, flops_per_s=100e9)
    read, work = cost.decode_bytes(config, 1, 1, 4), cost.decode_flops(config, 1, 1)
    assert machine.balance == 10 and cost.intensity(config, 1, 1, 4) < 1
    alone = cost.tokens_per_s(config, 1, 1, machine, 4)
    assert alone == pytest.approx(10e9 / read)
    eight = cost.tokens_per_s(config, 8, 1, machine, 4)
    assert 7.9 < eight / alone < 8
    many = cost.tokens_per_s(config, 200, 1, machine, 4)
    assert many == pytest.approx(100e9 / work)


def test_a_machine_is_measured():
    machine = cost.measure(bytes_to_read=2**20)
    assert machine.bytes_per_s > 0 and machine.flops_per_s > 0
