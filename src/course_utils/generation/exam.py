"""Setting a chat model tasks that a program can mark."""

from collections.abc import Callable, Sequence

from torch import nn

from course_utils.data.chat import END, END_OF_TEXT, prompt_of
from course_utils.data.tasks import VerifiableTask, exact_match
from course_utils.generation.engine import generate, refuse_long
from course_utils.generation.fused import Writer
from course_utils.models.gpt import GPT
from course_utils.tokenizer.fast import FastBPE

BATCH = 100  # tasks answered at once


class Exam:
    """Tasks, answered greedily and marked.

    Args:
        tasks: Such as nobody trained on: `data.tasks` with side "held_out".
        max_new_tokens: An answer that has not ended by then is wrong.
        name: What the share of right answers is called in a run's metrics.
        writer: What makes a model ready to write, such as `FusedGPT`, which pays for large ones.
    """

    def __init__(
        self,
        tokenizer: FastBPE,
        tasks: Sequence[VerifiableTask],
        max_new_tokens: int = 16,
        name: str = "val_exact_match",
        writer: Callable[[GPT], Writer] = lambda model: model,
    ) -> None:
        self.tasks, self.name, self._writer = list(tasks), name, writer
        self._tokenizer, self._max_new_tokens = tokenizer, max_new_tokens
        self._prompts = [prompt_of(tokenizer, task.messages[:1]) for task in self.tasks]

    def require_room(self, model: GPT) -> None:
        """Refuse a model whose context an answer could leave; `answers` does so, too.

        Raises:
            CourseError: when a question leaves less room than an answer may need.
        """
        refuse_long(model, self._prompts, self._max_new_tokens)

    def answers(self, model: GPT) -> list[str]:
        """The model's answers; one that did not stop by itself ends in "…"."""
        special = self._tokenizer.special
        self.require_room(model)
        found: list[str] = []
        writer = self._writer(model)
        for start in range(0, len(self._prompts), BATCH):
            rows = generate(
                writer,
                self._prompts[start : start + BATCH],
                max_new_tokens=self._max_new_tokens,
                stop=[special[END], special[END_OF_TEXT]],
            )
            for row in rows:
                unfinished = "…" if len(row) == self._max_new_tokens else ""
                found.append(self._tokenizer.decode(row) + unfinished)
        return found

    def measure(self, model: nn.Module) -> dict[str, float]:
        """The share of right answers, for a run's metrics."""
        assert isinstance(model, GPT)
        return {self.name: exact_match(self.tasks, self.answers(model))}
