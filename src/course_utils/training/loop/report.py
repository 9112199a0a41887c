"""A run's reporting: its clock, its lines in metrics.jsonl, and its progress bar."""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from course_utils.base.durable import write_whole
from course_utils.training.config import Progress, TrainConfig
from course_utils.training.loop.optimizer_step import StepResult
from course_utils.training.loop.signals import in_notebook
from course_utils.training.loop.throughput import Meter, Stopwatch
from course_utils.training.storage.checkpoint import Position
from course_utils.training.storage.run_folder import Record, RunFolder


class Report:
    """Measures the training time of a run and writes its metrics.

    Every rank has a Report with nearly the same clock; only rank 0 writes files and prints.
    """

    def __init__(self, folder: RunFolder, config: TrainConfig, unit: str, is_main: bool) -> None:
        self._folder, self._config, self._unit, self._is_main = folder, config, unit, is_main
        self._screen = Screen(config.progress, unit, is_main)
        self._watch = Stopwatch()
        self._meter = Meter(flops_per_item=0.0, peak_flops=1.0)
        self._wandb: Wandb | None = None
        self.say, self.warn, self.advance = (
            self._screen.say,
            self._screen.warn,
            self._screen.advance,
        )

    def open(self, position: Position, settings: Mapping[str, Any]) -> None:
        """Open the run's files at `position`: drop lines of later steps, which will be repeated."""
        if self._is_main:
            self._folder.write_config(settings)
            self._folder.metrics.cut_back(position.step)
            if self._config.tracking == "wandb":
                self._wandb = Wandb(self._folder.path, self._config.name, settings)

    def start(self, position: Position, flops_per_item: float, peak_flops: float) -> None:
        """Start the clock and the progress bar at `position`."""
        self._meter = Meter(flops_per_item, peak_flops)
        self._meter.restart(position.items, position.elapsed_s)
        self._screen.open_bar(position.step, self._config.steps)
        self._watch.start(position.elapsed_s)

    @property
    def seconds(self) -> float:
        """Seconds of training so far, without evaluation and saving."""
        return self._watch.seconds

    @contextlib.contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """Stop the clock within the block, for evaluation and saving: they are not training."""
        self._watch.pause()
        try:
            yield
        finally:
            self._watch.start()

    def line(
        self, position: Position, loss: float, result: StepResult, val: Mapping[str, float]
    ) -> Record:
        """Write one record to metrics.jsonl, wandb and the progress bar; return the record."""
        rate, mfu = self._meter.read(position.items, position.elapsed_s)
        record: Record = {
            "step": position.step,
            self._unit: position.items,
            "loss": loss,
            "lr": result.lr,
            "grad_norm": float(result.grad_norm),
            f"{self._unit}_per_s": rate,
            "mfu": mfu,
            "elapsed_s": position.elapsed_s,
            **({} if result.loss_scale is None else {"loss_scale": result.loss_scale}),
            **val,
        }
        if self._is_main:
            self._folder.metrics.append(record)
            self._screen.show(record)
            if self._wandb is not None:
                self._wandb.log(record)
        return record

    def flush(self) -> None:
        """Wait until all lines are on the disk, so that no checkpoint is newer than the metrics."""
        if self._is_main:
            self._folder.metrics.flush()

    def close(self) -> None:
        """Close the progress bar and the wandb run; closing twice is harmless."""
        self._screen.close_bar()
        if self._wandb is not None:
            self._wandb.close()
            self._wandb = None


class Screen:
    """Messages and the progress bar on rank 0; all other ranks print nothing."""

    def __init__(self, progress: Progress, unit: str, is_main: bool) -> None:
        self._unit = unit
        self._speaks = is_main
        self._chatty = is_main and progress != "off"
        wanted = progress == "bar" or (
            progress == "auto" and (sys.stdout.isatty() or in_notebook())
        )
        self._wants_bar = is_main and wanted
        self._bar: tqdm | None = None

    def say(self, text: str) -> None:
        """Print a message, unless `progress` is "off"."""
        if self._chatty:
            tqdm.write(text, file=sys.stdout)

    def warn(self, text: str) -> None:
        """Print a warning, whatever `progress` is."""
        if self._speaks:
            tqdm.write(text, file=sys.stdout)

    def open_bar(self, step: int, steps: int) -> None:
        if self._wants_bar:
            self._bar = tqdm(
                initial=step, total=steps, unit="step", file=sys.stdout, mininterval=0.5
            )

    def advance(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def show(self, record: Record) -> None:
        """Show a record's metrics beside the progress bar when the bar is drawn next.

        Drawing the bar for every record would fill a notebook's output with hundreds of bars.
        """
        if self._bar is None:
            return
        rate, mfu = record[f"{self._unit}_per_s"], record["mfu"]
        text = f"loss {record['loss']:.4f}, lr {record['lr']:.2e}"
        text += f", {rate:,.0f} {self._unit}/s, MFU {mfu:.1%}"
        if "val_loss" in record:
            text += f", val_loss {record['val_loss']:.4f}"
        self._bar.set_postfix_str(text, refresh=False)

    def close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Wandb:
    """A Weights & Biases run in the run's folder; it is offline unless WANDB_MODE says otherwise.

    `wandb sync` uploads an offline run later. A resumed run keeps its wandb id.
    """

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        import wandb  # the import takes half a second: only when wandb is used

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "course"),
            name=name,
            id=_lasting_id(folder / "wandb" / "course-run-id"),
            resume="allow",
            dir=folder,
            config=dict(settings),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            settings=wandb.Settings(silent=True, console="off", init_timeout=30),
        )

    def log(self, record: Record) -> None:
        self._run.log(record, step=int(record["step"]))

    def close(self) -> None:
        self._run.finish()


def _lasting_id(path: Path) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, secrets.token_hex(4))
    return path.read_text()
