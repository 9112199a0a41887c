"""The effect of a training: the evaluation metrics before the first step and at the end."""

import json
from pathlib import Path

from course_utils.base.durable import write_whole
from course_utils.base.errors import CourseError
from course_utils.training.loop.callbacks import Callback, RunningTrainer
from course_utils.training.storage.run_folder import MetricsFile, Record

FILE = "before.json"


class BeforeAfter(Callback):
    """Evaluates the model before the first step, and writes runs/NAME/before.json."""

    def on_start(self, trainer: RunningTrainer, step: int) -> None:
        path = trainer.config.folder / FILE
        if step or path.is_file():
            return
        before = trainer.measure()
        if trainer.is_main:
            write_whole(path, json.dumps(before, indent=1) + "\n")


def before_and_after(folder: Path) -> tuple[Record, Record]:
    """The metrics of a run before its first step, and its last ones.

    Args:
        folder: runs/NAME.

    Raises:
        CourseError: when one of them is missing.
    """
    try:
        before = json.loads((folder / FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CourseError(
            f"{folder} has no readable {FILE}, the metrics before training: {error}"
        ) from None
    after = MetricsFile(folder / "metrics.jsonl").last()
    return before, {name: value for name, value in after.items() if name in before}


def comparison(folder: Path) -> str:
    """`before_and_after` as a small table in text; shares in percent."""
    before, after = before_and_after(folder)
    lines = [f"{'':24}{'before':>10}{'after':>10}"]
    for name, value in before.items():
        lines.append(f"{name:24}{_number(name, value):>10}{_number(name, after[name]):>10}")
    return "\n".join(lines)


def _number(name: str, value: float) -> str:
    is_share = any(word in name for word in ("exact", "says", "accuracy"))
    return f"{value:.1%}" if is_share else f"{value:.3f}"
