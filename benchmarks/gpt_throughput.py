"""Tokens per second in training, at minimind's 26M shape, beside transformers' Qwen3.

    python benchmarks/gpt_throughput.py            and results/gpt-throughput-….json
    python benchmarks/gpt_throughput.py --quick    two rounds, written nowhere

The same weights, the same batches of 8 × 512 tokens, the same plain loop under bf16 autocast with
AdamW. Ours differs in the model's code, in the loss that stores no logits, in the attention for
CPUs and in the fused optimizer; once as it is, and once compiled. All sides take their steps in
turn, so that a busy minute strikes them all; the figures are medians over rounds, and the losses of
the first step must agree.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from measuring import Record, machine, quick_option
from torch import Tensor, nn

from course_utils.exchange.hf import to_hf
from course_utils.models.gpt import GPT, PRESETS
from course_utils.training.loop.cpu_attention import StoredScores

CONFIG = PRESETS["minimind-26m"]
BATCH, SEQ = 8, 512
COMPILED = "ours, compiled"


class Learner:
    """A model that takes steps, and the loop around it."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor], **optimizer: Any) -> None:
        self.model, self.loss = model.train(), partial(loss, model)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, **optimizer)

    def step(self, number: int) -> tuple[float, float]:
        """Seconds and loss of a step."""
        generator = torch.Generator().manual_seed(number)
        stream = torch.randint(CONFIG.vocab, (BATCH, SEQ + 1), generator=generator)
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = self.loss(stream[:, :-1], stream[:, 1:])
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - began, loss.item()


def theirs(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    logits = model(tokens).logits.float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def ours(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    with StoredScores():
        return model(tokens, targets=targets) / targets.numel()


def our_model() -> GPT:
    torch.manual_seed(0)
    return GPT(CONFIG)


def measure(rounds: int) -> dict[str, Any]:
    compiled = our_model()
    compiled.compile()
    learners = {
        "transformers": Learner(to_hf(our_model()), theirs),
        "ours": Learner(our_model(), ours, fused=True),
        COMPILED: Learner(compiled, ours, fused=True),
    }
    first = {way: learner.step(0) for way, learner in learners.items()}
    losses = [loss for _, loss in first.values()]
    assert max(losses) - min(losses) < 0.01, f"these are not the same model: {losses}"
    seconds: dict[str, list[float]] = {way: [] for way in learners}
    for number in range(1, rounds + 1):
        for way, learner in learners.items():
            seconds[way].append(learner.step(number)[0])
    return {"first": {way: took for way, (took, _) in first.items()}, "seconds": seconds}


def main() -> None:
    quick = quick_option(__doc__)
    record = Record("gpt-throughput", keep=not quick)
    with tempfile.TemporaryDirectory() as empty:  # so that compiling takes what it takes at first
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty
        found = record("seconds per step", partial(measure, 2 if quick else 12))
    medians = {way: statistics.median(seconds) for way, seconds in found["seconds"].items()}
    rates = {way: BATCH * SEQ / seconds for way, seconds in medians.items()}
    ratios = {way: rates[way] / rates["transformers"] for way in rates}
    compiling = found["first"][COMPILED] - medians[COMPILED]
    about = machine("transformers")
    print(f"{about['processor']}, {about['threads']} threads, {BATCH} × {SEQ} tokens a step")
    print("| | tokens/s | times transformers |\n|---|---|---|")
    for way, rate in rates.items():
        print(f"| {way} | {rate:,.0f} | {ratios[way]:.2f} |")
    print(f"Compiling takes {compiling:.0f} s, once.")
    record.finish(
        about, tokens_per_s=rates, ratios=ratios, compile_s=compiling, seconds=found["seconds"]
    )


if __name__ == "__main__":
    main()
