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

import course_utils  # noqa: F401  before torch: it configures how OpenMP's threads wait

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

# These settings identify a run, together with the optimizer's and the trainer's: resuming with
# other values is refused.
IDENTITY = ("dataset", "hold_out", "width", "epochs", "warmup", "label_smoothing", "shift")


@dataclass(frozen=True, kw_only=True)
class MnistConfig:
    """Train a small CNN on MNIST or Fashion-MNIST.

    Attributes:
        recipe: The file labs/recipes/RECIPE.toml, which sets the defaults of all other settings.
        name: The run's folder below runs/; by default the recipe's name.
        resume: Resume from the run's newest checkpoint, if it has one. Without --resume, an older
            run of this name is moved to runs/.previous/.
        dataset: The image set to train on.
        hold_out: Use the last HOLD_OUT training images as the validation set, instead of the test
            set, and do not train on them. Use this to choose settings.
        width: The number of channels of the first layer.
        epochs: The number of passes over the training images.
        batch_size: Images per optimizer step, over all ranks.
        accumulation: Gradient accumulation: micro-batches per rank and step.
        lr: The peak learning rate of AdamW.
        warmup: The share of the steps for the learning-rate warm-up, 0 to 1.
        weight_decay: The weight decay of AdamW.
        beta2: The decay rate of AdamW's running mean of squared gradients.
        label_smoothing: The share of the target probability that is spread over all classes.
        shift: The largest random shift of an image in pixels.
        precision: The number format for training; "auto" is bf16 where the hardware supports it.
        seed: The seed of the initial weights, the order of the images and their shifts.
        evaluations: The number of evaluations, evenly spread over the run.
        checkpoints: The number of checkpoints, evenly spread over the run.
        tracking: "wandb" also logs to Weights & Biases, offline unless WANDB_MODE says otherwise.
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
                raise CourseError(f"--{field} must be above 0; found {getattr(self, field)}.")
        if not 0 <= self.warmup <= 1:
            raise CourseError(f"--warmup must be from 0 to 1; found {self.warmup}.")


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
