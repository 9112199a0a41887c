"""What the trainer costs per step, beside the same training written out by hand.

    python benchmarks/trainer_overhead.py

The model is so small that a step is over in well under a millisecond: the trainer's own work shows
here as it never will in a real run. Both loops train on the same batches and must end with the same
weights, bit for bit. Processor time is measured, on one thread, so other programs hardly count.
"""

import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.training.callbacks import Callback
from course_utils.training.config import TrainConfig
from course_utils.training.data_order import global_batch, part_of
from course_utils.training.trainer import Trainer

STEPS, BATCH, N, ROUNDS = 300, 64, 8192, 9


class Digits:
    """Random images with random labels: only the time counts."""

    unit = "images"
    batch_size = BATCH

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(N, 784, generator=generator)
        self.labels = torch.randint(10, (N,), generator=generator)

    def batch(self, step: int, part: int, parts: int) -> tuple[Tensor, Tensor]:
        chosen = part_of(global_batch(step, BATCH, N, seed=0), part, parts)
        return self.images[chosen], self.labels[chosen]

    def count(self, batch: tuple[Tensor, Tensor]) -> int:
        return len(batch[1])

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return F.cross_entropy(model(images), labels, reduction="sum")

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"val_loss": 0.0}


class Clock(Callback):
    """Notes the processor time of the first and of the newest step."""

    first, last = 0.0, 0.0

    def on_step(self, trainer: Trainer, step: int) -> None:
        self.last = time.process_time()
        self.first = self.first or self.last


def learner() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)


def by_hand(task: Digits) -> tuple[float, nn.Module]:
    """Seconds per step of a plain loop, reading the loss every tenth step as the trainer does."""
    model, optimizer = learner()
    start = time.process_time()
    for step in range(STEPS):
        batch = task.batch(step, 0, 1)
        loss = task.loss(model, batch)
        (loss * (1 / BATCH)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 9:
            loss.item()
    return (time.process_time() - start) / STEPS, model


def by_trainer(task: Digits, folder: Path) -> tuple[float, nn.Module]:
    """Seconds per step of the trainer, from the end of its first step to that of its last."""
    model, optimizer, clock = *learner(), Clock()
    config = TrainConfig(
        name="overhead", steps=STEPS, batch_size=BATCH, clip=1.0, runs_dir=folder,
        resume="never", progress="off",
    )  # fmt: skip
    Trainer(model, optimizer, lambda step: 1.0, task, config, callbacks=[clock]).train()
    return (clock.last - clock.first) / (STEPS - 1), model


def main() -> None:
    torch.set_num_threads(1)
    task, hand, trainer = Digits(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):  # in turn, so that a busy moment strikes both
            seconds, expected = by_hand(task)
            hand.append(seconds)
            seconds, model = by_trainer(task, Path(folder))
            trainer.append(seconds)
    same = all(map(torch.equal, model.parameters(), expected.parameters()))
    a, b = min(hand), min(trainer)  # the rounds that the rest of the machine disturbed least
    print(f"weights bit for bit the same: {same}")
    print(f"by hand {a * 1e6:7.1f} µs a step   (the best of {ROUNDS} × {STEPS} steps)")
    print(f"trainer {b * 1e6:7.1f} µs a step   {b / a:.2f} times, {(b - a) * 1e6:+.1f} µs")


if __name__ == "__main__":
    main()
