"""A table and a sentence or two of each benchmark's result, for docs/measured.md."""

from collections.abc import Callable
from typing import Any

WAYS = {
    "textbook loop": "textbook loop: `DataLoader`, transforms, two convolutions, Adadelta",
    "mnist-fast": "`labs/mnist.py --recipe mnist-fast`",
    "mnist-accurate": "`labs/mnist.py --recipe mnist-accurate`",
}


def where(about: dict[str, Any]) -> str:
    cores = f"{about['cores']} cores of an {about['processor']}"
    return f"{cores} ({', '.join(about['features'])}; torch {about['torch']})"


def head(*columns: str) -> list[str]:
    """The first lines of a table whose first column has no name, and the others numbers."""
    return [f"| | {' | '.join(columns)} |", "|---" + "|--:" * len(columns) + "|"]


def mnist(result: dict[str, Any]) -> list[str]:
    lines = [
        f"MNIST on {where(result['machine'])}, medians of {len(result['seeds'])} seeds, "
        "all in one run:",
        "",
        *head("test accuracy", "seconds of training", "seconds to 99 %"),
    ]
    for way, median in result["medians"].items():
        to_target = median["seconds_to_target"]
        lines.append(
            f"| {WAYS[way]} | {median['accuracy']:.2%} | {median['seconds']:.1f} "
            f"| {'not reached' if to_target is None else f'{to_target:.1f}'} |"
        )
    ratio = result["ratio"]
    if ratio:
        lines += ["", f"To 99 % the fast recipe is {ratio:.1f} times as quick as the textbook."]
    return lines


def char_shakespeare(result: dict[str, Any]) -> list[str]:
    lines = [
        f"Shakespeare letter by letter (4 layers, 128 wide, 64 characters of context) on "
        f"{where(result['machine'])}, medians of {len(result['seeds'])} seeds, all in one run:",
        "",
        *head("steps", "seconds of training", "held-out loss (nats)"),
    ]
    for way, median in result["medians"].items():
        lines.append(
            f"| {way} | {median['steps']:,.0f} | {median['seconds']:.1f} "
            f"| {median['val_loss']:.3f} |"
        )
    return lines


def gpt_throughput(result: dict[str, Any]) -> list[str]:
    about = result["machine"]
    lines = [
        f"Training the 26M model (8 × 512 tokens, bf16) on {where(about)}, beside Qwen3 of "
        f"transformers {about['transformers']} with the same weights in a plain loop:",
        "",
        *head("tokens/s", "times transformers"),
    ]
    for way, rate in result["tokens_per_s"].items():
        lines.append(f"| {way} | {rate:,.0f} | {result['ratios'][way]:.2f} |")
    return [*lines, "", f"Compiling takes {result['compile_s']:.0f} s, once."]


def generation(result: dict[str, Any]) -> list[str]:
    about = result["machine"]
    cases = result["tokens_per_s"]
    ways = list(dict.fromkeys(way for rates in cases.values() for way in rates))
    lines = [
        f"Writing with the 26M model (greedy, 256 tokens) on {where(about)}, tokens/s beside "
        f"`generate` of transformers {about['transformers']} with the same weights:",
        "",
        *head(*cases),
    ]
    for way in ways:
        cells = []
        for rates in cases.values():
            rate = rates.get(way)
            beside = (
                ""
                if way == "transformers" or rate is None
                else (f" ({rate / rates['transformers']:.2f} ×)")
            )
            cells.append("" if rate is None else f"{rate:,.0f}{beside}")
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    speed_up = result["cache_speed_up"]
    return [*lines, "", f"With its cache it is {speed_up:.1f} times as fast as without."]


def mixed_precision(result: dict[str, Any]) -> list[str]:
    rows, seq = result["tokens"]
    lines = [
        f"A training step of the 26M model ({rows} × {seq} tokens) on {where(result['machine'])}. "
        "Memory is the most that a step has resident on top of weights and optimizer, each way in "
        "a process of its own:",
        "",
        *head("ms a step", "times as fast as fp32", "peak memory (MB)", "of fp32's"),
    ]
    most = result["megabytes"]["fp32"]
    for way, seconds in result["seconds"].items():
        megabytes = result["megabytes"][way]
        lines.append(
            f"| {way} | {1000 * seconds:,.0f} | {result['speed_ups'][way]:.2f} "
            f"| {megabytes:,.0f} | {megabytes / most:.0%} |"
        )
    return lines


def moe(result: dict[str, Any]) -> list[str]:
    about = result["machine"]
    lines = [
        f"Training with four experts, one for each token, on {where(about)}, tokens/s beside a "
        "dense model with the same active parameters and Qwen3-MoE of transformers "
        f"{about['transformers']} with the same weights:",
        "",
        *head("dense", "4 experts", "times dense", "transformers'"),
    ]
    for case, rates in result["tokens_per_s"].items():
        dense, ours, theirs = rates.values()
        lines.append(
            f"| {case} | {dense:,.0f} | {ours:,.0f} | {result['ratios'][case]:.2f} "
            f"| {theirs:,.0f} |"
        )
    return lines


def lora(result: dict[str, Any]) -> list[str]:
    about = result["machine"]
    lines = [
        f"LoRA of rank 8 on all matrices of SmolLM2-135M's blocks, forward and backward of 4 × 128 "
        f"tokens, on {where(about)}, beside PEFT {about['peft']}:",
        "",
        *head("seconds", "MB at the peak"),
    ]
    for case, row in result["rows"].items():
        lines.append(f"| {case} | {row['seconds']:.2f} | {row['megabytes']:,.0f} |")
    return lines


def zero(result: dict[str, Any]) -> list[str]:
    about = result["machine"]
    lines = [
        f"Training minimind's 26M shape (bf16, 8 × 256 tokens a step) on {where(about)}: one "
        f"process with two threads beside two processes over gloo, and DeepSpeed "
        f"{about['deepspeed']}. Kept are parameters, gradients and optimizer states of a rank, "
        "counted, and beside them what lesson 15 predicts:",
        "",
        *head("tokens/s", "kept per rank (MB)", "predicted (MB)", "peak resident memory (MB)"),
    ]
    for way, row in result["rows"].items():
        counted = sum(row["counted"][part] for part in row["predicted"]) / 1e6
        predicted = sum(row["predicted"].values()) / 1e6
        lines.append(
            f"| {way} | {row['tokens_per_s']:,.0f} | {counted:,.0f} | {predicted:,.0f} "
            f"| {row['resident'] / 1e6:,.0f} |"
        )
    return lines


def serving(result: dict[str, Any]) -> list[str]:
    lines = [
        "The server of `labs/serve.py` at the 26M shape (greedy, prompts of 16 to 128 tokens, "
        f"answers of 64 to 192) on {where(result['machine'])}, with its clients on the same cores:",
        "",
        "| clients at once | fp32, tokens/s | times one | first token (p95) "
        "| bf16, tokens/s | times one | first token (p95) |",
        "|--:" * 7 + "|",
    ]
    rows = result["rows"]
    for clients in rows["float32"]:
        cells = [clients]
        for by_clients in (rows["float32"], rows["bfloat16"]):
            rate, first = by_clients[clients].values()
            ratio = rate / by_clients["1"]["tokens_per_s"]
            cells += [f"{rate:,.0f}", f"{ratio:.2f}", f"{1000 * first:,.0f} ms"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def checkpoint(result: dict[str, Any]) -> list[str]:
    return [
        f"A checkpoint of the 26M model with AdamW ({result['megabytes']:.0f} MB), in fp32 on "
        f"{where(result['machine'])}: training pauses for {result['pause_s']:.2f} s "
        f"({result['longest_pause_s']:.2f} s at the most) and goes on while the file is written; "
        f"`torch.save` of the same, flushed to the disk, takes {result['torch_save_s']:.2f} s. In "
        f"a new process, `train()` has verified and loaded it and taken the first step after "
        f"{result['going_on_s']:.1f} s.",
    ]


def soak(result: dict[str, Any]) -> list[str]:
    kinds = result["kinds"]
    return [
        f"In {result['minutes']:g} minutes of mixed traffic from 24 clients for 16 slots "
        f"({result['requests']:,} requests, of which {kinds['leaves']:,} went away in the middle "
        f"and {kinds['wrong']:,} were wrong on purpose), {result['failed']} failed and "
        f"{result['slots_lost']} slots were not given back."
    ]


def simulated_class(result: dict[str, Any]) -> list[str]:
    wrong = result["wrong"] or "none"
    return [
        f"`course grade` on a made class of {result['submissions']:,} submissions of "
        f"{result['lessons']} lessons, {result['hostile']} of them hostile, in the sandbox, with "
        f"{result['jobs']} jobs on {where(result['machine'])}: {result['seconds']:.0f} s and "
        f"{result['megabytes']:,.0f} MB at the most; of {result['exercises']:,} scores, {wrong} is "
        f"other than constructed. Once more, with nothing changed: {result['again_s']:.0f} s."
    ]


def against_nbgrader(result: dict[str, Any]) -> list[str]:
    about, work = result["machine"], result["honest"]
    lines = [
        f"Lesson 02 graded by stock nbgrader {about['nbgrader']} and by `course grade` (sandboxed, "
        f"{result['jobs']} jobs) on {where(about)}, points of the same notebooks:",
        "",
        *head("deserved", "nbgrader", "ours"),
    ]
    for name, row in work["points"].items():
        lines.append(f"| {name} | {row['deserved']:g} | {row['nbgrader']:g} | {row['ours']:g} |")
    lines += [
        "",
        "(*noisy* is right and also writes to stderr, *broken* does not run, *mixed* is right, "
        "wrong and blank by turns.)",
        "",
        f"A submission takes nbgrader {work['stock_s']:.1f} s and ours "
        f"{1000 * work['ours_s']:,.0f} ms (of {work['submissions']}, start included): "
        f"{result['ratio']:.0f} times as fast.",
        "",
        "| attack | deserved | nbgrader | ours |",
        "|---|--:|--:|--:|",
    ]
    hidden = [row for row in result["attacks"] if row["nbgrader"] == "not shown"]
    for row in result["attacks"]:
        if row not in hidden:
            theirs = "no grade" if row["nbgrader"] is None else f"{row['nbgrader']:g}"
            if row["others"]:
                theirs += f", and {row['others']} others changed"
            says = row["says"].rstrip(".")
            lines.append(f"| {says} | {row['deserved']:g} | {theirs} | {row['ours']:g} |")
    right = sum(row["ours"] == row["deserved"] for row in hidden)
    lines += [
        "",
        f"{len(hidden)} more attacks, on memory, processes, disk, network and the clock, were not "
        f"shown to nbgrader, which has no sandbox; ours gave {right} of them what they deserve.",
    ]
    return lines


def grading(result: dict[str, Any]) -> list[str]:
    return [
        f"A submission of lesson 02, all solved, takes one worker of `course grade` "
        f"{result['submission_ms']:.0f} ms on {where(result['machine'])}, of which its checks "
        f"take {result['checks_ms']:.0f} ms without any sandbox; the other "
        f"{result['beyond_ms']:.0f} ms are reading it, forking and locking in its process "
        f"({result['child_ms']:.1f} ms) and calls through the proxy (from {result['call_ms']:.2f} "
        f"ms each)."
    ]


# The sections of docs/measured.md: its title, and the results in it.
SECTIONS: dict[str, dict[str, Callable[[dict[str, Any]], list[str]]]] = {
    "MNIST": {"mnist": mnist},
    "A language model from the first letter": {
        "char-shakespeare": char_shakespeare,
        "gpt-throughput": gpt_throughput,
        "moe": moe,
    },
    "Writing": {"generation": generation},
    "Training for less": {"mixed-precision": mixed_precision, "lora": lora},
    "Many processes, and stops": {"zero": zero, "checkpoint": checkpoint},
    "Serving": {"serving": serving, "soak": soak},
    "Grading": {
        "against-nbgrader": against_nbgrader,
        "simulated-class": simulated_class,
        "grading": grading,
    },
}
