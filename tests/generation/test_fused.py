"""The joined weights compute what the model computes."""

from dataclasses import replace

import pytest
import torch
from test_generate import CONFIG, PROMPTS, random_model

from course_utils.generation import fused as fused_module
from course_utils.generation.engine import generate
from course_utils.generation.fused import FusedGPT
from course_utils.generation.speculative import speculate
from course_utils.models.gpt import KVCache, YaRN

SHAPES = [
    CONFIG,
    replace(CONFIG, n_kv_heads=4),
    replace(CONFIG, n_kv_heads=1, head_dim=10, tied=False),
    replace(CONFIG, yarn=YaRN(4.0, 16)),
]


@pytest.mark.parametrize("config", SHAPES)
@pytest.mark.parametrize("pieces", [[20], [7, 1, 1, 11], [1] * 20])
def test_logits_equal_the_models_with_and_without_a_cache(config, pieces):
    model = random_model(0, config)
    fused = FusedGPT(model)
    tokens = torch.randint(config.vocab, (2, 20))
    with torch.no_grad():
        expected = model(tokens)
        torch.testing.assert_close(fused(tokens), expected, rtol=1e-4, atol=1e-4)
        cache = KVCache(config, 2, 20)
        parts = [fused(piece, cache=cache) for piece in tokens.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", SHAPES)
def test_padded_prompts_get_the_same_text(config):
    model = random_model(0, config)
    texts = [generate(m, PROMPTS, max_new_tokens=20) for m in (model, FusedGPT(model))]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("config", SHAPES)
def test_it_does_not_care_how_a_kernel_lays_out_its_result(config, monkeypatch):
    """CUDA's memory-efficient attention returns a transposed one, which is no view of rows."""
    model = random_model(0, config)
    expected = generate(model, PROMPTS, max_new_tokens=8)
    attention = fused_module.F.scaled_dot_product_attention

    def transposed(*arguments, **settings):
        return attention(*arguments, **settings).transpose(1, 2).contiguous().transpose(1, 2)

    monkeypatch.setattr(fused_module.F, "scaled_dot_product_attention", transposed)
    assert generate(FusedGPT(model), PROMPTS, max_new_tokens=8) == expected


def test_speculation_goes_to_the_end_of_the_context():
    model = random_model(0)
    fused = FusedGPT(model)
    for prompt in (PROMPTS[2], PROMPTS[2] * 20):
        prompt = prompt[: CONFIG.context - 2]
        expected = generate(model, [prompt], max_new_tokens=CONFIG.context)[0]
        found = speculate(fused, fused, prompt, max_new_tokens=CONFIG.context, k=7)
        assert found.tokens == expected
        assert len(prompt) + len(found.tokens) == CONFIG.context


def test_it_can_be_the_large_and_the_small_model_of_speculation():
    model = random_model(0)
    fused = FusedGPT(model)
    result = speculate(fused, fused, PROMPTS[2], max_new_tokens=15)
    assert result.tokens == generate(model, [PROMPTS[2]], max_new_tokens=15)[0]


def test_in_bfloat16_the_logits_are_near_and_the_model_is_left_alone():
    model = random_model(0)
    fused = FusedGPT(model, torch.bfloat16)
    tokens = torch.randint(CONFIG.vocab, (2, 20))
    with torch.no_grad():
        expected, found = model(tokens), fused(tokens)
    assert found.dtype == torch.bfloat16 and expected.dtype == torch.float32
    assert (found - expected).norm() / expected.norm() < 0.05
    assert not any(p.requires_grad for p in fused.parameters())
    assert all(p.requires_grad for p in model.parameters())
