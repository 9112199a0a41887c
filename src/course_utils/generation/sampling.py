"""Choosing the next token.

Each function turns logits into logits; what may not be chosen becomes −∞. `next_token` applies them
in the order in which transformers does, and draws.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_utils.base.errors import CourseError

NEVER = float("-inf")  # softmax gives it a probability of exactly 0


def scale_by_temperature(
    logits: Float[Tensor, "*batch vocab"], temperature: float
) -> Float[Tensor, "*batch vocab"]:
    """Sharpen (below 1) or flatten (above 1) the distribution; `temperature` is above 0."""
    return logits / temperature


def keep_top_k(logits: Float[Tensor, "*batch vocab"], k: int) -> Float[Tensor, "*batch vocab"]:
    """Keep the `k` likeliest tokens of every row; the others get the logit NEVER, which is −∞.

    Args:
        logits: any number of rows; they stay as they are, the result is a new tensor.
        k: at least 1. A `k` above the size of the vocabulary keeps everything.

    Returns:
        The logits that are kept, unchanged, and NEVER everywhere else. Tokens that tie with the
        last one kept are kept too.

    Paper: Fan et al. (2018), "Hierarchical Neural Story Generation".
    """
    least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < least, NEVER)


def keep_top_p(logits: Float[Tensor, "*batch vocab"], p: float) -> Float[Tensor, "*batch vocab"]:
    """Keep the fewest likeliest tokens of every row whose probabilities sum to at least `p`.

    Seen from a token: it stays as long as the tokens before it, in the order from likely to
    unlikely, have together not reached `p` yet. So the likeliest always stays.

    Args:
        logits: any number of rows; they stay as they are. Probabilities are their softmax.
        p: above 0, at most 1.

    Returns:
        The logits that are kept, unchanged and at their positions, and NEVER (−∞) everywhere else.

    Paper: Holtzman et al. (2020), "The Curious Case of Neural Text Degeneration".
    """
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probability = ordered.softmax(dim=-1)
    reached_before = probability.cumsum(dim=-1) - probability
    drop = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, reached_before >= p)
    return logits.masked_fill(drop, NEVER)


def keep_min_p(logits: Float[Tensor, "*batch vocab"], p: float) -> Float[Tensor, "*batch vocab"]:
    """Keep tokens at least `p` times as likely as the likeliest.

    Paper: Nguyen et al. (2024), "Turning Up the Heat: Min-p Sampling".
    """
    probability = logits.softmax(dim=-1)
    least = p * probability.max(dim=-1, keepdim=True).values
    return logits.masked_fill(probability < least, NEVER)


def penalise_repetition(
    logits: Float[Tensor, "batch vocab"],
    seen: Bool[Tensor, "batch vocab"],
    penalty: float,
) -> Float[Tensor, "batch vocab"]:
    """Make tokens that occurred before less likely, by dividing or multiplying their logits.

    Positive logits are divided by `penalty`, negative ones multiplied: both move down.

    Paper: Keskar et al. (2019), "CTRL: A Conditional Transformer Language Model".
    """
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)


@dataclass(frozen=True)
class Sampling:
    """How to choose: greedily by default, or at random among what the limits leave.

    Args:
        temperature: 0 always takes the likeliest token.
        top_k, top_p, min_p: limits; None for no limit.
        repetition_penalty: 1 for none.
        seed: of the random choices; None for other ones each time.

    Raises:
        CourseError: for a number outside its range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, wrong, range_ in (
            ("temperature", self.temperature < 0, "at least 0"),
            ("top_k", self.top_k is not None and self.top_k < 1, "at least 1"),
            ("top_p", self.top_p is not None and not 0 < self.top_p <= 1, "above 0, at most 1"),
            ("min_p", self.min_p is not None and not 0 <= self.min_p <= 1, "between 0 and 1"),
            ("repetition_penalty", self.repetition_penalty <= 0, "above 0"),
        ):
            if wrong:
                raise CourseError(f"{name} must be {range_}; it is {getattr(self, name)}.")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A random generator that starts at this sampling's seed."""
        generator = torch.Generator(device)
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator


def filtered(
    logits: Float[Tensor, "batch vocab"],
    sampling: Sampling,
    seen: Bool[Tensor, "batch vocab"] | None = None,
) -> Float[Tensor, "batch vocab"]:
    """The logits that are left to draw from; for a greedy choice only the penalty applies."""
    if seen is not None and sampling.repetition_penalty != 1:
        logits = penalise_repetition(logits, seen, sampling.repetition_penalty)
    if sampling.greedy:
        return logits
    logits = scale_by_temperature(logits, sampling.temperature)
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p is not None:
        logits = keep_min_p(logits, sampling.min_p)
    return logits


def next_token(
    logits: Float[Tensor, "batch vocab"],
    sampling: Sampling,
    generator: torch.Generator | None = None,
    seen: Bool[Tensor, "batch vocab"] | None = None,
    uniform: Float[Tensor, "batch"] | None = None,
) -> Int[Tensor, "batch"]:
    """Choose one token for each row, from the generator or with given `uniform` numbers."""
    logits = filtered(logits.float(), sampling, seen)
    if sampling.greedy:
        return logits.argmax(dim=-1)
    probabilities = logits.softmax(dim=-1)
    if uniform is not None:
        return token_at(probabilities, uniform)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def token_at(
    probabilities: Float[Tensor, "batch vocab"], uniform: Float[Tensor, "batch"]
) -> Int[Tensor, "batch"]:
    """The token at a place of the line from 0 to 1, on which each is as long as it is likely.

    With uniform random numbers this draws from the distribution, and the token of a row does not
    depend on the other rows of the batch.
    """
    ends = probabilities.double().cumsum(dim=-1)
    found = torch.searchsorted(ends, uniform.double()[:, None] * ends[:, -1:], right=True)
    return found[:, 0].clamp(max=probabilities.shape[-1] - 1)
