"""Memory by rank: the pretraining lab, which also counts the memory of every rank.

    python labs/memory.py --preset nano
    accelerate launch --config_file labs/accelerate/zero2.yaml labs/memory.py --steps 4

The lab takes all settings of labs/pretrain.py. For each rank it writes to runs/NAME/memory.json the
bytes of parameters, gradients and optimizer state, counted tensor by tensor, and the peak main
memory of the process. Lesson 15 and benchmarks/zero.py read this file.
"""

import json
import runpy
from collections.abc import Sequence
from pathlib import Path

from course_utils.base.durable import write_whole
from course_utils.parallel.census import StateCensus, peak_resident_bytes
from course_utils.training.engines.processes import Processes
from course_utils.training.lab.recipes import open_lab, run_lab

pretrain = runpy.run_path(str(Path(__file__).with_name("pretrain.py")))


def train(argv: Sequence[str]) -> None:
    config = open_lab(pretrain["PretrainConfig"], argv, __file__)
    processes = Processes.start()
    before = peak_resident_bytes()
    trainer = pretrain["make_trainer"](config)
    census = StateCensus()
    trainer.callbacks = [*trainer.callbacks, census]
    summary = trainer.train()
    found = {**census.kept, "resident_before": before, "resident": peak_resident_bytes()}
    ranks = processes.gather(found)
    if trainer.is_main:
        shape = trainer.model.config
        report = {
            "parameters": shape.n_parameters(),
            "precision": trainer.config.precision,
            "tokens_per_s": summary.metrics["tokens_per_s"],
            "ranks": ranks,
        }
        write_whole(summary.folder / "memory.json", json.dumps(report, indent=1) + "\n")
        for rank, kept in enumerate(ranks):
            parts = ", ".join(f"{name} {value / 1e6:,.1f} MB" for name, value in kept.items())
            print(f"rank {rank}: {parts}")


if __name__ == "__main__":
    run_lab(train)
