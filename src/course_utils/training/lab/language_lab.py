"""The settings that all language-model labs share, and the trainer built from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from course_utils.base.errors import CourseError, did_you_mean
from course_utils.models.autocast import native_precision
from course_utils.models.gpt import GPT, PRESETS, GPTConfig
from course_utils.tokenizer.fast import FastBPE
from course_utils.training.config import Precision, Tracking, TrainConfig
from course_utils.training.engines.processes import Processes, under_deepspeed, under_fsdp
from course_utils.training.lab.language_run import TOKENIZER, shape_of
from course_utils.training.loop.callbacks import Callback
from course_utils.training.loop.task import Task
from course_utils.training.loop.trainer import Trainer
from course_utils.training.parts.muon import OptimizerName, make_optimizer
from course_utils.training.parts.schedule import warmup_cosine


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """The settings of every lab that trains a language model.

    Attributes:
        recipe: The file labs/recipes/RECIPE.toml, which sets the defaults of all other settings.
        name: The run's folder below runs/; by default the recipe's name.
        resume: Resume from the run's newest checkpoint, if it has one. Without --resume, an older
            run of this name is moved to runs/.previous/.
        use_mine: Train with your own verified solutions from the lessons instead of the library's
            functions.
        context: The context length in tokens.
        steps: The number of optimizer steps.
        batch_size: Rows of `context` tokens per optimizer step, over all ranks.
        accumulation: Gradient accumulation: micro-batches per rank and step.
        optimizer: "muon" updates the blocks' matrices with Muon and the rest with AdamW; "adamw"
            updates everything with AdamW. Under ZeRO and FSDP it is always AdamW.
        lr: The peak learning rate of AdamW.
        lr_muon: The peak learning rate of Muon.
        momentum: The momentum of Muon.
        weight_decay: The weight decay of matrices; vectors have none.
        beta2: The decay rate of AdamW's running mean of squared gradients.
        warmup: The share of the steps for the learning-rate warm-up, 0 to 1.
        floor: The final learning rate, as a share of the peak.
        clip: The maximum gradient norm; 0 does not clip.
        precision: The number format for training; "auto" is bf16 where the hardware supports it.
        compile: Compile the model with torch.compile. It takes a minute at the start, which pays
            off on GPUs and in long runs.
        checkpoint_activations: Recompute the activations inside each block in the backward pass
            instead of storing them: a fraction of the activation memory for about a third more
            computation.
        seed: The seed of the initial weights and of the order of the data.
        evaluations: The number of evaluations, evenly spread over the run.
        evaluation_rows: The number of validation rows in each evaluation.
        checkpoints: The number of checkpoints, evenly spread over the run.
        tracking: "wandb" also logs to Weights & Biases, offline unless WANDB_MODE says otherwise.
    """

    recipe: str
    name: str | None = None
    resume: bool = False
    use_mine: bool = False
    context: int = 256
    steps: int = 1000
    batch_size: int = 16
    accumulation: int = 1
    optimizer: OptimizerName = "muon"
    lr: float = 3e-3
    lr_muon: float = 0.02
    momentum: float = 0.95
    weight_decay: float = 0.1
    beta2: float = 0.95
    warmup: float = 0.05
    floor: float = 0.0
    clip: float = 1.0
    precision: Literal["auto", "no", "bf16", "fp16", "fp8"] = "auto"
    compile: bool = False
    checkpoint_activations: bool = False
    seed: int = 0
    evaluations: int = 10
    evaluation_rows: int = 64
    checkpoints: int = 4
    tracking: Tracking = "none"

    def __post_init__(self) -> None:
        for field in ("context", "steps", "lr", "lr_muon", "evaluations", "checkpoints"):
            if getattr(self, field) <= 0:
                raise CourseError(
                    f"{_option(field)} must be above 0; found {getattr(self, field)}."
                )
        for field in ("warmup", "floor"):
            if not 0 <= getattr(self, field) <= 1:
                raise CourseError(
                    f"{_option(field)} must be from 0 to 1; found {getattr(self, field)}."
                )
        require_at_least(1, self, "evaluation_rows")


def require_at_least(least: int, config: LanguageConfig, field: str) -> None:
    """Refuse a number that is too small now, not hours later at the first evaluation.

    Raises:
        CourseError: naming the setting.
    """
    if getattr(config, field) < least:
        raise CourseError(
            f"{_option(field)} must be at least {least}; found {getattr(config, field)}."
        )


def _option(field: str) -> str:
    """A setting as the user of a lab writes it: `--evaluation-rows`."""
    return f"--{field.replace('_', '-')}"


def gpt_config(preset: str, **changes: Any) -> GPTConfig:
    """A preset's shape with some fields overridden; None keeps the preset's value.

    Raises:
        CourseError: for an unknown preset, or numbers that contradict each other.
    """
    if preset not in PRESETS:
        raise CourseError(
            f"There is no preset {preset!r}.{did_you_mean(preset, PRESETS)} "
            f"Choose one of {', '.join(PRESETS)}."
        )
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(PRESETS[preset], **given)


def refuse_long_rows(config: LanguageConfig, model: GPT, base: str) -> None:
    """Refuse rows that are longer than the base model's context length.

    Raises:
        CourseError: naming both lengths.
    """
    if config.context > model.config.context:
        raise CourseError(
            f"Rows of {config.context} tokens are longer than the context of {base}, "
            f"{model.config.context}: set --context {model.config.context} or less."
        )


def chosen_precision(precision: Precision | Literal["auto"]) -> Precision:
    """The precision that "auto" selects on this machine."""
    return native_precision(Processes.start().device) if precision == "auto" else precision


def chosen_optimizer(name: OptimizerName) -> OptimizerName:
    """AdamW instead of Muon under a sharding engine, because Muon needs whole matrices."""
    if name == "muon" and (under_deepspeed() or under_fsdp()):
        if Processes.start().is_main:
            engine = "DeepSpeed" if under_deepspeed() else "FSDP"
            print(f"Using AdamW: Muon needs whole matrices, and {engine} shards them.")
        return "adamw"
    return name


def language_trainer(
    model: GPT,
    task: Task,
    tokenizer: FastBPE,
    config: LanguageConfig,
    *,
    identity: Mapping[str, Any],
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """The trainer of a language model's run.

    Args:
        identity: Further settings that identify the run; resuming with other values is refused.
    """
    precision = chosen_precision(config.precision)
    optimizer = make_optimizer(
        model,
        chosen_optimizer(config.optimizer),
        lr=config.lr,
        lr_muon=config.lr_muon,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        beta2=config.beta2,
    )
    schedule = partial(
        warmup_cosine,
        warmup=round(config.warmup * config.steps),
        total=config.steps,
        floor=config.floor,
    )
    settings = TrainConfig(
        name=config.name or config.recipe,
        steps=config.steps,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        precision=precision,
        clip=config.clip or None,
        eval_every=math.ceil(config.steps / config.evaluations),
        save_every=math.ceil(config.steps / config.checkpoints),
        seed=config.seed,
        compile=config.compile,
        checkpoint_activations=config.checkpoint_activations,
        tracking=config.tracking,
        resume="auto" if config.resume else "never",
    )
    recipe = {
        **identity,  # compared first: a change here can change the rest
        "model": shape_of(model.config),
        "tokenizer": tokenizer.fingerprint,
        "context": config.context,
        "steps": config.steps,  # the learning-rate schedule depends on it
        "warmup": config.warmup,
        "floor": config.floor,
    }
    files = {TOKENIZER: tokenizer.tokenizer.to_str()}
    return Trainer(
        model, optimizer, schedule, task, settings, recipe=recipe, callbacks=callbacks, files=files
    )
