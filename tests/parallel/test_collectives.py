"""Collectives give what their names promise: for any number of ranks, shape and dtype."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_utils.parallel.collectives import (
    all_gather,
    all_reduce,
    broadcast,
    reduce,
    reduce_scatter,
)

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.int64)
worlds = st.integers(1, 9)
shapes = st.sampled_from([(), (0,), (1,), (7,), (3, 5), (2, 3, 4)])


def tensors(n: int, shape: tuple[int, ...], dtype: torch.dtype) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(n)
    return [torch.randint(-9, 9, shape, generator=rng).to(dtype) for _ in range(n)]


@given(worlds, shapes, st.sampled_from(DTYPES), st.data())
def test_broadcast(n, shape, dtype, data):
    source = data.draw(st.integers(0, n - 1))
    given_ = tensors(n, shape, dtype)
    got, _, messages = broadcast(given_, source=source, traffic=True)
    assert all(torch.equal(x, given_[source]) and x.dtype == dtype for x in got)
    assert sum(messages) == n - 1 and max(messages) <= math.ceil(math.log2(n))


@given(worlds, shapes, st.sampled_from(DTYPES), st.data())
def test_reduce(n, shape, dtype, data):
    destination = data.draw(st.integers(0, n - 1))
    given_ = tensors(n, shape, dtype)
    before = [x.clone() for x in given_]
    got, _, messages = reduce(given_, destination=destination, traffic=True)
    assert torch.equal(got.pop(destination), sum(before[1:], start=before[0]))
    assert got == [None] * (n - 1) and sum(messages) == n - 1
    assert all(map(torch.equal, given_, before))


@given(worlds, shapes, st.sampled_from(DTYPES))
def test_all_reduce_and_its_halves(n, shape, dtype):
    given_ = tensors(n, shape, dtype)
    before = [x.clone() for x in given_]
    total = sum(before[1:], start=before[0])
    chunks = reduce_scatter(given_)
    assert all(map(torch.equal, chunks, total.flatten().tensor_split(n)))
    assert all(torch.equal(x, total.flatten()) for x in all_gather(chunks))
    assert all(torch.equal(x, total) and x.dtype == dtype for x in all_reduce(given_))
    assert all(map(torch.equal, given_, before))


def test_all_gather_takes_chunks_of_any_length():
    chunks = [torch.arange(length) for length in (3, 0, 5, 1)]
    assert all(torch.equal(x, torch.cat(chunks)) for x in all_gather(chunks))


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_a_ring_sends_twice_its_share_and_no_more(n):
    given_ = tensors(n, (n * 12,), torch.float32)
    _, sent, messages = all_reduce(given_, traffic=True)
    assert sent == [2 * (n - 1) * 12 * 4] * n  # 2(N − 1)/N of the tensor
    assert messages == [2 * (n - 1)] * n


def test_all_ranks_get_the_same_bits():
    rng = torch.Generator().manual_seed(0)
    given_ = [torch.randn(1000, generator=rng) for _ in range(7)]
    first, *others = all_reduce(given_)
    assert all(torch.equal(first, other) for other in others)
    torch.testing.assert_close(first, sum(given_), rtol=1e-5, atol=1e-5)
