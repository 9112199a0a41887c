"""The distillation task: conversations, and a teacher's distributions over the next token."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from course_utils.alignment.distillation import Direction, soft_target_loss
from course_utils.base.errors import CourseError
from course_utils.models.gpt import GPT, IGNORED
from course_utils.training.loop.cpu_attention import StoredScores
from course_utils.training.tasks.language import Batch, ChatTask


@dataclass(eq=False, kw_only=True)
class DistillationTask(ChatTask):
    """Fine-tuning with a teacher's distributions beside, or instead of, the right tokens.

    Evaluation is the same as in `ChatTask`, with the target tokens.

    Attributes:
        teacher: A trained model with the same vocabulary; it stays as it is.
        temperature: Softens both distributions.
        direction: "forward" or "reverse" KL.
        hard: Share of the loss that is ordinary cross-entropy, 0 to 1.
    """

    teacher: GPT
    temperature: float = 2.0
    direction: Direction = "forward"
    hard: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.hard <= 1:
            raise CourseError(f"--hard must be from 0 to 1; found {self.hard}.")
        if self.temperature <= 0:
            raise CourseError(f"--temperature must be above 0; found {self.temperature}.")
        if self.context > self.teacher.config.context:
            raise CourseError(
                f"Rows of {self.context} tokens are longer than the teacher's context of "
                f"{self.teacher.config.context}: set --context to that or less."
            )
        self.teacher.eval()

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Soft and hard loss in nats, summed over the targets that count."""
        counts = batch["targets"] != IGNORED
        inputs = {name: part for name, part in batch.items() if name != "targets"}
        with StoredScores():
            student = model(**inputs)[counts].float()
        hard = F.cross_entropy(student, batch["targets"][counts], reduction="sum")
        if self.hard == 1:
            return hard
        with torch.no_grad():
            teacher = self.teacher.to(student.device)(**inputs)[counts].float()
        soft = soft_target_loss(student, teacher, self.temperature, self.direction).sum()
        return (1 - self.hard) * soft + self.hard * hard
