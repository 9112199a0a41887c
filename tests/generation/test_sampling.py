"""Sampling against transformers' own logits processors, and its edges."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from course_utils.base.errors import CourseError
from course_utils.generation.sampling import (
    Sampling,
    filtered,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    next_token,
    penalise_repetition,
)

seeds = st.integers(0, 10_000)
shares = st.sampled_from([0.01, 0.1, 0.5, 0.9, 0.999])


def logits_of(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 29, generator=generator) * 3


@settings(max_examples=60, deadline=None)
@given(seeds, shares, st.integers(1, 40), st.sampled_from([0.3, 1.0, 2.0]))
def test_each_limit_equals_transformers(seed, p, k, temperature):
    logits = logits_of(seed)
    torch.testing.assert_close(keep_top_k(logits, k), TopKLogitsWarper(k)(None, logits))
    torch.testing.assert_close(keep_top_p(logits, p), TopPLogitsWarper(p)(None, logits))
    torch.testing.assert_close(keep_min_p(logits, p), MinPLogitsWarper(p)(None, logits))
    chained = logits
    for warper in (TemperatureLogitsWarper(temperature), TopKLogitsWarper(k), TopPLogitsWarper(p)):
        chained = warper(None, chained)
    ours = filtered(logits, Sampling(temperature=temperature, top_k=k, top_p=p))
    torch.testing.assert_close(ours, chained)


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([0.5, 1.0, 1.3, 5.0]))
def test_the_repetition_penalty_equals_transformers(seed, penalty):
    logits = logits_of(seed)
    tokens = torch.randint(29, (3, 7), generator=torch.Generator().manual_seed(seed))
    seen = torch.zeros(3, 29, dtype=torch.bool).scatter(1, tokens, True)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(tokens, logits)
    torch.testing.assert_close(penalise_repetition(logits, seen, penalty), expected)


def test_draws_follow_the_distribution():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    generator = torch.Generator().manual_seed(0)
    many = next_token(logits.expand(40_000, 4), Sampling(temperature=1.0), generator)
    found = many.bincount(minlength=4) / 40_000
    torch.testing.assert_close(found, logits[0].softmax(0), atol=0.01, rtol=0)


def test_a_seed_repeats_the_draws_and_no_seed_does_not():
    logits = logits_of(0).repeat(20, 1)

    def draw(seed):
        sampling = Sampling(temperature=1.0, seed=seed)
        return next_token(logits, sampling, sampling.generator())

    assert torch.equal(draw(5), draw(5))
    assert not torch.equal(draw(5), draw(6))
    assert not torch.equal(draw(None), draw(None))


def test_the_likeliest_token_survives_every_limit():
    logits = logits_of(3)
    for sampling in (
        Sampling(temperature=1.0, top_k=1),
        Sampling(temperature=1.0, top_p=1e-9),
        Sampling(temperature=1.0, min_p=1.0),
        Sampling(),
    ):
        assert torch.equal(next_token(logits, sampling), logits.argmax(-1))


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.1}, {"min_p": 2},
     {"repetition_penalty": 0}],
)  # fmt: skip
def test_numbers_out_of_range_are_named(wrong):
    with pytest.raises(CourseError, match=f"{next(iter(wrong))} must be"):
        Sampling(**wrong)
