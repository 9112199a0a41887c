"""A benchmark in one line, for the table in README.md: ours, what is beside it, how much."""

from collections.abc import Callable
from typing import Any

Line = tuple[str, str, str, str]


def mnist(result: dict[str, Any]) -> Line:
    medians = result["medians"]
    ours, textbook = medians["mnist-fast"], medians["textbook loop"]
    return (
        "MNIST to 99 % of the test set",
        f"{ours['seconds_to_target']:.1f} s",
        f"the textbook's loop: {textbook['seconds_to_target']:.0f} s",
        times(result["ratio"]),
    )


def char_shakespeare(result: dict[str, Any]) -> Line:
    medians = result["medians"]
    ours, theirs = medians["ours, the same time"], medians["nanoGPT's recipe"]
    return (
        "Shakespeare by letters, held-out loss in the same time",
        f"{ours['val_loss']:.2f} in {ours['seconds']:.0f} s",
        f"nanoGPT's recipe: {theirs['val_loss']:.2f} in {theirs['seconds']:.0f} s",
        f"{ours['val_loss'] - theirs['val_loss']:.2f} nats".replace("-", "−"),
    )


def gpt_throughput(result: dict[str, Any]) -> Line:
    rates = result["tokens_per_s"]
    return (
        "training a GPT of 26M, bf16, compiled",
        f"{rates['ours, compiled']:,.0f} tokens/s",
        f"transformers: {rates['transformers']:,.0f}",
        times(result["ratios"]["ours, compiled"]),
    )


def generation(result: dict[str, Any]) -> Line:
    rates = result["tokens_per_s"]["bfloat16, batch 8"]
    ours, theirs = rates["ours, joined"], rates["transformers"]
    return (
        "writing with it, 8 texts at once, bf16",
        f"{ours:,.0f} tokens/s",
        f"transformers' `generate`: {theirs:,.0f}",
        times(ours / theirs),
    )


def lora(result: dict[str, Any]) -> Line:
    ours, theirs = result["rows"]["bfloat16, ours"], result["rows"]["bfloat16, PEFT"]
    return (
        "LoRA on SmolLM2-135M, forward and backward, bf16",
        f"{ours['seconds']:.2f} s in {ours['megabytes']:,.0f} MB",
        f"PEFT: {theirs['seconds']:.2f} s in {theirs['megabytes']:,.0f} MB",
        times(theirs["seconds"] / ours["seconds"]),
    )


def checkpoint(result: dict[str, Any]) -> Line:
    ours, theirs = result["pause_s"], result["torch_save_s"]
    return (
        f"training pauses for a checkpoint of {result['megabytes']:.0f} MB",
        f"{ours:.2f} s",
        f"`torch.save`, flushed: {theirs:.2f} s",
        times(theirs / ours),
    )


def serving(result: dict[str, Any]) -> Line:
    rates = result["rows"]["bfloat16"]
    many, one = rates["16"]["tokens_per_s"], rates["1"]["tokens_per_s"]
    return (
        "serving 16 clients at once, bf16",
        f"{many:,.0f} tokens/s",
        f"one client: {one:,.0f}",
        times(many / one),
    )


def against_nbgrader(result: dict[str, Any]) -> Line:
    ours, theirs = result["honest"]["ours_s"], result["honest"]["stock_s"]
    return (
        "grading a submission of lesson 02, in the sandbox",
        f"{ours:.2f} s",
        f"`nbgrader autograde`: {theirs:.1f} s",
        times(result["ratio"]),
    )


def times(ratio: float) -> str:
    return f"{ratio:.0f} ×" if ratio >= 10 else f"{ratio:.2g} ×"


HEADLINES: dict[str, Callable[[dict[str, Any]], Line]] = {
    "mnist": mnist,
    "char-shakespeare": char_shakespeare,
    "gpt-throughput": gpt_throughput,
    "generation": generation,
    "lora": lora,
    "checkpoint": checkpoint,
    "serving": serving,
    "against-nbgrader": against_nbgrader,
}
