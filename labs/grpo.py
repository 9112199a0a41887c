"""Train a chat model on the rewards of its own answers: group-relative policy optimization.

    python labs/grpo.py --recipe grpo-nano                   # after sft-careless
    python labs/grpo.py --recipe grpo-nano --tasks "additions" --name sums

labs/README.md explains recipes, launching and resuming.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from course_utils.alignment.drift import Drift
from course_utils.data.tasks import tasks_named
from course_utils.generation.exam import Exam
from course_utils.training.lab.language_lab import (
    LanguageConfig,
    language_trainer,
    require_at_least,
)
from course_utils.training.lab.language_run import load_base
from course_utils.training.lab.recipes import open_lab, run_lab
from course_utils.training.loop.trainer import Trainer
from course_utils.training.tasks.groups import GroupTask, RolloutLog


@dataclass(frozen=True, kw_only=True)
class GrpoConfig(LanguageConfig):
    """Train a chat model on the rewards of its own answers with GRPO.

    A batch is `batch_size` questions, each answered `group` times.

    Attributes:
        base: The chat model to train, which is also the reference model: a run's name or folder.
        tasks: The tasks to train on: additions, or a generator of reasoning-gym with its settings,
            such as chain_sum?max_terms=3&max_digits=1.
        n_tasks: The number of different training tasks.
        exam: The number of held-out tasks to answer at every evaluation.
        group: The number of answers to generate for each question.
        max_new_tokens: The maximum length of an answer in tokens.
        kl_weight: The weight of the KL penalty towards the reference model.
    """

    recipe: str = "grpo-nano"
    base: str = "sft-careless"
    tasks: str = "chain_sum?max_terms=3&max_digits=1"
    n_tasks: int = 2000
    exam: int = 200
    group: int = 8
    max_new_tokens: int = 16
    kl_weight: float = 0.04

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "exam")  # the printed results and the KL divergence need it


def make_trainer(config: GrpoConfig) -> tuple[Trainer, dict[str, float]]:
    """Everything a run needs, ready for `train()`; and how the base does in the exam."""
    model, tokenizer, weights = load_base(config.base)
    reference = copy.deepcopy(model)
    questions = tasks_named(config.tasks, config.exam, "held_out", seed=0)
    exam = Exam(tokenizer, questions, config.max_new_tokens)
    drift = Drift(reference, tokenizer, questions, config.max_new_tokens)
    task = GroupTask(
        policy=model,
        reference=reference,
        tokenizer=tokenizer,
        tasks=tasks_named(config.tasks, config.n_tasks, "train", seed=0),
        exam=exam,
        batch_size=config.batch_size,
        group=config.group,
        max_new_tokens=config.max_new_tokens,
        kl_weight=config.kl_weight,
        seed=config.seed,
        measures=[drift.measure],
    )
    settings = ("base", "tasks", "n_tasks", "group", "max_new_tokens", "kl_weight")
    identity = {name: getattr(config, name) for name in settings}
    trainer = language_trainer(
        model,
        task,
        tokenizer,
        config,
        identity={**identity, "base_weights": weights},
        callbacks=[RolloutLog(task)],
    )
    return trainer, exam.measure(reference)


def train(argv: Sequence[str]) -> None:
    config = open_lab(GrpoConfig, argv, __file__)
    trainer, before = make_trainer(config)
    summary = trainer.train()
    if trainer.is_main:
        found = summary.metrics
        print(
            f"Held-out tasks right: {before['val_exact_match']:.1%} before, "
            f"{found['val_exact_match']:.1%} after; KL to {config.base} {found['val_kl']:.3f} nats "
            f"per answer, after {summary.elapsed_s:.0f} s of training.\n"
            f"Talk to it: python labs/chat.py {summary.folder.name}"
        )


if __name__ == "__main__":
    run_lab(train)
