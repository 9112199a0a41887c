"""The generation loop: read the prompts once, then one token at a time from the cache."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.base.errors import CourseError
from course_utils.generation.fused import Writer
from course_utils.generation.sampling import Sampling, next_token
from course_utils.models.gpt import KVCache


@dataclass(frozen=True)
class Step:
    """One new token for every row that is not finished (finished rows repeat `None`)."""

    tokens: tuple[int | None, ...]


def generate(
    model: Writer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop: Sequence[int] = (),
    uniform: Float[Tensor, "batch steps"] | None = None,
) -> list[list[int]]:
    """The continuations of prompts, without the prompts and without the stop token.

    Args:
        model: in evaluation mode; on any device. `FusedGPT(model)` writes the same text faster.
        prompts: token ids; they may differ in length and are generated in one batch.
        max_new_tokens: at most so many for each, and never beyond the model's context.
        sampling: greedy by default.
        stop: a row ends when one of these ids is chosen.
        uniform: the random numbers to choose with, 0 to 1, one for each row and new token, in place
            of a generator's: then a prompt's continuation does not depend on the others' (but for
            rounding).

    Raises:
        CourseError: for an empty prompt, one longer than the context, or an id out of range.
    """
    rows: list[list[int]] = [[] for _ in prompts]
    steps = stream(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        stop=stop,
        uniform=uniform,
    )
    for step in steps:
        for row, token in zip(rows, step.tokens, strict=True):
            if token is not None:
                row.append(token)
    return rows


def refuse_long(model: Writer, prompts: Sequence[Sequence[int]], longest: int) -> None:
    """Refuse prompts whose answers would be cut off by the context, before `longest` tokens.

    Whoever marks answers must know which of them the model ended by itself.

    Raises:
        CourseError: when a prompt leaves less room than `longest` tokens.
    """
    most, context = max(map(len, prompts), default=0), model.config.context
    if most + longest > context:
        raise CourseError(
            f"A question of {most} tokens and an answer of up to {longest} do not fit into the "
            f"model's context of {context}: take shorter tasks, or a lower max_new_tokens."
        )


@torch.inference_mode()
def stream(
    model: Writer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop: Sequence[int] = (),
    uniform: Float[Tensor, "batch steps"] | None = None,
) -> Iterator[Step]:
    """Like `generate`, token by token as they are chosen."""
    sampling = sampling or Sampling()
    tokens, first = _left_padded(model, prompts)
    room = min(max_new_tokens, model.config.context - tokens.shape[1])
    weight = model.embedding.weight
    cache = KVCache(
        model.config, len(prompts), tokens.shape[1] + room, dtype=weight.dtype, device=weight.device
    )
    generator = sampling.generator(weight.device)
    seen = _occurring(tokens, first, model.config.vocab) if _needs_seen(sampling) else None
    running = [True] * len(prompts)
    ends = frozenset(stop)
    padding = first if bool(first.any()) else None
    for position in range(room):
        # Only the last position's logits are needed, so only they are computed.
        features = model.features(tokens, first=padding, cache=cache)[:, -1]
        place = None if uniform is None else uniform[:, position].to(weight.device)
        chosen = next_token(model.output(features), sampling, generator, seen, place)
        if seen is not None:
            seen[torch.arange(len(prompts)), chosen] = True
        new = chosen.tolist()
        running = [r and token not in ends for r, token in zip(running, new, strict=True)]
        if not any(running):
            return
        yield Step(tuple(t if r else None for t, r in zip(new, running, strict=True)))
        tokens = chosen[:, None]


def _needs_seen(sampling: Sampling) -> bool:
    return sampling.repetition_penalty != 1


def _left_padded(
    model: Writer, prompts: Sequence[Sequence[int]]
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch"]]:
    """Prompts side by side, each ending in the last column, and where each begins."""
    longest = max((len(prompt) for prompt in prompts), default=0)
    for prompt in prompts:
        if not prompt:
            raise CourseError("A prompt is empty: give at least one token to continue from.")
        if min(prompt) < 0 or max(prompt) >= model.config.vocab:
            raise CourseError(
                f"A prompt holds an id outside 0 … {model.config.vocab - 1}: "
                "was it encoded with this model's tokenizer?"
            )
    if longest >= model.config.context:
        raise CourseError(
            f"A prompt of {longest} tokens leaves no room in a context of {model.config.context}."
        )
    device = model.embedding.weight.device
    padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    first = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    return torch.tensor(padded, device=device), first


def _occurring(tokens: Int[Tensor, "batch seq"], first: Int[Tensor, "batch"], vocab: int) -> Tensor:
    """Which tokens each prompt holds; padding does not count."""
    column = torch.arange(tokens.shape[1], device=tokens.device)
    real = column >= first[:, None]
    seen = torch.zeros(len(tokens), vocab, dtype=torch.long, device=tokens.device)
    return seen.scatter_add_(1, tokens, real.long()) > 0
