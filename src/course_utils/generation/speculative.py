"""Speculative decoding: a small model guesses ahead, the large one checks all guesses at once.

The tokens have exactly the large model's distribution. One pass of the large model over k guesses
costs little more than over one token, because both read all its weights once.

Paper: Leviathan et al. (2023), "Fast Inference from Transformers via Speculative Decoding".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.base.errors import CourseError
from course_utils.generation.fused import Writer
from course_utils.generation.sampling import Sampling, filtered
from course_utils.models.gpt import KVCache


@dataclass(frozen=True)
class Speculation:
    """A continuation, and how well the guesses did."""

    tokens: list[int]
    guessed: int
    accepted: int


def accept_guesses(
    guesses: Int[Tensor, "k"],
    draft: Float[Tensor, "k vocab"],
    target: Float[Tensor, "k_plus_1 vocab"],
    generator: torch.Generator | None = None,
) -> list[int]:
    """Keep guesses so that what is kept is distributed exactly as the target says.

    Go through the guesses in order. Guess x is kept with probability min(1, target(x) / draft(x)).

    - The first guess that is not kept is replaced by a draw from what the draft gave too little of,
      max(0, target − draft), divided by its sum. The guesses after it are dropped: they continued
      a text that is not written.
    - When all are kept, one more token is drawn from the target's last row.

    Args:
        guesses: drawn from the draft, guess i from `draft[i]`.
        draft, target: row i holds the probabilities of the token at the place of guess i. The
            target has a row more, for the token after the last guess.
        generator: for the random choices, on the device of `draft`.

    Returns:
        The kept guesses and one token of the target's own: between 1 and k + 1 tokens.
    """
    kept: list[int] = []
    for position, guess in enumerate(guesses.tolist()):
        chance = target[position, guess] / draft[position, guess]
        if torch.rand((), generator=generator, device=draft.device) >= chance:
            missing = (target[position] - draft[position]).clamp(min=0)
            return [*kept, draw(missing / missing.sum(), generator)]
        kept.append(guess)
    return [*kept, draw(target[-1], generator)]


def draw(probabilities: Float[Tensor, "vocab"], generator: torch.Generator | None) -> int:
    """One token, at random."""
    return int(torch.multinomial(probabilities, 1, generator=generator))


@torch.inference_mode()
def speculate(
    model: Writer,
    draft: Writer,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    k: int = 4,
    sampling: Sampling | None = None,
    stop: Sequence[int] = (),
) -> Speculation:
    """Continue a prompt as `model` would, with `draft` guessing `k` tokens ahead.

    Raises:
        CourseError: when the models' vocabularies differ, the prompt leaves no room, or a
            repetition penalty is asked for (it depends on guesses that are not decided yet).
    """
    sampling = sampling or Sampling()
    if sampling.repetition_penalty != 1:
        raise CourseError("Speculative decoding has no repetition penalty; set it to 1.")
    if model.config.vocab != draft.config.vocab:
        raise CourseError(
            f"The draft knows {draft.config.vocab} tokens, the model {model.config.vocab}: "
            "both must use one tokenizer."
        )
    context = min(model.config.context, draft.config.context)
    limit = min(len(prompt) + max_new_tokens, context)
    if not prompt or len(prompt) >= context:
        raise CourseError(f"The prompt must hold 1 to {context - 1} tokens; it has {len(prompt)}.")
    generator = sampling.generator(model.embedding.weight.device)
    large, small = (_Reader(m, sampling, limit + k + 1) for m in (model, draft))
    tokens, guessed, accepted = list(prompt), 0, 0
    while len(tokens) < limit:
        guesses, rows = list(tokens), []
        ahead = min(k, limit - len(tokens))  # a model has no positions beyond its context
        for _ in range(ahead):
            row = small.probabilities(guesses)[-1]
            rows.append(row)
            guesses.append(draw(row, generator))
        proposed = torch.tensor(guesses[len(tokens) :])
        target = large.probabilities(guesses)[-(ahead + 1) :]
        new = accept_guesses(proposed, torch.stack(rows), target, generator)
        guessed, accepted = guessed + ahead, accepted + len(new) - 1
        for token in new[: limit - len(tokens)]:
            if token in stop:
                return Speculation(tokens[len(prompt) :], guessed, accepted)
            tokens.append(token)
    return Speculation(tokens[len(prompt) :], guessed, accepted)


class _Reader:
    """A model that has read a text, and reads on from where a new text begins to differ."""

    def __init__(self, model: Writer, sampling: Sampling, capacity: int) -> None:
        self.model, self.sampling = model, sampling
        weight = model.embedding.weight
        self.cache = KVCache(model.config, 1, capacity, dtype=weight.dtype, device=weight.device)
        self.read: list[int] = []

    def probabilities(self, tokens: list[int]) -> Float[Tensor, "new vocab"]:
        """Distributions after each of the newly read tokens, at least the last one."""
        same = 0
        for known, wanted in zip(self.read, tokens[:-1], strict=False):
            if known != wanted:
                break
            same += 1
        self.cache.rewind(same)
        new = torch.tensor([tokens[same:]], device=self.model.embedding.weight.device)
        self.read = list(tokens)
        logits = filtered(self.model(new, cache=self.cache)[0].float(), self.sampling)
        if self.sampling.greedy:
            return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
        return logits.softmax(dim=-1)
