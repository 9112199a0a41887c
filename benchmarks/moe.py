"""Tokens per second in training: four experts, one for each token, beside the dense model.

    python benchmarks/moe.py            and results/moe-….json
    python benchmarks/moe.py --quick    three rounds, written nowhere

Both compute each token with the same number of weights (but for the router's), so what differs is
the price of routing: sorting tokens, smaller products, and an optimizer with more to update. Beside
them is transformers' Qwen3-MoE with the same weights. All take their steps in turn, in float32 and
in bf16 autocast, with fused AdamW; the figures are medians over rounds.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from measuring import Record, machine, quick_option
from torch import Tensor, nn

from course_utils.exchange.hf import to_hf
from course_utils.models.gpt import GPT, PRESETS
from course_utils.training.loop.cpu_attention import StoredScores

SHAPES = {"nano": (16, 256), "minimind-26m": (8, 512)}  # rows and tokens of a step
EXPERTS = {"n_experts": 4, "top_k": 1}
DENSE, MOE, THEIRS = "dense", "4 experts", "4 experts, transformers"


class Learner:
    """A model that takes steps, and the loop around it."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor], bf16: bool) -> None:
        self.model, self.loss, self.bf16 = model.train(), partial(loss, model), bf16
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(self, stream: Tensor) -> float:
        """Seconds of a step."""
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.loss(stream[:, :-1], stream[:, 1:])
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss.item()
        return time.perf_counter() - began


def ours(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    with StoredScores():
        return model(tokens, targets=targets) / targets.numel()


def theirs(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    found = model(tokens, output_router_logits=True)
    loss = F.cross_entropy(found.logits.float().flatten(0, 1), targets.flatten())
    return loss + 0.01 * found.aux_loss


def measure(preset: str, bf16: bool, rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, by model; the first round does not count."""
    torch.manual_seed(0)
    dense, experts = PRESETS[preset], replace(PRESETS[preset], **EXPERTS)
    mixture = GPT(experts)
    learners = {
        DENSE: Learner(GPT(dense), ours, bf16),
        MOE: Learner(mixture, ours, bf16),
        THEIRS: Learner(to_hf(mixture), theirs, bf16),
    }
    rows, seq = SHAPES[preset]
    seconds: dict[str, list[float]] = {way: [] for way in learners}
    for number in range(rounds + 1):
        generator = torch.Generator().manual_seed(number)
        stream = torch.randint(dense.vocab, (rows, seq + 1), generator=generator)
        for way, learner in learners.items():
            took = learner.step(stream)
            if number:
                seconds[way].append(took)
    return seconds


def main() -> None:
    quick = quick_option(__doc__)
    record = Record("moe", keep=not quick)
    rates: dict[str, dict[str, Any]] = {}
    for preset, (rows, seq) in SHAPES.items():
        for precision in ("fp32", "bf16"):
            rounds = (3 if quick else 12) * (4 if preset == "nano" else 1)
            how = partial(measure, preset, precision == "bf16", rounds)
            seconds = record(f"{preset}, {precision}", how)
            rates[f"{preset}, {precision}"] = {
                way: rows * seq / statistics.median(took) for way, took in seconds.items()
            }
    about = machine("transformers")
    sizes = {}
    for preset in SHAPES:
        shape = replace(PRESETS[preset], **EXPERTS)
        sizes[preset] = {"parameters": shape.n_parameters(), "active": shape.n_active()}
        print(f"{preset}: {shape.n_parameters():,} parameters, {shape.n_active():,} active")
    print(f"{about['processor']}, {about['threads']} threads")
    print(f"| | {DENSE} | {MOE} | times dense | {THEIRS} |\n|---|---|---|---|---|")
    for case, found in rates.items():
        ratio = found[MOE] / found[DENSE]
        print(f"| {case} | {found[DENSE]:,.0f} | {found[MOE]:,.0f} | {ratio:.2f} "
              f"| {found[THEIRS]:,.0f} |")  # fmt: skip
    ratios = {case: found[MOE] / found[DENSE] for case, found in rates.items()}
    record.finish(about, tokens_per_s=rates, ratios=ratios, sizes=sizes)


if __name__ == "__main__":
    main()
