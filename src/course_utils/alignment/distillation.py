"""Distillation: learning from what a teacher finds possible, not only from what is right."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

Direction = Literal["forward", "reverse"]


def soft_target_loss(
    student: Float[Tensor, "*batch vocab"],
    teacher: Float[Tensor, "*batch vocab"],
    temperature: float = 1.0,
    direction: Direction = "forward",
) -> Float[Tensor, "*batch"]:
    """How far a student's distribution is from its teacher's, both softened by a temperature.

        p = softmax(teacher / T)        q = softmax(student / T)

        forward    T² · KL(p ‖ q) = T² · Σ p · (log p − log q)
        reverse    T² · KL(q ‖ p) = T² · Σ q · (log q − log p)

    A temperature above 1 brings out what the teacher finds almost possible: that 7 looks more like
    1 than like 8. The gradient shrinks with 1/T²; the factor T² gives it back, so that the same
    learning rate and the same mixture with other losses fit any temperature.

    Forward KL punishes a student that finds impossible what the teacher finds possible: it spreads
    over everything the teacher does. Reverse KL punishes it for finding possible what the teacher
    does not: it settles on what the teacher does most.

    Args:
        student, teacher: logits over the vocabulary, at any number of positions.
        temperature: T, above 0.
        direction: "forward" or "reverse".

    Returns:
        The divergence at each position. Gradients flow to the student alone.

    Raises:
        ValueError: for another direction.

    Papers: Hinton et al. (2015), "Distilling the Knowledge in a Neural Network"; Gu et al. (2023),
    "MiniLLM", for reverse KL in language models.
    """
    log_p = (teacher.detach() / temperature).log_softmax(dim=-1)
    log_q = (student / temperature).log_softmax(dim=-1)
    if direction == "forward":
        divergence = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    elif direction == "reverse":
        divergence = (log_q.exp() * (log_q - log_p)).sum(dim=-1)
    else:
        raise ValueError(f"direction is {direction!r}, neither 'forward' nor 'reverse'")
    return temperature**2 * divergence
