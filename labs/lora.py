"""Fine-tune a pretrained model with LoRA, which trains a thousandth of its parameters.

    python labs/lora.py                                # SmolLM2-135M: a name, and reminders as JSON
    python labs/lora.py --quantize nf4                 # with a frozen base in 4 bits: QLoRA
    python labs/lora.py --recipe lora-nano             # your own tiny GPT, after labs/sft.py
    python labs/lora.py --base hf:Qwen/Qwen3-0.6B      # any Qwen3, Qwen2 or Llama of the Hub
    python labs/chat.py lora-smollm2
    course export lora-smollm2 --to peft my-adapter    # for PEFT; --to hf merges it into the model

labs/README.md explains recipes, launching and resuming.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

from course_utils.base.errors import CourseError, did_you_mean
from course_utils.data.introductions import introductions
from course_utils.data.tasks import TASKS
from course_utils.generation.exam import Exam
from course_utils.generation.fused import FusedGPT
from course_utils.models import lora
from course_utils.models.lora import LoRAConfig
from course_utils.models.quant import quantize_linears
from course_utils.training.engines.precision import COMPUTE_DTYPE
from course_utils.training.lab.before_after import BeforeAfter, comparison
from course_utils.training.lab.language_lab import (
    LanguageConfig,
    chosen_precision,
    language_trainer,
    refuse_long_rows,
    require_at_least,
)
from course_utils.training.lab.language_run import full_name, load_base
from course_utils.training.lab.recipes import open_lab, run_lab
from course_utils.training.loop.trainer import Trainer
from course_utils.training.storage.rng import seed_everything
from course_utils.training.tasks.corpora import chat_corpus
from course_utils.training.tasks.language import ChatTask, Measure
from course_utils.training.tasks.recall import Recall


@dataclass(frozen=True, kw_only=True)
class LoraConfig(LanguageConfig):
    """Fine-tune a pretrained model with LoRA.

    Attributes:
        base: The base model: smollm2-135m, hf:owner/name, a run's name, or a folder.
        quantize: Quantize the frozen base to this format, such as nf4 or int8 (QLoRA).
        rank: The rank of the low-rank matrices A and B.
        alpha: LoRA's alpha; the update is scaled by alpha / rank.
        dropout: The dropout rate on the adapter's inputs during training.
        targets: The layers that get an adapter, by the ends of their names, separated by commas; *
            matches any text.
        rslora: Scale by alpha / √rank instead (rank-stabilized LoRA).
        task: The task to train on: reminders or additions.
        examples: The number of training examples of the task.
        data: Chat sets to train on in addition, separated by commas; identity*5 repeats a set five
            times.
        turns: Join up to this many single exchanges into one conversation.
        exam: The number of held-out tasks to answer at every evaluation; 0 for none.
        general: The text set that measures forgetting; empty for none.
        held_out: The share of the conversations in the validation set.
        me: The assistant's name, which fills {{name}} in the identity set.
        author: The name of its author, which fills {{author}} in the identity set.
    """

    recipe: str = "lora-smollm2"
    base: str = "smollm2-135m"
    quantize: str | None = None
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: str = "attention.*,mlp.*"
    rslora: bool = False
    task: str = "reminders"
    examples: int = 4000
    data: str = "identity*5"
    turns: int = 1
    exam: int = 100
    general: str = "wiki"
    held_out: float = 0.2
    me: str = "Nano"
    author: str = "you"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, self, "exam")


def make_trainer(config: LoraConfig) -> Trainer:
    """Everything a run needs, ready for `train()`."""
    if config.task not in TASKS:
        raise CourseError(f"There is no task {config.task!r}.{did_you_mean(config.task, TASKS)}")
    settings = LoRAConfig(
        rank=config.rank,
        alpha=config.alpha,
        dropout=config.dropout,
        targets=tuple(config.targets.split(",")),
        rslora=config.rslora,
    )
    model, tokenizer, weights = load_base(config.base)
    refuse_long_rows(config, model, config.base)
    if config.quantize:
        quantize_linears(model, config.quantize)
    seed_everything(config.seed)
    lora.inject(model, settings)
    dtype = COMPUTE_DTYPE[chosen_precision(config.precision)]
    lora.narrow(model, dtype)
    fill = {"name": config.me, "author": config.author}
    corpus = chat_corpus(
        config.data,
        tokenizer,
        context=config.context,
        tasks=TASKS[config.task](config.examples, "train", seed=0),
        turns=config.turns,
        fill=fill,
        held_out=config.held_out,
    )
    write = partial(FusedGPT, dtype=dtype)
    exams: list[Exam] = []
    if config.exam:
        held_out = TASKS[config.task](config.exam, "held_out", seed=1)
        exams.append(Exam(tokenizer, held_out, 40, writer=write))
    # A small validation set may contain no question whose answer has the name in it.
    if "identity" in config.data and (who := introductions(fill, config.held_out)):
        exams.append(Exam(tokenizer, who, 40, "val_says_its_name", write))
    for exam in exams:
        exam.require_room(model)
    measures: list[Measure] = [exam.measure for exam in exams]
    if config.general:
        measures.append(Recall(config.general, tokenizer).measure)
    task = ChatTask(
        train=corpus.train,
        validation=corpus.validation,
        context=config.context,
        batch_size=config.batch_size,
        seed=config.seed,
        evaluation_rows=config.evaluation_rows,
        measures=measures,
    )
    names = ("quantize", "task", "examples", "data", "turns", "held_out", "me", "author")
    identity = {name: value for name in names if (value := getattr(config, name)) is not None}
    identity |= {"base": full_name(config.base), "lora": asdict(settings)}
    identity |= {"base_weights": weights, "corpus": corpus.fingerprint}
    return language_trainer(
        model, task, tokenizer, config, identity=identity, callbacks=[BeforeAfter()]
    )


def train(argv: Sequence[str]) -> None:
    config = open_lab(LoraConfig, argv, __file__)
    trainer = make_trainer(config)
    trained, total = lora.trainable_share(trainer.model)
    if trainer.is_main:
        print(f"{trained:,} of {total:,} parameters are trained ({trained / total:.2%}).")
    summary = trainer.train()
    if trainer.is_main:
        print(comparison(summary.folder))
        print(
            f"After {summary.elapsed_s:.0f} s of training (MFU {summary.metrics['mfu']:.1%}). "
            f"Talk to it: python labs/chat.py {summary.folder.name}"
        )


if __name__ == "__main__":
    run_lab(train)
