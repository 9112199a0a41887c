"""Train a chat model on preferences: direct preference optimization (DPO).

    python labs/dpo.py --recipe dpo-nano                     # after sft-careless: pairs of its own
    python labs/dpo.py --recipe dpo-nano --data my_pairs.jsonl --name mine

Without --data the lab generates the pairs: the model answers every task of --tasks several times,
and a program that checks answers chooses a right one over a wrong one. labs/README.md explains
recipes, launching and resuming.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from course_utils.alignment.drift import Drift
from course_utils.alignment.pairs import own_preferences, pairs_of, split
from course_utils.data.preferences import stream_preferences
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
from course_utils.training.tasks.preferences import PreferenceTask


@dataclass(frozen=True, kw_only=True)
class DpoConfig(LanguageConfig):
    """Train a chat model on preferences with DPO.

    Attributes:
        base: The chat model to train, which is also the reference model: a run's name or folder.
        data: The preference sets to train on, separated by commas: names, paths or hf:owner/name;
            empty to generate the pairs with the base model.
        tasks: The tasks of the exam and of the generated pairs: additions, or a generator of
            reasoning-gym with its settings, such as chain_sum?max_terms=3&max_digits=1.
        n_tasks: The number of training tasks to generate pairs from.
        answers: The number of answers to generate for each task.
        max_new_tokens: The maximum length of an answer in tokens.
        exam: The number of held-out tasks to answer before and after the training.
        beta: DPO's beta: a larger value keeps the model closer to the reference model.
        anchor: The weight of the chosen answer's negative log-likelihood beside DPO's loss.
        held_out: The share of the pairs in the validation set.
    """

    recipe: str = "dpo-nano"
    base: str = "sft-careless"
    data: str = ""
    tasks: str = "chain_sum?max_terms=3&max_digits=1"
    n_tasks: int = 2000
    answers: int = 8
    max_new_tokens: int = 16
    exam: int = 200
    beta: float = 0.5
    anchor: float = 0.0
    held_out: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "exam")  # the printed results and the KL divergence need it


def make_trainer(config: DpoConfig) -> tuple[Trainer, dict[str, float]]:
    """Everything a run needs, ready for `train()`; and how the base does in the exam."""
    model, tokenizer, weights = load_base(config.base)
    reference = copy.deepcopy(model)
    if config.data:
        names = config.data.split(",")
        preferences = [pair for name in names for pair in stream_preferences(name.strip())]
    else:
        tasks = tasks_named(config.tasks, config.n_tasks, "train", seed=0)
        preferences = own_preferences(
            reference,
            tokenizer,
            tasks,
            name=config.base,
            size=config.answers,
            max_new_tokens=config.max_new_tokens,
        )
    train, validation = (
        pairs_of(
            side, tokenizer, reference, name=config.data or config.base, longest=config.context
        )
        for side in split(preferences, config.held_out)
    )
    questions = tasks_named(config.tasks, config.exam, "held_out", seed=0)
    exam = Exam(tokenizer, questions, config.max_new_tokens)
    drift = Drift(reference, tokenizer, questions, config.max_new_tokens)
    task = PreferenceTask(
        train=train,
        validation=validation,
        batch_size=config.batch_size,
        beta=config.beta,
        anchor=config.anchor,
        seed=config.seed,
        measures=[exam.measure, drift.measure],
    )
    settings = ("base", "data", "tasks", "n_tasks", "answers", "beta", "anchor")
    identity = {name: getattr(config, name) for name in (*settings, "held_out", "max_new_tokens")}
    identity["base_weights"] = weights
    if config.data:  # the model's own pairs follow from its weights and the settings
        identity["corpus"] = f"{train.fingerprint}-{validation.fingerprint}"
    trainer = language_trainer(model, task, tokenizer, config, identity=identity)
    return trainer, exam.measure(reference)


def train(argv: Sequence[str]) -> None:
    config = open_lab(DpoConfig, argv, __file__)
    trainer, before = make_trainer(config)
    if trainer.is_main:
        task = trainer.task
        assert isinstance(task, PreferenceTask)
        print(f"{len(task.train):,} pairs for training, {len(task.validation):,} for validation.")
    summary = trainer.train()
    if trainer.is_main:
        found = summary.metrics
        print(
            f"Held-out tasks right: {before['val_exact_match']:.1%} before, "
            f"{found['val_exact_match']:.1%} after; KL to {config.base} {found['val_kl']:.3f} nats "
            f"per answer.\n{found['val_ranked']:.1%} of held-out pairs are ranked correctly, after "
            f"{summary.elapsed_s:.0f} s of training.\n"
            f"Talk to it: python labs/chat.py {summary.folder.name}"
        )


if __name__ == "__main__":
    run_lab(train)
