"""Questions and answers as rows of tokens, and answers drawn from a model.

    [question question question answer answer <|im_end|>]         tokens, padded at the end
     –––––––  –––––––  answer   answer <|im_end|>                 targets: what comes next

A row padded at its end needs no mask: attention is causal, so nothing ever looks at the padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from course_utils.base.ignored import IGNORED
from course_utils.data.chat import END, Tokenizer
from course_utils.data.tasks import VerifiableTask
from course_utils.generation.engine import generate, refuse_long
from course_utils.generation.fused import Writer
from course_utils.generation.sampling import Sampling
from course_utils.tokenizer.fast import FastBPE

ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class SampledAnswer:
    """What a model said.

    Attributes:
        ids: its tokens, with `<|im_end|>` if it ended by itself.
        text: without it.
        finished: whether it ended by itself.
    """

    ids: list[int]
    text: str
    finished: bool

    def score(self, task: VerifiableTask) -> float:
        """The task's mark, 0 to 1; an answer without an end is worth nothing."""
        return task.score(self.text) if self.finished else 0.0


def answer_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """An answer as a chat model says it: its tokens, and the one that ends it."""
    return [*tokenizer.encode(text, special=False), tokenizer.special[END]]


def rows_of(
    questions: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> dict[str, Tensor]:
    """Questions with their answers as `tokens` and `targets`, both of shape (rows, seq).

    Targets are the answers' tokens, each one position before its own; elsewhere IGNORED.
    """
    length = max(len(q) + len(a) for q, a in zip(questions, answers, strict=True)) - 1
    tokens = np.zeros((len(questions), length), np.int64)
    targets = np.full((len(questions), length), IGNORED, np.int64)
    for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        text = [*question, *answer]
        tokens[row, : len(text) - 1] = text[:-1]
        targets[row, len(question) - 1 : len(text) - 1] = answer
    return {"tokens": torch.from_numpy(tokens), "targets": torch.from_numpy(targets)}


def uniform_numbers(seed: int, step: int, *shape: int) -> Float[Tensor, "..."]:
    """Random numbers from 0 to 1 that follow from `seed` and `step` alone."""
    philox = np.random.Philox(key=[seed, step], counter=[0, 0, 0, 3])
    return torch.from_numpy(np.random.Generator(philox).random(shape))


def draw_answers(
    model: Writer,
    tokenizer: FastBPE,
    questions: Sequence[Sequence[int]],
    uniform: Float[Tensor, "questions size longest"],
    temperature: float = 1.0,
) -> list[list[SampledAnswer]]:
    """Several answers to each question, drawn from the model.

    Args:
        questions: as ids, up to where the answer begins; see `data.chat.prompt_of`.
        uniform: the random numbers to draw with, one for each token; they say how many answers
            (`size`) and how many tokens at most. The same numbers give the same answers, however
            the questions are divided among processes.
    """
    _, size, longest = uniform.shape
    refuse_long(model, questions, longest)
    end = tokenizer.special[END]
    prompts = [question for question in questions for _ in range(size)]
    answers: list[SampledAnswer] = []
    for start in range(0, len(prompts), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        for ids in generate(
            model,
            prompts[rows],
            max_new_tokens=longest,
            sampling=Sampling(temperature=temperature),
            stop=[end],
            uniform=uniform.flatten(0, 1)[rows],
        ):
            finished = len(ids) < longest
            text = tokenizer.decode(ids)
            answers.append(SampledAnswer([*ids, end] if finished else ids, text, finished))
    return [answers[i : i + size] for i in range(0, len(answers), size)]
