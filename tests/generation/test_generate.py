"""The generation loop against transformers' generate, and speculative decoding against sampling."""

import pytest
import torch

from course_utils.base.errors import CourseError
from course_utils.exchange.hf import to_hf
from course_utils.generation.engine import generate, stream
from course_utils.generation.sampling import Sampling
from course_utils.generation.speculative import accept_guesses, speculate
from course_utils.models.gpt import GPT, GPTConfig

CONFIG = GPTConfig(
    vocab=37, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=48, context=64
)


def random_model(seed: int, config: GPTConfig = CONFIG) -> GPT:
    torch.manual_seed(seed)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3) if parameter.ndim > 1 else parameter.uniform_(0.5, 1.5)
    return model


MODEL, DRAFT = random_model(0), random_model(1)
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [3, 3, 3, 3]]


def test_greedy_text_equals_transformers_generate():
    theirs = to_hf(MODEL)
    for prompt in PROMPTS:
        expected = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=20, do_sample=False, use_cache=True
        )
        assert (
            generate(MODEL, [prompt], max_new_tokens=20)[0] == expected[0, len(prompt) :].tolist()
        )


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(repetition_penalty=1.5)])
def test_prompts_of_different_lengths_in_one_batch_give_the_text_of_each_alone(sampling):
    together = generate(MODEL, PROMPTS, max_new_tokens=20, sampling=sampling)
    alone = [
        generate(MODEL, [prompt], max_new_tokens=20, sampling=sampling)[0] for prompt in PROMPTS
    ]
    assert together == alone


def test_the_cache_changes_nothing():
    prompt = [1, 2, 3]
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(20):
            tokens.append(int(MODEL(torch.tensor([tokens]))[0, -1].argmax()))
    assert generate(MODEL, [prompt], max_new_tokens=20)[0] == tokens[3:]


def test_a_row_stops_at_a_stop_token_and_the_others_go_on():
    free = generate(MODEL, PROMPTS, max_new_tokens=20)
    stop = free[0][4]
    stopped = generate(MODEL, PROMPTS, max_new_tokens=20, stop=[stop])
    for row, whole in zip(stopped, free, strict=True):
        assert row == (whole[: whole.index(stop)] if stop in whole else whole)


def test_streaming_gives_the_same_tokens_one_by_one():
    steps = list(stream(MODEL, [PROMPTS[0]], max_new_tokens=5))
    assert [step.tokens[0] for step in steps] == generate(MODEL, [PROMPTS[0]], max_new_tokens=5)[0]


def test_generation_ends_where_the_context_does():
    assert len(generate(MODEL, [[1] * 60], max_new_tokens=100)[0]) == 4


def test_a_seed_repeats_the_text():
    sampling = Sampling(temperature=1.0, top_p=0.9, seed=7)
    runs = [generate(MODEL, PROMPTS, max_new_tokens=10, sampling=sampling) for _ in range(2)]
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("prompts", "says"),
    [([[1], []], "empty"), ([[37]], "outside"), ([[-1]], "outside"), ([[1] * 64], "no room")],
)
def test_prompts_that_cannot_be_continued_are_refused(prompts, says):
    with pytest.raises(CourseError, match=says):
        generate(MODEL, prompts, max_new_tokens=2)


# --- speculative decoding ---------------------------------------------------------------------


def test_accepted_tokens_have_the_targets_distribution():
    """The joint distribution of the first two tokens, over many draws from one seed."""
    generator = torch.Generator().manual_seed(0)
    draft = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    target = torch.tensor([[0.2, 0.5, 0.3], [0.3, 0.6, 0.1], [0.25, 0.25, 0.5]])
    trials = 12_000
    first, second = torch.zeros(3), torch.zeros(3)
    guesses = torch.stack(
        [torch.multinomial(row, trials, replacement=True, generator=generator) for row in draft], 1
    )
    for pair in guesses:
        tokens = accept_guesses(pair, draft, target, generator)
        assert 1 <= len(tokens) <= 3
        first[tokens[0]] += 1
        if len(tokens) > 1:
            second[tokens[1]] += 1
    torch.testing.assert_close(first / trials, target[0], atol=0.015, rtol=0)
    torch.testing.assert_close(second / second.sum(), target[1], atol=0.02, rtol=0)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_greedy_speculation_gives_the_large_models_own_text(k):
    prompt = PROMPTS[2]
    result = speculate(MODEL, DRAFT, prompt, max_new_tokens=15, k=k)
    assert result.tokens == generate(MODEL, [prompt], max_new_tokens=15)[0]


def test_a_model_that_is_its_own_draft_accepts_everything():
    result = speculate(MODEL, MODEL, PROMPTS[2], max_new_tokens=20)
    assert result.accepted == result.guessed > 0


def test_sampled_speculation_draws_from_the_large_model():
    prompt, draws = [1, 2], 150
    with torch.no_grad():
        kept = MODEL(torch.tensor([prompt]))[0, -1].topk(3)
    counts = torch.zeros(37)
    for seed in range(draws):
        seeded = Sampling(temperature=1.0, top_k=3, seed=seed)
        counts[speculate(MODEL, DRAFT, prompt, max_new_tokens=1, k=1, sampling=seeded).tokens] += 1
    found = counts[kept.indices]
    assert found.sum() == draws, "a token outside the large model's three was drawn"
    torch.testing.assert_close(found / draws, kept.values.softmax(0), atol=0.12, rtol=0)


def test_speculation_refuses_what_it_cannot_do():
    other = random_model(2, GPTConfig(**{**CONFIG.__dict__, "vocab": 38}))
    with pytest.raises(CourseError, match="one tokenizer"):
        speculate(MODEL, other, [1], max_new_tokens=2)
    with pytest.raises(CourseError, match="no repetition penalty"):
        speculate(MODEL, DRAFT, [1], max_new_tokens=2, sampling=Sampling(repetition_penalty=2.0))
