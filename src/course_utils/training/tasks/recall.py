"""Measure forgetting in fine-tuning: next-token accuracy on ordinary text, before and after."""

from itertools import chain, islice

import torch
from torch import nn

from course_utils.base.errors import CourseError
from course_utils.data.text import stream_documents
from course_utils.models.gpt import GPT
from course_utils.tokenizer.fast import FastBPE

ROWS_AT_ONCE = 8


class Recall:
    """How often the likeliest next token of a text is the right one, in percent.

    Args:
        data: A text set by name; its first documents are read, end to end.
        rows: How many pieces of it, at most.
        length: Tokens of each.

    Raises:
        CourseError: for an unknown set, or one with less than a piece.
    """

    def __init__(self, data: str, tokenizer: FastBPE, rows: int = 48, length: int = 128) -> None:
        texts = (tokenizer.encode(text, special=False) for text in stream_documents(data))
        ids = torch.tensor(list(islice(chain.from_iterable(texts), rows * (length + 1))))
        whole = len(ids) // (length + 1)
        if not whole:
            raise CourseError(f"{data} has only {len(ids)} tokens: too few to look for forgetting.")
        self._rows = ids[: whole * (length + 1)].view(whole, length + 1)

    @torch.no_grad()
    def measure(self, model: nn.Module) -> dict[str, float]:
        """`val_general_percent`."""
        assert isinstance(model, GPT)
        device, right = model.embedding.weight.device, 0
        for rows in self._rows.split(ROWS_AT_ONCE):
            rows = rows.to(device)
            right += int((model(rows[:, :-1]).argmax(dim=-1) == rows[:, 1:]).sum())
        return {"val_general_percent": 100 * right / self._rows[:, 1:].numel()}
