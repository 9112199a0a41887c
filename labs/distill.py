"""Distillation: train a smaller model on a larger model's distributions over the next token.

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
    """Train a smaller model on a larger model's distributions over the next token.

    Attributes:
        teacher: The teacher, a chat model: a run's name or folder. The student has the teacher's
            shape, except for the next four settings.
        d_model: The student's model width.
        n_layers: The student's number of blocks.
        n_heads: The student's number of query heads; it has half as many key and value heads.
        d_ff: The hidden width of the student's feed-forward networks.
        data: The chat sets to train on, separated by commas, as for sft.py.
        sums: The number of generated additions to mix in.
        tasks: The tasks of the exam.
        exam: The number of held-out tasks to answer at every evaluation.
        temperature: The temperature that softens both distributions.
        direction: "forward" KL makes the student cover all of the teacher's distribution; "reverse"
            KL makes it concentrate on the teacher's most likely tokens.
        hard: The weight of the cross-entropy with the target tokens, 0 to 1; the rest is the KL.
        held_out: The share of the conversations in the validation set.
        me: The assistant's name, which fills {{name}} in the identity set.
        author: The name of its author, which fills {{author}} in the identity set.
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
        require_at_least(1, self, "exam")  # the printed results and the KL divergence need it


def make_trainer(config: DistillConfig) -> tuple[Trainer, dict[str, float]]:
    """Everything a run needs, ready for `train()`; and how the teacher does in the exam."""
    teacher, tokenizer, weights = load_base(config.teacher)
    if config.n_heads % 2:
        raise CourseError(
            f"--n-heads must be even (two query heads per key head); found {config.n_heads}."
        )
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
    # chat.py recognizes a chat model by the entry "base" in its recipe.
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
