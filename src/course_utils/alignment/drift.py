"""How far a model has moved from its reference, measured on what it says itself."""

from collections.abc import Sequence

import torch
from torch import nn

from course_utils.alignment.answers import draw_answers, rows_of, uniform_numbers
from course_utils.data.chat import prompt_of
from course_utils.data.tasks import VerifiableTask
from course_utils.generation.fused import FusedGPT
from course_utils.models.gpt import GPT, IGNORED
from course_utils.tokenizer.fast import FastBPE

ROWS_AT_ONCE = 64


class Drift:
    """KL(π ‖ π_ref) in nats per answer, for a run's metrics.

    The model answers each task once, at temperature 1, always with the same random numbers. At each
    token of an answer the whole distributions are compared, which wavers less than comparing the
    tokens that happened to be drawn.

    Args:
        reference: what the model is compared with; it stays as it is.
    """

    def __init__(
        self,
        reference: GPT,
        tokenizer: FastBPE,
        tasks: Sequence[VerifiableTask],
        max_new_tokens: int = 16,
    ) -> None:
        self._reference, self._tokenizer = reference, tokenizer
        self._questions = [prompt_of(tokenizer, task.messages[:1]) for task in tasks]
        self._uniform = uniform_numbers(0, 0, len(tasks), 1, max_new_tokens)

    @torch.no_grad()
    def measure(self, model: nn.Module) -> dict[str, float]:
        """`val_kl`."""
        assert isinstance(model, GPT)
        device = model.embedding.weight.device
        reference = self._reference.to(device)
        with torch.autocast(device.type, enabled=False):  # the joined weights have one type
            drawn = draw_answers(FusedGPT(model), self._tokenizer, self._questions, self._uniform)
        rows = rows_of(self._questions, [answer.ids for [answer] in drawn])
        total = 0.0
        for tokens, targets in zip(
            rows["tokens"].split(ROWS_AT_ONCE), rows["targets"].split(ROWS_AT_ONCE), strict=True
        ):
            mask = (targets != IGNORED).to(device)
            log_p, log_q = (
                m(tokens.to(device))[mask].float().log_softmax(dim=-1) for m in (model, reference)
            )
            total += float((log_p.exp() * (log_p - log_q)).sum())
        return {"val_kl": total / len(self._questions)}
