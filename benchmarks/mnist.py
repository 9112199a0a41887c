"""How fast a CPU learns MNIST: the lab's recipes beside the loop that every tutorial begins with.

    python benchmarks/mnist.py            three seeds, and results/mnist-<processor>.json
    python benchmarks/mnist.py --quick    one seed, written nowhere

The clock runs while batches are made and weights are updated. It stands still while files are read
and while the model is measured, which both sides do on all 10,000 test images, every 1/20 of a
recipe and every 1/4 of a textbook epoch. "Seconds to 99 %" is what it shows at the first
measurement of 99.0 % or more. A benchmark that was stopped goes on where it was. Run it on a quiet
machine: both sides use all cores.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from measuring import Record, machine, quick_option
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

from course_utils.data.images import torchvision_dataset

LAB = Path(__file__).parents[1] / "labs" / "mnist.py"
TARGET = 0.99
RECIPES = ("mnist-fast", "mnist-accurate")


@dataclass(frozen=True)
class Outcome:
    """A training run, or the medians of several: how it ended, and its seconds to 99 %."""

    accuracy: float
    seconds: float
    seconds_to_target: float | None


def outcome(measured: list[tuple[float, float]]) -> Outcome:
    """From (seconds, accuracy) at every measurement, the last one at the end of the run."""
    reached = (seconds for seconds, accuracy in measured if accuracy >= TARGET)
    seconds, accuracy = measured[-1]
    return Outcome(accuracy, seconds, next(reached, None))


def by_recipe(recipe: str, seed: int) -> Outcome:
    """The lab as its user starts it; the times are those of its metrics.jsonl."""
    with tempfile.TemporaryDirectory() as runs:
        options = ["--recipe", recipe, "--seed", str(seed), "--evaluations", "20"]
        subprocess.run(
            [sys.executable, str(LAB), *options, "--name", "run", "--checkpoints", "1"],
            env=os.environ | {"COURSE_RUNS_DIR": runs},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        lines = (Path(runs) / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return outcome([(r["elapsed_s"], r["val_accuracy"]) for r in rows if "val_accuracy" in r])


class TextbookNet(nn.Module):
    """Two convolutions, max pooling, two linear layers, dropout: PyTorch's own MNIST example."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, images: Float[Tensor, "batch 1 28 28"]) -> Float[Tensor, "batch 10"]:
        x = F.relu(self.conv2(F.relu(self.conv1(images))))
        x = self.dropout1(F.max_pool2d(x, 2)).flatten(1)
        x = self.dropout2(F.relu(self.fc1(x)))
        return F.log_softmax(self.fc2(x), dim=1)


def by_textbook(seed: int, most_epochs: int = 14) -> Outcome:
    """Adadelta, its rate times 0.7 after each epoch, batches of 64; until 99 %, or 14 epochs."""
    torch.manual_seed(seed)
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    loader = DataLoader(torchvision_dataset("mnist", True, transform), batch_size=64, shuffle=True)
    test = list(DataLoader(torchvision_dataset("mnist", False, transform), batch_size=1000))
    model = TextbookNet()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    quarter = len(loader) // 4
    seconds, measured = 0.0, []
    for _ in range(most_epochs):
        started = time.perf_counter()
        for step, (images, labels) in enumerate(loader, start=1):
            optimizer.zero_grad()
            F.nll_loss(model(images), labels).backward()
            optimizer.step()
            if step % quarter == 0:
                seconds += time.perf_counter() - started
                measured.append((seconds, accuracy(model, test)))
                if measured[-1][1] >= TARGET:
                    return outcome(measured)
                started = time.perf_counter()
        seconds += time.perf_counter() - started
        scheduler.step()
    return outcome(measured)


def accuracy(model: nn.Module, test: list[tuple[Tensor, Tensor]]) -> float:
    model.eval()
    with torch.no_grad():
        correct = sum(int((model(x).argmax(1) == y).sum()) for x, y in test)
    model.train()
    return correct / sum(len(y) for _, y in test)


def median(runs: list[Outcome]) -> Outcome:
    """Field by field; "never" is later than every time."""
    to_target = statistics.median(run.seconds_to_target or math.inf for run in runs)
    return Outcome(
        statistics.median(run.accuracy for run in runs),
        statistics.median(run.seconds for run in runs),
        to_target if to_target < math.inf else None,
    )


def as_dict(train: Callable[[int], Outcome], seed: int) -> dict[str, float | None]:
    return asdict(train(seed))


def spoken(number: float | None) -> str:
    return "never" if number is None else f"{number:.1f}"


def main() -> None:
    quick = quick_option(__doc__)
    record = Record("mnist", keep=not quick)
    seeds = [0] if quick else [0, 1, 2]
    ways: dict[str, Callable[[int], Outcome]] = {
        "textbook loop": by_textbook,
        **{recipe: partial(by_recipe, recipe) for recipe in RECIPES},
    }
    outcomes: dict[str, list[Outcome]] = {way: [] for way in ways}
    for seed in seeds:  # all ways in turn, so that a busy hour strikes them all
        for way, train in ways.items():
            run = record(f"{way}, seed {seed}", partial(as_dict, train, seed))
            outcomes[way].append(Outcome(**run))
    medians = {way: median(runs) for way, runs in outcomes.items()}
    slow, fast = (medians[way].seconds_to_target for way in ("textbook loop", RECIPES[0]))
    ratio = slow / fast if slow and fast else None

    about = machine("torchvision", "accelerate", "numpy")
    print(f"{about['processor']}, {about['threads']} threads, medians of {len(seeds)} seed(s)")
    print("| | accuracy % | seconds | seconds to 99 % |\n|---|---|---|---|")
    for way, m in medians.items():
        to_target = spoken(m.seconds_to_target)
        print(f"| {way} | {100 * m.accuracy:.2f} | {spoken(m.seconds)} | {to_target} |")
    print(f"Seconds to 99 %, textbook loop / {RECIPES[0]}: {spoken(ratio)}")
    record.finish(
        about,
        seeds=seeds,
        ratio=ratio,
        medians={way: asdict(m) for way, m in medians.items()},
        runs={way: [asdict(run) for run in runs] for way, runs in outcomes.items()},
    )


if __name__ == "__main__":
    main()
