"""Train a small CNN on MNIST or Fashion-MNIST.

    python labs/mnist.py --recipe mnist-accurate
    accelerate launch --config_file labs/accelerate/multi_cpu.yaml labs/mnist.py --lr 0.02
    accelerate launch --config_file labs/accelerate/gpu.yaml labs/mnist.py --name trial --resume

labs/README.md explains recipes, launching and resuming.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import course_utils  # noqa: F401  before torch: it tells OpenMP how its threads shall wait

# isort: split
import torch

from course_utils.base.errors import CourseError
from course_utils.data.images import load_images
from course_utils.models.autocast import native_precision
from course_utils.models.cnn import SmallCNN
from course_utils.training.config import Tracking, TrainConfig
from course_utils.training.engines.processes import Processes
from course_utils.training.lab.recipes import open_lab, run_lab
from course_utils.training.loop.trainer import Trainer
from course_utils.training.parts.data_order import steps_per_epoch
from course_utils.training.parts.schedule import warmup_cosine
from course_utils.training.tasks.images import ImageTask

# With the optimizer's and the trainer's settings, what makes a run this run: going on with other
# values is refused.
IDENTITY = ("dataset", "hold_out", "width", "epochs", "warmup", "label_smoothing", "shift")


@dataclass(frozen=True, kw_only=True)
class MnistConfig:
    """Train a small CNN on MNIST or Fashion-MNIST.

    Attributes:
        recipe: Where the settings below come from: labs/recipes/RECIPE.toml.
        name: The run's folder below runs/. By default the recipe's name.
        resume: Go on from the run's newest checkpoint, if it has one. Otherwise an older run of
            this name is set aside.
        dataset: What to learn.
        hold_out: Measure on the last HOLD_OUT training images, which are then not trained on,
            instead of on the test set. Choose settings with this.
        width: Channels of the first layer.
        epochs: Passes over the training images.
        batch_size: Images per optimizer step, over all processes.
        accumulation: Micro-batches per process and step.
        lr: Peak learning rate of AdamW.
        warmup: Share of the steps in which the learning rate rises.
        weight_decay: Of AdamW.
        beta2: Decay rate of AdamW's mean square.
        label_smoothing: Share of the target spread over all classes.
        shift: Largest random shift of an image in pixels.
        precision: "auto" is bf16 where the machine computes in it.
        seed: Of the weights, the order of the images and their shifts.
        evaluations: How often to measure, evenly spread over the run.
        checkpoints: How often to save, evenly spread over the run.
        tracking: "wandb" logs there too, offline unless WANDB_MODE says otherwise.
    """

    recipe: str = "mnist-fast"
    name: str | None = None
    resume: bool = False
    dataset: Literal["mnist", "fashion_mnist"] = "mnist"
    hold_out: int = 0
    width: int = 32
    epochs: float = 1.0
    batch_size: int = 128
    accumulation: int = 1
    lr: float = 0.01
    warmup: float = 0.15
    weight_decay: float = 0.01
    beta2: float = 0.95
    label_smoothing: float = 0.1
    shift: int = 1
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    seed: int = 0
    evaluations: int = 4
    checkpoints: int = 4
    tracking: Tracking = "none"

    def __post_init__(self) -> None:
        for field in ("width", "epochs", "lr", "evaluations", "checkpoints"):
            if getattr(self, field) <= 0:
                raise CourseError(f"{field} must be above 0; found {getattr(self, field)}.")
        if not 0 <= self.warmup <= 1:
            raise CourseError(f"warmup is a share of the run, 0 to 1; found {self.warmup}.")


def make_trainer(config: MnistConfig) -> Trainer:
    """Everything a run needs, ready for `train()`."""
    task = ImageTask.of(
        load_images(config.dataset),
        hold_out=config.hold_out,
        batch_size=config.batch_size,
        seed=config.seed,
        shift=config.shift,
        label_smoothing=config.label_smoothing,
    )
    torch.manual_seed(config.seed)
    model = SmallCNN(width=config.width)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.lr,
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )
    steps = round(config.epochs * steps_per_epoch(config.batch_size, len(task.images)))
    schedule = partial(warmup_cosine, warmup=round(config.warmup * steps), total=steps)
    precision = config.precision
    if precision == "auto":
        precision = native_precision(Processes.start().device)
    train_config = TrainConfig(
        name=config.name or config.recipe,
        steps=steps,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        precision=precision,
        eval_every=math.ceil(steps / config.evaluations),
        save_every=math.ceil(steps / config.checkpoints),
        seed=config.seed,
        tracking=config.tracking,
        resume="auto" if config.resume else "never",
    )
    identity = {field: getattr(config, field) for field in IDENTITY}
    return Trainer(model, optimizer, schedule, task, train_config, recipe=identity)


def train(argv: Sequence[str]) -> None:
    config = open_lab(MnistConfig, argv, __file__)
    trainer = make_trainer(config)
    summary = trainer.train()
    if trainer.is_main:
        print(
            f"{summary.metrics['val_accuracy']:.2%} of the held-out images are right, "
            f"after {summary.elapsed_s:.1f} s of training. See {summary.folder}."
        )


if __name__ == "__main__":
    run_lab(train)
