"""Has fine-tuning made a model forget what it knew? A look at ordinary text, before and after."""

from itertools import islice

import torch
from torch import nn

from course_utils.data.text import stream_documents
from course_utils.models.gpt import GPT
from course_utils.tokenizer.fast import FastBPE

ROWS_AT_ONCE = 8


class Recall:
    """How often the likeliest next token of a text is the right one, in percent.

    Args:
        data: A text set by name; its first documents that are long enough are read.
        rows: How many documents.
        length: Tokens of each.
    """

    def __init__(self, data: str, tokenizer: FastBPE, rows: int = 48, length: int = 128) -> None:
        texts = (tokenizer.encode(text, special=False) for text in stream_documents(data))
        long_enough = (ids[: length + 1] for ids in texts if len(ids) > length)
        self._rows = torch.tensor(list(islice(long_enough, rows)))

    @torch.no_grad()
    def measure(self, model: nn.Module) -> dict[str, float]:
        """`val_general_percent`."""
        assert isinstance(model, GPT)
        device, right = model.embedding.weight.device, 0
        for rows in self._rows.split(ROWS_AT_ONCE):
            rows = rows.to(device)
            right += int((model(rows[:, :-1]).argmax(dim=-1) == rows[:, 1:]).sum())
        return {"val_general_percent": 100 * right / self._rows[:, 1:].numel()}
