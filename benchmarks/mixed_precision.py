"""A training step at minimind's 26M shape, with one technique after another: time and memory.

    python benchmarks/mixed_precision.py            and results/mixed-precision-….json
    python benchmarks/mixed_precision.py --quick    a step each of a shorter batch, written nowhere

8 × 512 tokens, AdamW, the same weights and batches: plain in fp32, under bf16 autocast, and then
with accumulation (four parts), with activations computed again, with both, and compiled. All sides
take their steps in turn, so that a busy minute strikes them all; the figures are medians, and the
losses of the first step must agree.

Memory is measured in processes of its own, one for each way: the most that is resident during a
step, less what is resident between steps. That is what the system sees of gradients, activations
and workspace; weights and AdamW's means, which are there all the time, are not in it. (Linux only.)
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from measuring import Record, machine, peak_megabytes, quick_option

from course_utils.models.gpt import GPT, PRESETS
from course_utils.training.loop.cpu_attention import StoredScores
from course_utils.training.loop.recompute import recomputing

CONFIG = PRESETS["minimind-26m"]


@dataclass(frozen=True)
class Way:
    """How a step is taken."""

    bf16: bool = True
    parts: int = 1
    again: bool = False
    compiled: bool = False


PLAIN = "fp32"
WAYS = {
    PLAIN: Way(bf16=False),
    "bf16": Way(),
    "bf16, in 4 parts": Way(parts=4),
    "bf16, recomputing": Way(again=True),
    "bf16, in 4 parts, recomputing": Way(parts=4, again=True),
    "bf16, compiled": Way(compiled=True),
    "bf16, compiled, recomputing": Way(compiled=True, again=True),
}


class Learner:
    """A model that takes steps in its way, and the loop around it."""

    def __init__(self, way: Way, rows: int, seq: int) -> None:
        torch.manual_seed(0)
        self.way, self.shape = way, (rows, seq + 1)
        self.model = GPT(CONFIG).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self._recomputing = recomputing(self.model) if way.again else nullcontext()
        self._recomputing.__enter__()
        if way.compiled:
            self.model.compile()

    def step(self, number: int) -> tuple[float, float]:
        """Seconds and loss of a step."""
        generator = torch.Generator().manual_seed(number)
        stream = torch.randint(CONFIG.vocab, self.shape, generator=generator)
        began, total = time.perf_counter(), 0.0
        for part in stream.chunk(self.way.parts):
            with self._autocast(), StoredScores():
                loss = self.model(part[:, :-1], targets=part[:, 1:]) / stream[:, 1:].numel()
            loss.backward()
            total += loss.item()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - began, total

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.way.bf16)


def seconds(rows: int, seq: int, rounds: int) -> dict[str, Any]:
    """Of the first step, and of every later one, by way; and the losses of the first."""
    learners = {name: Learner(way, rows, seq) for name, way in WAYS.items()}
    first = {name: learner.step(0) for name, learner in learners.items()}
    losses = {name: loss for name, (_, loss) in first.items()}
    apart = max(losses.values()) - min(losses.values())
    assert apart < 0.01, f"these are not the same step: {losses}"
    taken: dict[str, list[float]] = {name: [] for name in learners}
    for number in range(1, rounds + 1):
        for name, learner in learners.items():
            taken[name].append(learner.step(number)[0])
    return {"first": {name: took for name, (took, _) in first.items()}, "later": taken,
            "losses": losses}  # fmt: skip


def step_of(name: str, rows: int, seq: int) -> Callable[[], Any]:
    """A learner's step; weights and AdamW's means are there between steps."""
    return partial(Learner(WAYS[name], rows, seq).step, 0)


def main() -> None:
    quick = quick_option(__doc__)
    rows, seq, rounds = (4, 64, 1) if quick else (8, 512, 12)
    record = Record("mixed-precision", keep=not quick)
    with tempfile.TemporaryDirectory() as empty:  # so that compiling takes what it takes at first
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty
        found = record("seconds per step", partial(seconds, rows, seq, rounds))
        memory = {
            name: record(f"MB, {name}", partial(peak_megabytes, step_of, name, rows, seq))
            for name in WAYS
        }
    medians = {name: statistics.median(later) for name, later in found["later"].items()}
    speed_ups = {name: medians[PLAIN] / median for name, median in medians.items()}
    about = machine()
    print(f"{about['processor']}, {about['threads']} threads, {rows} × {seq} tokens a step")
    print("| | ms a step | times as fast as fp32 | MB at the peak |\n|---|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {1000 * median:,.0f} | {speed_ups[name]:.2f} | {memory[name]:,.0f} |")
    record.finish(
        about,
        tokens=[rows, seq],
        parameters=CONFIG.n_parameters(),
        seconds=medians,
        speed_ups=speed_ups,
        megabytes=memory,
        found=found,
    )


if __name__ == "__main__":
    sys.exit(main())
