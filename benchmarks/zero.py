"""Two gloo processes beside one process with two threads, and ZeRO: tokens/s and memory per rank.

    python benchmarks/zero.py            and results/zero-….json, and lesson 15's measurements
    python benchmarks/zero.py --quick    a tiny model, a few steps, written nowhere

Each way is a run of labs/memory.py, launched as `accelerate launch` launches it, with the same
global batch of 8 × 256 tokens at minimind's 26M shape (23M with a vocabulary of 1,024) in bf16,
with AdamW. Each process has one thread, except the one that is alone, which has two. Parameters,
gradients and optimizer states are counted tensor by tensor, and held against the
arithmetic of course_utils.parallel.memory. The resident memory is the most that the system has seen
of a process.

The loss traces, of a smaller model in fp32, are of labs/pretrain.py, with an evaluation after every
step.
"""

import json
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from measuring import Record, machine, quick_option

from course_utils.base.durable import write_whole
from course_utils.base.paths import course_root
from course_utils.parallel.labs import launch_lab
from course_utils.parallel.memory import ENGINES

MEASURED = course_root() / "lessons" / "measured" / "15_zero.json"
TRACES = {
    "one process": (None, ()),
    "accumulation": (None, ("--accumulation", 2)),
    "DDP": ("multi_cpu", ()),
    "ZeRO-1": ("zero1", ()),
    "ZeRO-2": ("zero2", ()),
    "ZeRO-3": ("zero3", ()),
}
COMMON = ("--recipe", "pretrain-smoke", "--optimizer", "adamw", "--checkpoints", 1, "--prompts", "")


def memory_of(config: str | None, runs: str, quick: bool) -> dict[str, Any]:
    """One run of labs/memory.py: what it wrote to memory.json."""
    size = ("--steps", 2, "--evaluations", 1) if quick else (
        "--preset", "minimind-26m", "--n-layers", 8, "--context", 256, "--vocab", 1024,
        "--steps", 12, "--evaluations", 2, "--evaluation-rows", 4,
    )  # fmt: skip
    name = f"memory-{config or 'alone'}"
    threads = {"OMP_NUM_THREADS": "1" if config else "2", "COURSE_RUNS_DIR": runs}
    launch_lab(
        "memory.py", *COMMON, *size, "--precision", "bf16", "--name", name,
        config=config, environment=threads, show=False,
    )  # fmt: skip
    return json.loads((Path(runs) / name / "memory.json").read_text())


def trace_of(config: str | None, settings: tuple, runs: str, steps: int) -> list[float]:
    """The loss of every step."""
    name = "-".join(map(str, (config or "alone", *settings)))
    launch_lab(
        "pretrain.py", *COMMON, *settings, "--precision", "no", "--steps", steps,
        "--evaluations", steps, "--evaluation-rows", 2, "--name", name,
        config=config, environment={"COURSE_RUNS_DIR": runs}, show=False,
    )  # fmt: skip
    lines = (Path(runs) / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def summary(way: str, found: dict[str, Any]) -> dict[str, Any]:
    """Of one way: tokens/s, predicted and counted bytes of rank 0, the largest process."""
    engine = ENGINES[way]
    return {
        "parameters": found["parameters"],
        "tokens_per_s": found["tokens_per_s"],
        "processes": len(found["ranks"]),
        "predicted": engine.predict(found["parameters"], len(found["ranks"]), found["precision"]),
        "counted": {name: found["ranks"][0][name] for name in
                    ("parameters", "gradients", "optimizer", "buffers")},
        "resident": max(rank["resident"] for rank in found["ranks"]),
        "resident_before": statistics.median(rank["resident_before"] for rank in found["ranks"]),
    }  # fmt: skip


def main() -> None:
    quick = quick_option(__doc__)
    record = Record("zero", keep=not quick)
    with tempfile.TemporaryDirectory() as runs:
        rows = {
            way: summary(way, record(way, partial(memory_of, engine.config, runs, quick)))
            for way, engine in ENGINES.items()
        }
        traces = {
            name: record(f"trace, {name}", partial(trace_of, *how, runs, 2 if quick else 24))
            for name, how in TRACES.items()
        }
    about = machine("accelerate", "deepspeed")
    print("| | tokens/s | counted / predicted MB | resident MB |\n|---|---|---|---|")
    for way, row in rows.items():
        counted = sum(row["counted"][part] for part in row["predicted"]) / 1e6
        predicted = sum(row["predicted"].values()) / 1e6
        print(
            f"| {way} | {row['tokens_per_s']:,.0f} | {counted:,.1f} / {predicted:,.1f} "
            f"({counted / predicted - 1:+.1%}) | {row['resident'] / 1e6:,.0f} |"
        )
    first = traces["one process"]
    for name, trace in traces.items():
        apart = max(abs(a - b) for a, b in zip(trace, first, strict=True))
        print(f"{name}: losses at most {apart:.1e} from those of one process")
    record.finish(about, rows=rows, traces=traces)
    if not quick:
        whole = {"machine": about, "rows": rows, "traces": traces}
        write_whole(MEASURED, json.dumps(whole, indent=1) + "\n")
        print(f"Written to {MEASURED}.")


if __name__ == "__main__":
    sys.exit(main())
