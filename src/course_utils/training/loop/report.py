"""What a run tells about itself: its clock, its lines of metrics, its progress bar."""

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
    """Keeps the time of a run and writes its lines.

    Every process has one, with equal clocks or nearly so; only the main one's writes and speaks.
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
        """Take up the files where `position` is: later lines are written again."""
        if self._is_main:
            self._folder.write_config(settings)
            self._folder.metrics.cut_back(position.step)
            if self._config.tracking == "wandb":
                self._wandb = Wandb(self._folder.path, self._config.name, settings)

    def start(self, position: Position, flops_per_item: float, peak_flops: float) -> None:
        """Start the clock, at the seconds of `position`."""
        self._meter = Meter(flops_per_item, peak_flops)
        self._meter.restart(position.items, position.elapsed_s)
        self._screen.open_bar(position.step, self._config.steps)
        self._watch.start(position.elapsed_s)

    @property
    def seconds(self) -> float:
        """Seconds of training so far, without the times when the clock was stopped."""
        return self._watch.seconds

    @contextlib.contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """Evaluation, saving and drawing are not training."""
        self._watch.pause()
        try:
            yield
        finally:
            self._watch.start()

    def line(
        self, position: Position, loss: float, result: StepResult, val: Mapping[str, float]
    ) -> Record:
        """Write one line of metrics.jsonl, to wandb and to the bar; returns it."""
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
        """Wait until all lines are on the disk, so that no checkpoint is ahead of its trace."""
        if self._is_main:
            self._folder.metrics.flush()

    def close(self) -> None:
        """End the bar and the tracking; closing twice does no harm."""
        self._screen.close_bar()
        if self._wandb is not None:
            self._wandb.close()
            self._wandb = None


class Screen:
    """The main process's voice and progress bar; on other processes it is silent."""

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
        """Something to know, unless the run was asked to be quiet."""
        if self._chatty:
            tqdm.write(text, file=sys.stdout)

    def warn(self, text: str) -> None:
        """Something to know in any case."""
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
        """Put a line's numbers behind the bar, to be seen when it is drawn next.

        Drawing for every line would fill a notebook's output with hundreds of bars.
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
    """A Weights & Biases run inside the run's folder, without network unless WANDB_MODE asks.

    Upload an offline one later with `wandb sync`. A run that is resumed keeps its id.
    """

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        import wandb  # half a second, and only for those who asked

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
