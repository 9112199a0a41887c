"""What the project meant to reach, beside what was measured; for docs/measured.md."""

from collections.abc import Callable, Iterator
from typing import Any

Target = tuple[str, str, bool]  # what was to be reached, what was, whether that is enough


def mnist(result: dict[str, Any]) -> Iterator[Target]:
    fast, accurate = (result["medians"][f"mnist-{name}"] for name in ("fast", "accurate"))
    yield (
        "MNIST: 99.4 % within 60 s of training",
        f"{accurate['accuracy']:.2%} in {accurate['seconds']:.0f} s",
        accurate["accuracy"] >= 0.994 and accurate["seconds"] <= 60,
    )
    to_target = fast["seconds_to_target"]
    yield "99 % within 10 s", f"{to_target:.1f} s", to_target <= 10
    ratio = result["ratio"]
    yield "99 % at least 8 times as fast as the textbook", f"{ratio:.1f} ×", ratio >= 8


def char_shakespeare(result: dict[str, Any]) -> Iterator[Target]:
    recipe, short, long = result["medians"].values()
    yield (
        "Shakespeare: nanoGPT's loss in a quarter of its time",
        f"{short['val_loss']:.3f} against {recipe['val_loss']:.3f} in "
        f"{short['seconds'] / recipe['seconds']:.0%} of it",
        short["val_loss"] <= recipe["val_loss"] and short["seconds"] <= recipe["seconds"] / 4,
    )
    lower = recipe["val_loss"] - long["val_loss"]
    yield (
        "in the same time, 0.25 nats lower",
        f"{lower:.2f} lower in {long['seconds'] / recipe['seconds']:.0%} of it",
        lower >= 0.25 and long["seconds"] <= recipe["seconds"],
    )


def gpt_throughput(result: dict[str, Any]) -> Iterator[Target]:
    plain, compiled = result["ratios"]["ours"], result["ratios"]["ours, compiled"]
    yield (
        "training a GPT of 26M in bf16: 1.5 times transformers' tokens/s",
        f"compiled {compiled:.2f} ×, not compiled {plain:.2f} ×",
        compiled >= 1.5,
    )


def generation(result: dict[str, Any]) -> Iterator[Target]:
    speed_up = result["cache_speed_up"]
    yield "writing: 5 times as fast with the cache", f"{speed_up:.1f} ×", speed_up >= 5
    for case, rates in result["tokens_per_s"].items():
        ratio = rates["ours, joined"] / rates["transformers"]
        yield (
            f"writing: 1.5 times transformers' `generate`, {case}",
            f"{ratio:.2f} ×",
            ratio >= 1.5,
        )


def mixed_precision(result: dict[str, Any]) -> Iterator[Target]:
    ratio = result["speed_ups"]["bf16"]
    yield "a training step twice as fast in bf16 as in fp32", f"{ratio:.2f} ×", ratio >= 2


def lora(result: dict[str, Any]) -> Iterator[Target]:
    for precision in ("float32", "bfloat16"):
        ours, theirs = (result["rows"][f"{precision}, {whose}"] for whose in ("ours", "PEFT"))
        time, memory = (ours[what] / theirs[what] for what in ("seconds", "megabytes"))
        yield (
            f"LoRA: no more time and memory than PEFT, {precision}",
            f"{time:.0%} and {memory:.0%} of it",
            time <= 1 and memory <= 1,
        )


def moe(result: dict[str, Any]) -> Iterator[Target]:
    least = min(result["ratios"].values())
    yield (
        "four experts: 0.7 times the tokens/s of a dense model with the same active parameters",
        f"{least:.2f} × in the slowest case",
        least >= 0.7,
    )


def zero(result: dict[str, Any]) -> Iterator[Target]:
    errors = []
    for row in result["rows"].values():
        counted = sum(row["counted"][part] for part in row["predicted"])
        errors.append(abs(counted / sum(row["predicted"].values()) - 1))
    yield (
        "what a rank keeps, within 10 % of lesson 15's formula",
        f"within {max(errors):.1%}",
        max(errors) <= 0.1,
    )


def checkpoint(result: dict[str, Any]) -> Iterator[Target]:
    pause, going_on = result["longest_pause_s"], result["going_on_s"]
    yield "a checkpoint of 26M: a pause under 0.5 s", f"{pause:.2f} s at the most", pause < 0.5
    yield "going on from it: first step within 10 s", f"{going_on:.1f} s", going_on < 10


def serving(result: dict[str, Any]) -> Iterator[Target]:
    for precision, rows in result["rows"].items():
        ratio = rows["16"]["tokens_per_s"] / rows["1"]["tokens_per_s"]
        yield f"16 clients: 3 times the tokens/s of one, {precision}", f"{ratio:.1f} ×", ratio >= 3


def soak(result: dict[str, Any]) -> Iterator[Target]:
    failed, minutes = result["failed"], result["minutes"]
    yield (
        "no failed request in ten minutes",
        f"{failed} of {result['requests']:,} in {minutes:.0f}",
        failed == 0 and minutes >= 10,
    )


def against_nbgrader(result: dict[str, Any]) -> Iterator[Target]:
    ratio = result["ratio"]
    yield "grading 100 times as fast as `nbgrader autograde`", f"{ratio:.0f} ×", ratio >= 100


def simulated_class(result: dict[str, Any]) -> Iterator[Target]:
    minutes, megabytes = result["seconds"] / 60, result["megabytes"]
    yield (
        f"{result['submissions']:,} submissions of all lessons in 10 minutes",
        f"{minutes:.1f} minutes",
        minutes < 10,
    )
    yield "in less than 2 GB", f"{megabytes / 1000:.2f} GB", megabytes < 2000


def grading(result: dict[str, Any]) -> Iterator[Target]:
    beyond = result["beyond_ms"]
    yield "grading: 30 ms a submission beyond its checks", f"{beyond:.0f} ms", beyond < 30


TARGETS: dict[str, Callable[[dict[str, Any]], Iterator[Target]]] = {
    "mnist": mnist,
    "char-shakespeare": char_shakespeare,
    "gpt-throughput": gpt_throughput,
    "generation": generation,
    "mixed-precision": mixed_precision,
    "lora": lora,
    "moe": moe,
    "zero": zero,
    "checkpoint": checkpoint,
    "serving": serving,
    "soak": soak,
    "against-nbgrader": against_nbgrader,
    "simulated-class": simulated_class,
    "grading": grading,
}
