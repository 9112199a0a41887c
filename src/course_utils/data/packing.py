"""Rows of equal length from documents of any length.

A batch is a rectangle and documents are not. For pretraining the documents are laid end to end and
cut, so that no place is wasted. For chats, whole examples share a row: cutting one would teach the
model to answer a question it has not seen.

    laid end to end     [the cat sat ⏎ a dog b][arked ⏎ once upon …     every row is full
    packed whole        [hello! hi there. ▪▪ what is 2+2? 4 ▪][…         no example is cut
"""

from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from course_utils.base.ignored import IGNORED


def lay_end_to_end(
    documents: Sequence[Sequence[int]], end: int, context: int
) -> Int64[Tensor, "rows context_plus_1"]:
    """Documents as one stream of tokens, cut into rows of `context` + 1.

    The stream is the first document, the token `end`, the second document, `end`, and so on. Row i
    begins at token i · context of the stream, so a row's last token is the next row's first: every
    token but the very first is a target exactly once. What is left at the end of the stream, too
    short for a whole row, is dropped.

    Args:
        documents: the ids of each.
        end: the id that closes a document.
        context: how many tokens the model sees at once.

    Returns:
        Rows of `context` inputs and one more token: `row[:-1]` predicts `row[1:]`. With too little
        text there are no rows, and the shape is (0, context + 1).
    """
    stream = torch.tensor([token for document in documents for token in (*document, end)])
    if len(stream) <= context:
        return torch.empty(0, context + 1, dtype=torch.int64)
    return stream.long().unfold(0, context + 1, context)


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put examples into as few rows as is easy: the longest first, each where least room is left.

    This is the "best fit decreasing" rule for bin packing; it never needs more than about 22 % more
    rows than the best packing there is (Johnson, 1973).

    - Examples are taken from the longest to the shortest; of equals, the one that comes first.
    - Each goes into the row with the least room that still suffices; of equal rows, the oldest.
    - If it fits nowhere, it opens a new row.

    Args:
        lengths: of each example, in tokens, from 1 to `capacity`.
        capacity: tokens that a row holds.

    Returns:
        For each row, in the order in which they were opened, the numbers of its examples in the
        order in which they came in.

    Raises:
        ValueError: when an example is longer than a row.
    """
    if max(lengths, default=0) > capacity:
        raise ValueError(f"an example of {max(lengths)} tokens does not fit into {capacity}")
    rows: list[list[int]] = []
    # By room left, the rows that have so much; a heap for each, so that the oldest comes out first.
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    for example in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[example]
        room = next((r for r in range(length, capacity + 1) if with_room[r]), None)
        if room is None:
            row, room = len(rows), capacity
            rows.append([])
        else:
            row = heappop(with_room[room])
        rows[row].append(example)
        heappush(with_room[room - length], row)
    return rows


def next_tokens(
    tokens: Int[Tensor, "batch seq"],
    learn: Bool[Tensor, "batch seq"],
    documents: Int[Tensor, "batch seq"],
) -> Int64[Tensor, "batch seq"]:
    """The target of each position in packed rows: the next token, or IGNORED outside the loss mask.

    The target of a position is the token after it, in the same row, provided that

    - that next token is in the loss mask `learn`; its prediction is made one position before it,
    - and it belongs to the same document: the end of one document does not predict the next.

    A row's last position has no next token, so its target is IGNORED.

    Args:
        tokens: ids.
        learn: the loss mask, True where a token is to be learned.
        documents: the number of each token's document within its row.

    Returns:
        Ids or IGNORED (−100), int64.
    """
    targets = torch.full_like(tokens, IGNORED, dtype=torch.int64)
    counts = learn[:, 1:] & (documents[:, 1:] == documents[:, :-1])
    targets[:, :-1] = tokens[:, 1:].masked_fill(~counts, IGNORED)
    return targets


def fill_rows(
    rows: Sequence[Sequence[int]],
    tokens: Int[np.ndarray, "n_tokens"],
    learn: Bool[np.ndarray, "n_tokens"],
    starts: Int64[np.ndarray, "n_examples_plus_1"],
    capacity: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Lay whole examples side by side into rows of `capacity` tokens.

    Args:
        rows: the numbers of the examples in each row, as `pack` gives them.
        tokens, learn, starts: all examples, one after another, and where each begins.

    Returns:
        Ids, what to learn, and each token's document number, all of shape (rows, capacity). Places
        that stay empty are a document of their own in which nothing is learned.
    """
    ids = np.zeros((len(rows), capacity), np.int64)
    learned = np.zeros((len(rows), capacity), np.bool_)
    documents = np.full((len(rows), capacity), -1, np.int64)
    for row, examples in enumerate(rows):
        at = 0
        for number, example in enumerate(examples):
            source = slice(starts[example], starts[example + 1])
            place = slice(at, at + source.stop - source.start)
            ids[row, place] = tokens[source]
            learned[row, place] = learn[source]
            documents[row, place] = number
            at = place.stop
    return torch.from_numpy(ids), torch.from_numpy(learned), torch.from_numpy(documents)
