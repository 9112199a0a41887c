"""The language-model tasks: rows of tokens, their loss, and their evaluation.

    CorpusTask   pretraining: concatenated documents; every token is a target
    ChatTask     fine-tuning: conversations packed into rows; the assistant's tokens are targets

In both, row r of step s follows from (seed, s) alone, as `parts.data_order` explains. So the step
is the position in the data, for any world size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from course_utils.base.errors import CourseError
from course_utils.base.ignored import IGNORED
from course_utils.data.corpus import Split
from course_utils.data.packing import fill_rows, next_tokens, pack
from course_utils.training.engines.processes import Processes
from course_utils.training.loop.cpu_attention import StoredScores
from course_utils.training.parts.data_order import global_batch, part_of, steps_per_epoch

Batch = dict[str, Tensor]
Measure = Callable[[nn.Module], dict[str, float]]

EVALUATION_BATCH = 8  # rows


@dataclass(eq=False, kw_only=True)
class LanguageTask:
    """What pretraining and fine-tuning have in common.

    Attributes:
        train, validation: The two sides of a corpus.
        context: The context length in tokens.
        batch_size: Rows per optimizer step, over all processes.
        bytes_of: Bytes of text that each id stands for, for bits per byte; None leaves that out.
        seed: Of the order of the rows.
        evaluation_rows: The number of validation rows in each evaluation, always the same rows.
        measures: What else to measure at each evaluation; its names and numbers are logged.
    """

    train: Split
    validation: Split
    context: int
    batch_size: int
    bytes_of: Int[Tensor, "vocab"] | None = None
    seed: int = 0
    evaluation_rows: int = 64
    measures: Sequence[Measure] = field(default=())

    unit = "tokens"

    def __post_init__(self) -> None:
        steps_per_epoch(self.batch_size, self.n_rows)  # refuses a batch larger than the data
        if not self.n_validation_rows:
            raise CourseError(
                f"The validation set has {self.validation.starts[-1]:,} tokens, not one row of "
                f"{self.context}: increase --held-out, or reduce --context."
            )

    @property
    def n_rows(self) -> int:
        """Rows to train on in an epoch."""
        raise NotImplementedError

    @property
    def n_validation_rows(self) -> int:
        raise NotImplementedError

    def rows(self, split: Split, which: Int64[Tensor, "rows"], phase: int) -> Batch:
        """Rows of a side as `tokens`, `targets` and, where they are kept apart, `documents`."""
        raise NotImplementedError

    def batch(self, step: int, part: int, parts: int) -> Batch:
        which = part_of(global_batch(step, self.batch_size, self.n_rows, self.seed), part, parts)
        return self.rows(self.train, which, self._phase(step))

    def _phase(self, step: int) -> int:
        """Where the rows of this epoch are cut, so that no two epochs cut alike."""
        epoch = step // steps_per_epoch(self.batch_size, self.n_rows)
        philox = np.random.Philox(key=[self.seed, epoch], counter=[0, 0, 0, 2])
        return int(np.random.Generator(philox).integers(self.context))

    def count(self, batch: Batch) -> int:
        return int((batch["targets"] != IGNORED).sum())

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Cross-entropy in nats, summed over the targets that count."""
        with StoredScores():
            return model(**batch)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss per token, bits per byte, and what `measures` say.

        The processes share the rows between them.
        """
        processes = Processes.start()
        device = next(model.parameters()).device
        n = min(self.evaluation_rows, self.n_validation_rows)
        spread = torch.arange(n) * self.n_validation_rows // n  # evenly over all of it
        sums = torch.zeros(4, dtype=torch.float64)
        for which in spread.split(EVALUATION_BATCH)[processes.index :: processes.count]:
            sums += self._sums(model, self.rows(self.validation, which, 0), device)
        loss, tokens, text_loss, text_bytes = processes.sum(sums.tolist())
        measured = {"val_loss": loss / tokens}
        if text_bytes:  # as `models.metrics.bits_per_byte`, over all processes
            measured["val_bits_per_byte"] = text_loss / math.log(2) / text_bytes
        for measure in self.measures:
            measured |= measure(model)
        return measured

    def _sums(self, model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
        """Of one batch: loss, targets, and the loss and bytes of those targets that are text."""
        targets = batch.pop("targets")
        logits = model(**{name: part.to(device) for name, part in batch.items()})
        counts = targets != IGNORED
        wanted = targets[counts]
        loss = F.cross_entropy(logits[counts].float().cpu(), wanted, reduction="none").double()
        n_bytes = torch.zeros(1) if self.bytes_of is None else self.bytes_of[wanted]
        numbers = [loss.sum(), counts.sum(), (loss * (n_bytes > 0)).sum(), n_bytes.sum()]
        return torch.tensor([float(number) for number in numbers], dtype=torch.float64)


class CorpusTask(LanguageTask):
    """Pretraining: row i is the tokens from i · context on, whatever documents they are of.

    What an epoch leaves out at the ends is less than two rows, and another piece in each epoch.
    """

    @property
    def n_rows(self) -> int:
        return max(0, (len(self.train.tokens) - 1) // self.context - 1)

    @property
    def n_validation_rows(self) -> int:
        return max(0, (len(self.validation.tokens) - 1) // self.context)

    def rows(self, split: Split, which: Int64[Tensor, "rows"], phase: int) -> Batch:
        starts = which.numpy() * self.context + phase
        window = split.tokens[starts[:, None] + np.arange(self.context + 1)]
        stream = torch.from_numpy(window.astype(np.int64))
        return {"tokens": stream[:, :-1].contiguous(), "targets": stream[:, 1:].contiguous()}


class ChatTask(LanguageTask):
    """Fine-tuning: conversations packed into rows, with an attention mask between them."""

    def __post_init__(self) -> None:
        for side in (self.train, self.validation):
            if side.learn is None:
                raise CourseError("This corpus has no loss mask: build it with chat_corpus.")
        super().__post_init__()

    @cached_property
    def _packed(self) -> dict[int, list[list[int]]]:
        sides = (self.train, self.validation)
        return {id(side): pack(side.lengths.tolist(), self.context) for side in sides}

    @property
    def n_rows(self) -> int:
        return len(self._packed[id(self.train)])

    @property
    def n_validation_rows(self) -> int:
        return len(self._packed[id(self.validation)])

    def rows(self, split: Split, which: Int64[Tensor, "rows"], phase: int) -> Batch:
        chosen = [self._packed[id(split)][row] for row in which.tolist()]
        assert split.learn is not None
        tokens, learn, documents = fill_rows(
            chosen, split.tokens, split.learn, split.starts, self.context
        )
        used = int((documents >= 0).sum(1).max())  # no row is longer, so nothing is lost
        tokens, learn, documents = tokens[:, :used], learn[:, :used], documents[:, :used]
        return {
            "tokens": tokens,
            "targets": next_tokens(tokens, learn, documents),
            "documents": documents,
        }


def perplexity(val_loss: float) -> float:
    """exp(loss): the number of equally likely tokens with the same uncertainty."""
    return math.exp(val_loss)


def bytes_of_tokens(tokenizer: Any) -> Int[Tensor, "vocab"]:
    """How many bytes of text each id stands for; special tokens stand for none."""
    special = set(tokenizer.special.values())
    lengths = [
        0 if number in special else len(tokenizer.token_bytes(number))
        for number in range(tokenizer.vocab_size)
    ]
    return torch.tensor(lengths)
