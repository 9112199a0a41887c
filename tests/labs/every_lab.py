"""Run every lab's smoke recipe one after another in the processes of one launch.

    accelerate launch --config_file labs/accelerate/fsdp.yaml tests/labs/every_lab.py

Importing torch, transformers and DeepSpeed takes longer than a lab. Each lab starts from the model
of the one before it; each evaluates, generates samples where it does so, and saves in the middle.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

LABS = Path(__file__).resolve().parents[2] / "labs"
RECIPES = {
    "mnist": "mnist-smoke",
    "pretrain": "pretrain-smoke",
    "sft": "sft-smoke",
    "lora": "lora-smoke",
    "dpo": "dpo-smoke",
    "grpo": "grpo-smoke",
    "distill": "distill-smoke",
}


def load(lab: str) -> ModuleType:
    """A lab's script as a module."""
    spec = importlib.util.spec_from_file_location(f"lab_{lab}", LABS / f"{lab}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    from course_utils.base.errors import CourseError

    for name in sys.argv[1:] or RECIPES:
        print(f"== {name}", flush=True)
        try:
            load(name).train(["--recipe", RECIPES[name]])
        except CourseError as error:
            print(f"refused: {error}", flush=True)
