"""Fine-tune a pretrained GPT on conversations: from completing texts to answering questions.

    python labs/sft.py --recipe sft-nano                     # after labs/pretrain.py --recipe nano
    python labs/sft.py --recipe sft-nano --data my_chats.jsonl --name mine
    python labs/chat.py sft-nano

labs/README.md explains recipes, launching and resuming.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from course_utils.data.tasks import additions
from course_utils.generation.exam import Exam
from course_utils.training.lab.language_lab import (
    LanguageConfig,
    language_trainer,
    refuse_long_rows,
    require_at_least,
)
from course_utils.training.lab.language_run import load_base
from course_utils.training.lab.recipes import open_lab, run_lab
from course_utils.training.loop.trainer import Trainer
from course_utils.training.tasks.corpora import chat_corpus
from course_utils.training.tasks.language import ChatTask, bytes_of_tokens


@dataclass(frozen=True, kw_only=True)
class SftConfig(LanguageConfig):
    """Fine-tune a pretrained GPT on conversations.

    Attributes:
        base: The pretrained model: a run's name, a run's folder, or an exported model's folder.
        data: The chat sets to train on, separated by commas: names, paths or hf:owner/name;
            identity*20 repeats a set twenty times.
        max_chats: Read at most this many conversations from each set.
        sums: The number of generated additions to mix in.
        turns: Join up to this many single exchanges into one conversation.
        exam: The number of held-out additions to answer at every evaluation; 0 for none.
        held_out: The share of the conversations in the validation set.
        me: The assistant's name, which fills {{name}} in the identity set.
        author: The name of its author, which fills {{author}} in the identity set.
    """

    recipe: str = "sft-nano"
    base: str = "nano"
    data: str = "identity*20"
    max_chats: int | None = None
    sums: int = 20_000
    turns: int = 3
    exam: int = 200
    held_out: float = 0.05
    me: str = "Nano"
    author: str = "you"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, self, "exam")


def make_trainer(config: SftConfig) -> Trainer:
    """Everything a run needs, ready for `train()`."""
    model, tokenizer, weights = load_base(config.base)
    refuse_long_rows(config, model, config.base)
    corpus = chat_corpus(
        config.data,
        tokenizer,
        context=config.context,
        sums=config.sums,
        turns=config.turns,
        fill={"name": config.me, "author": config.author},
        held_out=config.held_out,
        max_chats=config.max_chats,
    )
    exam = Exam(tokenizer, additions(config.exam, "held_out", seed=0)) if config.exam else None
    if exam:
        exam.require_room(model)
    task = ChatTask(
        train=corpus.train,
        validation=corpus.validation,
        context=config.context,
        batch_size=config.batch_size,
        bytes_of=bytes_of_tokens(tokenizer),
        seed=config.seed,
        evaluation_rows=config.evaluation_rows,
        measures=[exam.measure] if exam else [],
    )
    settings = ("base", "data", "max_chats", "sums", "turns", "held_out", "me", "author")
    identity = {name: getattr(config, name) for name in settings}
    identity |= {"base_weights": weights, "corpus": corpus.fingerprint}
    return language_trainer(model, task, tokenizer, config, identity=identity)


def train(argv: Sequence[str]) -> None:
    config = open_lab(SftConfig, argv, __file__)
    trainer = make_trainer(config)
    summary = trainer.train()
    if trainer.is_main:
        found = summary.metrics
        exam = found.get("val_exact_match")
        right = f"{exam:.1%} of held-out additions are right, " if exam is not None else ""
        print(
            f"{right}{found['val_loss']:.3f} nats per token of an answer, "
            f"after {summary.elapsed_s:.0f} s of training (MFU {found['mfu']:.1%}).\n"
            f"Talk to it: python labs/chat.py {summary.folder.name}"
        )


if __name__ == "__main__":
    run_lab(train)
