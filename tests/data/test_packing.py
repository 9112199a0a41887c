"""Rows from documents: nothing lost, nothing twice, nothing leaking."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_utils.base.ignored import IGNORED
from course_utils.data.packing import fill_rows, lay_end_to_end, next_tokens, pack
from course_utils.models.gpt import GPT, GPTConfig

documents = st.lists(st.lists(st.integers(1, 90), max_size=9), max_size=20)


@given(documents, st.integers(1, 12))
def test_rows_end_to_end_are_the_stream(documents: list[list[int]], context: int) -> None:
    stream = [token for document in documents for token in (*document, 0)]
    rows = lay_end_to_end(documents, 0, context)
    assert rows.dtype == torch.int64 and rows.shape[1] == context + 1
    whole = max(0, len(stream) - 1) // context
    assert len(rows) == whole
    assert rows[:, :-1].flatten().tolist() == stream[: whole * context]
    assert rows[:, 1:].flatten().tolist() == stream[1 : whole * context + 1]


@given(st.lists(st.integers(1, 32), max_size=60))
def test_packing_loses_nothing_and_is_near_the_best(lengths: list[int]) -> None:
    rows = pack(lengths, 32)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 32 for row in rows)
    # Best fit decreasing needs at most 11/9 of the optimum and 4 rows (Johnson, 1973), and the
    # optimum is at least the sum.
    assert len(rows) <= 11 / 9 * -(-sum(lengths) // 32) * 1.5 + 4


def slow_pack(lengths: list[int], capacity: int) -> list[list[int]]:
    """The rule, word for word."""
    rows: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        room = [capacity - sum(lengths[j] for j in row) for row in rows]
        fitting = [r for r in range(len(rows)) if room[r] >= lengths[i]]
        if fitting:
            rows[min(fitting, key=lambda r: room[r])].append(i)
        else:
            rows.append([i])
    return rows


@given(st.lists(st.integers(1, 16), max_size=40))
def test_packing_follows_the_rule(lengths: list[int]) -> None:
    assert pack(lengths, 16) == slow_pack(lengths, 16)


def test_an_example_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="17 tokens"):
        pack([3, 17], 16)


def packed_rows(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 9, 20)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    tokens = rng.integers(0, 50, starts[-1])
    learn = rng.random(starts[-1]) < 0.5
    rows = pack(lengths.tolist(), 24)
    return fill_rows(rows, tokens, learn, starts, 24)


def test_rows_hold_whole_examples() -> None:
    lengths, tokens = [3, 2, 4], np.arange(10, 19)
    learn = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1], bool)
    ids, learned, documents = fill_rows([[2, 0], [1]], tokens, learn, np.array([0, 3, 5, 9]), 8)
    assert ids.tolist() == [[15, 16, 17, 18, 10, 11, 12, 0], [13, 14, 0, 0, 0, 0, 0, 0]]
    assert documents.tolist() == [[0, 0, 0, 0, 1, 1, 1, -1], [0, 0, -1, -1, -1, -1, -1, -1]]
    assert learned[0].tolist() == [False, False, True, True, False, True, True, False]
    assert sum(lengths) == 9


def test_targets_are_the_next_learned_tokens_of_the_same_document() -> None:
    ids, learn, documents = packed_rows()
    targets = next_tokens(ids, learn, documents)
    for row in range(len(ids)):
        for t in range(ids.shape[1]):
            last = t == ids.shape[1] - 1
            counts = not last and documents[row, t] == documents[row, t + 1] and learn[row, t + 1]
            assert targets[row, t] == (ids[row, t + 1] if counts else IGNORED)


def test_no_document_of_a_row_sees_another() -> None:
    """Change one document: the logits of all others stay exactly as they are."""
    config = GPTConfig(
        vocab=50, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=48
    )
    torch.manual_seed(0)
    model = GPT(config).eval()
    ids, _, documents = packed_rows()
    with torch.no_grad():
        before = model(ids, documents=documents)
        for number in range(3):
            here = documents == number
            changed = torch.where(here, (ids + 11) % 50, ids)
            after = model(changed, documents=documents)
            assert torch.equal(after[~here], before[~here])
            assert not torch.equal(after[here], before[here])
            leaking = model(changed) - model(ids)
            assert leaking[~here].abs().max() > 1e-4  # so the mask is what prevents it


def test_a_packed_document_gets_the_logits_it_has_alone() -> None:
    config = GPTConfig(
        vocab=50, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=48
    )
    torch.manual_seed(0)
    model = GPT(config).eval()
    ids, _, documents = packed_rows()
    with torch.no_grad():
        packed = model(ids, documents=documents)
        for number in range(2):
            here = documents[0] == number
            alone = model(ids[:1, here])
            torch.testing.assert_close(packed[:1, here], alone, rtol=1e-4, atol=1e-5)
