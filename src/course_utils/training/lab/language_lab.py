"""What the labs for language models share: their settings, and the trainer made of them."""

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
    """Settings of every lab that trains a language model.

    Attributes:
        recipe: Where the settings below come from: labs/recipes/RECIPE.toml.
        name: The run's folder below runs/. By default the recipe's name.
        resume: Go on from the run's newest checkpoint, if it has one. Otherwise an older run of
            this name is set aside.
        use_mine: Train with your own verified solutions of the lessons in the library's place.
        context: Tokens that the model sees at once.
        steps: Optimizer steps.
        batch_size: Rows of `context` tokens per step, over all processes.
        accumulation: Micro-batches per process and step.
        optimizer: "muon" for the blocks' matrices and AdamW for the rest, or "adamw" for all, as
            it is under ZeRO and FSDP.
        lr: Peak learning rate of AdamW.
        lr_muon: Peak learning rate of Muon.
        momentum: Of Muon.
        weight_decay: Of matrices.
        beta2: Decay rate of AdamW's mean square.
        warmup: Share of the steps in which the learning rate rises.
        floor: Where the learning rate ends, as a share of the peak.
        clip: Largest norm of the gradient; 0 does not clip.
        precision: "auto" is bf16 where the machine computes in it.
        compile: Compile the model first (a minute that pays on GPUs and in long runs).
        checkpoint_activations: Compute what is inside a block again on the way back, instead of
            keeping it: a fraction of the memory for about a third more work.
        seed: Of the weights and of the order of the data.
        evaluations: How often to measure, evenly spread over the run.
        evaluation_rows: Rows to measure on.
        checkpoints: How often to save, evenly spread over the run.
        tracking: "wandb" logs there too, offline unless WANDB_MODE says otherwise.
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
                raise CourseError(f"{field} must be above 0; found {getattr(self, field)}.")
        for field in ("warmup", "floor"):
            if not 0 <= getattr(self, field) <= 1:
                raise CourseError(f"{field} is a share, 0 to 1; found {getattr(self, field)}.")
        require_at_least(1, self, "evaluation_rows")


def require_at_least(least: int, config: LanguageConfig, field: str) -> None:
    """Stop at a number that would be found too small after hours, at the first evaluation.

    Raises:
        CourseError: naming the setting.
    """
    if getattr(config, field) < least:
        raise CourseError(f"{field} must be at least {least}; found {getattr(config, field)}.")


def gpt_config(preset: str, **changes: Any) -> GPTConfig:
    """A preset's shape with some numbers changed; None leaves the preset's.

    Raises:
        CourseError: for an unknown preset, or numbers that contradict each other.
    """
    if preset not in PRESETS:
        raise CourseError(
            f"There is no preset {preset!r}.{did_you_mean(preset, PRESETS)} "
            f"There are {', '.join(PRESETS)}."
        )
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(PRESETS[preset], **given)


def refuse_long_rows(config: LanguageConfig, model: GPT, base: str) -> None:
    """Stop when rows are longer than what the base model can see.

    Raises:
        CourseError: naming both lengths.
    """
    if config.context > model.config.context:
        raise CourseError(
            f"Rows of {config.context} tokens are longer than the context of {base}, "
            f"{model.config.context}: set --context {model.config.context} or less."
        )


def chosen_precision(precision: Precision | Literal["auto"]) -> Precision:
    """What "auto" means on this machine."""
    return native_precision(Processes.start().device) if precision == "auto" else precision


def chosen_optimizer(name: OptimizerName) -> OptimizerName:
    """The optimizer that works with how this run was launched: Muon needs whole matrices."""
    if name == "muon" and (under_deepspeed() or under_fsdp()):
        if Processes.start().is_main:
            engine = "DeepSpeed" if under_deepspeed() else "FSDP"
            print(f"{engine} gives each process slices of matrices; Muon needs whole ones: AdamW.")
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
        identity: What else makes this run this run; going on with other values is refused.
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
        **identity,  # first: where these differ, the rest may differ because of them
        "model": shape_of(model.config),
        "tokenizer": tokenizer.fingerprint,
        "context": config.context,
        "steps": config.steps,  # the schedule depends on it
        "warmup": config.warmup,
        "floor": config.floor,
    }
    files = {TOKENIZER: tokenizer.tokenizer.to_str()}
    return Trainer(
        model, optimizer, schedule, task, settings, recipe=recipe, callbacks=callbacks, files=files
    )
