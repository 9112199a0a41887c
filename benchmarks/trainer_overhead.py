"""What the trainer costs per step, beside the same training written out by hand.

    python benchmarks/trainer_overhead.py

The model is so small that its arithmetic is over in a moment: the trainer's own work shows here as
it never will in a real run. The two trainings take turns step by step, so that whatever else the
machine does strikes both, and they must end with the same weights, bit for bit.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.training.config import TrainConfig
from course_utils.training.loop.callbacks import Callback
from course_utils.training.loop.trainer import Trainer
from course_utils.training.parts.data_order import global_batch, part_of

STEPS, BATCH, N = 3000, 64, 8192


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


def learner() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)


class ByHand(Callback):
    """After each step of the trainer, takes the same step with a model of its own, and times both.

    The plain loop reads the loss every tenth step, as the trainer does.
    """

    def __init__(self, task: Digits) -> None:
        self.task, (self.model, self.optimizer) = task, learner()
        self.trainer_s: list[float] = []
        self.hand_s: list[float] = []
        self._end = 0.0

    def on_step(self, trainer: Trainer, step: int) -> None:
        start = time.perf_counter()
        self.trainer_s.append(start - self._end)
        batch = self.task.batch(step - 1, 0, 1)
        loss = self.task.loss(self.model, batch)
        (loss * (1 / BATCH)).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if step % 10 == 0:
            loss.item()
        self._end = time.perf_counter()
        self.hand_s.append(self._end - start)


def main() -> None:
    torch.set_num_threads(1)
    task = Digits()
    model, optimizer = learner()
    by_hand = ByHand(task)
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            name="overhead", steps=STEPS, batch_size=BATCH, clip=1.0, progress="off",
            runs_dir=Path(folder),
        )  # fmt: skip
        Trainer(model, optimizer, lambda step: 1.0, task, config, callbacks=[by_hand]).train()
    same = all(map(torch.equal, model.parameters(), by_hand.model.parameters()))
    # The first steps of both warm up.
    hand = statistics.median(by_hand.hand_s[50:])
    trainer = statistics.median(by_hand.trainer_s[50:])
    print(f"weights bit for bit the same: {same}")
    print(f"by hand {hand * 1e6:7.1f} µs a step (medians of {STEPS} steps)")
    print(f"trainer {trainer * 1e6:7.1f} µs a step, {trainer / hand:.2f} times", end="")
    print(f", {(trainer - hand) * 1e6:+.1f} µs")


if __name__ == "__main__":
    main()
