"""LoRA on SmolLM2-135M beside PEFT: forward and backward, seconds and peak memory.

    python benchmarks/lora.py            and results/lora-….json
    python benchmarks/lora.py --quick    two rounds, written nowhere

The same weights, rank 8 on the same seven matrices of every block, the same batches of 4 × 128
tokens, every token a target; PEFT on the Llama of transformers, ours on our GPT. In float32, and
under bf16 autocast with the frozen matrices kept in bf16 on both sides. The sides take their turns,
so that a busy minute strikes both; losses and gradients of the first turn must agree. Memory is
what one forward and backward needs at most, the model itself not included.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measuring import Record, machine, peak_megabytes, quick_option
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F

from course_utils.exchange.hf import to_hf
from course_utils.exchange.pretrained import load_pretrained
from course_utils.models import lora
from course_utils.models.lora import LoRAConfig
from course_utils.training.loop.cpu_attention import StoredScores

ROWS, SEQ, RANK, ALPHA = 4, 128, 8, 16
MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Side:
    """A model with an adapter, and how it computes its loss."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor], bf16: bool) -> None:
        self.model, self.loss, self.bf16 = model.train(), loss, bf16

    def pass_through(self, stream: Tensor) -> float:
        self.model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.loss(self.model, stream[:, :-1], stream[:, 1:])
        loss.backward()
        return loss.item()

    def seconds(self, stream: Tensor) -> float:
        began = time.perf_counter()
        self.pass_through(stream)
        return time.perf_counter() - began

    def gradient_norm(self) -> float:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients).item()


def theirs(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    logits = model(tokens).logits.float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def ours(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    with StoredScores():
        return model(tokens, targets=targets) / targets.numel()


def sides(bf16: bool) -> dict[str, Side]:
    """Both, with zero updates: the model as it was, and the same gradients for `up`."""
    model, _ = load_pretrained("smollm2-135m")
    hf = to_hf(model)
    if bf16:  # norms and embeddings as they are, the matrices of the blocks narrow
        for layer in hf.model.layers.modules():
            if isinstance(layer, nn.Linear):
                layer.to(torch.bfloat16)
    described = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=MATRICES)
    lora.inject(model, LoRAConfig(rank=RANK, alpha=ALPHA, targets=("attention.*", "mlp.*")))
    if bf16:
        lora.narrow(model, torch.bfloat16)
    peft = get_peft_model(hf, described)
    copy_down(model, peft)
    return {"PEFT": Side(peft, theirs, bf16), "ours": Side(model, ours, bf16)}


@torch.no_grad()
def copy_down(model: nn.Module, peft: nn.Module) -> None:
    """The same random starting values; both name the layers in the same order."""
    theirs = [p for name, p in peft.named_parameters() if "lora_A" in name]
    for (_, layer), down in zip(lora.adapters(model), theirs, strict=True):
        assert layer.down.shape == down.shape
        down.copy_(layer.down)


def batch(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randint(1000, 40_000, (ROWS, SEQ + 1), generator=generator)


def measure(bf16: bool, rounds: int) -> dict[str, list[float]]:
    both = sides(bf16)
    losses = [side.pass_through(batch(0)) for side in both.values()]
    norms = [side.gradient_norm() for side in both.values()]
    tolerance = 0.02 if bf16 else 1e-4
    for pair in (losses, norms):
        assert abs(pair[0] / pair[1] - 1) < tolerance, f"not the same model: {losses}, {norms}"
    seconds: dict[str, list[float]] = {way: [] for way in both}
    for number in range(1, rounds + 1):
        for way, side in both.items():
            seconds[way].append(side.seconds(batch(number)))
    return seconds


def pass_of(way: str, bf16: bool) -> Callable[[], Any]:
    """A side's forward and backward, for a process of its own."""
    return partial(sides(bf16)[way].pass_through, batch(0))


def main() -> None:
    quick = quick_option(__doc__)
    record = Record("lora", keep=not quick)
    found, memory = {}, {}
    for name, bf16 in (("float32", False), ("bfloat16", True)):
        found[name] = record(name, partial(measure, bf16, 2 if quick else 12))
        for way in found[name]:
            how = partial(peak_megabytes, pass_of, way, bf16)
            memory[f"{name}, {way}"] = record(f"MB, {name}, {way}", how)
    about = machine("transformers", "peft")
    rows = {}
    print("| | seconds | peak MB |\n|---|---|---|")
    for name, sides_of in found.items():
        for way, seconds in sides_of.items():
            case, median = f"{name}, {way}", statistics.median(seconds)
            rows[case] = {"seconds": median, "megabytes": memory[case]}
            print(f"| {case} | {median:.2f} | {memory[case]:,.0f} |")
    record.finish(about, rows=rows, seconds=found)


if __name__ == "__main__":
    main()
