"""Teach a smaller model what a larger one finds possible: distillation.

    python labs/distill.py --recipe distill-nano                       # after sft-nano
    python labs/distill.py --recipe distill-nano --hard 1 --name alone # the same without a teacher

labs/README.md explains recipes, launching and resuming.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from course_utils.alignment.distillation import Direction
from course_utils.alignment.drift import Drift
from course_utils.base.errors import CourseError
from course_utils.data.tasks import tasks_named
from course_utils.generation.exam import Exam
from course_utils.models.gpt import GPT
from course_utils.training.lab.language_lab import (
    LanguageConfig,
    language_trainer,
    require_at_least,
)
from course_utils.training.lab.language_run import load_base
from course_utils.training.lab.recipes import open_lab, run_lab
from course_utils.training.loop.trainer import Trainer
from course_utils.training.tasks.corpora import chat_corpus
from course_utils.training.tasks.distillation import DistillationTask
from course_utils.training.tasks.language import bytes_of_tokens


@dataclass(frozen=True, kw_only=True)
class DistillConfig(LanguageConfig):
    """Teach a smaller model what a larger one finds possible.

    Attributes:
        teacher: The chat model to learn from: a run's name or folder. The student has its shape,
            but for what the next four settings change.
        d_model: Width of the student.
        n_layers: Its blocks.
        n_heads: Its query heads; half as many keys and values.
        d_ff: Hidden width of its feed-forward networks.
        data: Chat sets to read together, as for sft.py.
        sums: Additions to mix in.
        tasks: What the exam asks.
        exam: Held-out tasks to answer at every evaluation.
        temperature: Softens both distributions.
        direction: "forward" KL spreads over all that the teacher does, "reverse" settles on its
            favourites.
        hard: Share of the loss that is ordinary cross-entropy with the right tokens.
        held_out: Share of the conversations that is measured on.
        me: The assistant's name, for the identity set.
        author: Who made it, for the identity set.
    """

    recipe: str = "distill-nano"
    teacher: str = "sft-nano"
    d_model: int = 64
    n_layers: int = 2
    n_heads: int = 2
    d_ff: int = 192
    data: str = ""
    sums: int = 2_000
    tasks: str = "additions"
    exam: int = 200
    temperature: float = 2.0
    direction: Direction = "forward"
    hard: float = 0.0
    held_out: float = 0.05
    me: str = "Nano"
    author: str = "you"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "exam")  # what is printed at the end, and the KL, are about it


def make_trainer(config: DistillConfig) -> tuple[Trainer, dict[str, float]]:
    """Everything a run needs, ready for `train()`; and how the teacher does in the exam."""
    teacher, tokenizer, weights = load_base(config.teacher)
    if config.n_heads % 2:
        raise CourseError(f"n_heads must be even, two for each key head; found {config.n_heads}.")
    torch.manual_seed(config.seed)
    student = GPT(
        replace(
            teacher.config,
            d_model=config.d_model,
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            n_kv_heads=config.n_heads // 2,
            d_ff=config.d_ff,
        )
    )
    corpus = chat_corpus(
        config.data,
        tokenizer,
        context=config.context,
        sums=config.sums,
        fill={"name": config.me, "author": config.author},
        held_out=config.held_out,
    )
    questions = tasks_named(config.tasks, config.exam, "held_out", seed=0)
    exam, drift = Exam(tokenizer, questions), Drift(teacher, tokenizer, questions)
    task = DistillationTask(
        train=corpus.train,
        validation=corpus.validation,
        context=config.context,
        batch_size=config.batch_size,
        bytes_of=bytes_of_tokens(tokenizer),
        seed=config.seed,
        evaluation_rows=config.evaluation_rows,
        measures=[exam.measure, drift.measure],
        teacher=teacher,
        temperature=config.temperature,
        direction=config.direction,
        hard=config.hard,
    )
    settings = ("data", "sums", "temperature", "direction", "hard", "held_out", "me", "author")
    # "base" is what chat.py knows a chat model by.
    identity = {"base": config.teacher, **{name: getattr(config, name) for name in settings}}
    identity |= {"teacher_weights": weights, "corpus": corpus.fingerprint}
    trainer = language_trainer(student, task, tokenizer, config, identity=identity)
    return trainer, exam.measure(teacher)


def train(argv: Sequence[str]) -> None:
    config = open_lab(DistillConfig, argv, __file__)
    trainer, teacher = make_trainer(config)
    summary = trainer.train()
    if trainer.is_main:
        found, task = summary.metrics, trainer.task
        assert isinstance(task, DistillationTask)
        sizes = [sum(p.numel() for p in m.parameters()) for m in (task.teacher, trainer.model)]
        print(
            f"Held-out tasks right: the teacher {teacher['val_exact_match']:.1%} with {sizes[0]:,} "
            f"parameters, the student {found['val_exact_match']:.1%} with {sizes[1]:,}; KL to "
            f"{config.teacher} {found['val_kl']:.3f} nats per answer, after "
            f"{summary.elapsed_s:.0f} s of training.\n"
            f"Talk to it: python labs/chat.py {summary.folder.name}"
        )


if __name__ == "__main__":
    run_lab(train)
