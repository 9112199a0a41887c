"""Run the labs of lesson 13 one after another, and write their results into one file.

    python labs/preferences.py                          # after nano, sft-nano and sft-careless
    python labs/preferences.py --to FILE                # instead of runs/lesson-13-labs.json

The script skips finished runs, and resumes an interrupted one.
"""

import json
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from course_utils.base.durable import write_whole
from course_utils.base.paths import runs_dir
from course_utils.training.lab.recipes import load_recipe, run_lab

LABS = Path(__file__).parent


def measured(lab: str, config: str, *options: str) -> tuple[float, dict[str, Any]]:
    """The base model's (or teacher's) exact match, and the run's last metrics."""
    module = runpy.run_path(str(LABS / f"{lab}.py"))
    argv = ["--recipe", f"{lab}-nano", "--resume", *options]
    trainer, exam = module["make_trainer"](load_recipe(module[config], argv, LABS / "recipes"))
    return exam["val_exact_match"], trainer.train().metrics


def main(argv: Sequence[str]) -> None:
    path = Path(argv[1]) if argv[:1] == ["--to"] else runs_dir() / "lesson-13-labs.json"
    found = {}
    for name, lab, config in (("DPO", "dpo", "DpoConfig"), ("GRPO", "grpo", "GrpoConfig")):
        before, last = measured(lab, config)
        found[name] = {"before": before, "after": last["val_exact_match"], "kl": last["val_kl"]}
    _, alone = measured("distill", "DistillConfig", "--hard", "1", "--name", "distill-nano-alone")
    _, taught = measured("distill", "DistillConfig")
    found["distillation"] = {
        "before": alone["val_exact_match"],
        "after": taught["val_exact_match"],
        "kl": taught["val_kl"],
    }
    write_whole(path, json.dumps(found, indent=1) + "\n")
    for name, lab in found.items():
        print(f"{name:14} {lab['before']:6.1%} → {lab['after']:6.1%}   KL {lab['kl']:.3f}")


if __name__ == "__main__":
    run_lab(main)
