"""What a run tells about itself: its clock, its lines of metrics, its progress bar."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from course_utils.training.callbacks import Record
from course_utils.training.checkpoint import Position
from course_utils.training.config import TrainConfig
from course_utils.training.progress import Screen
from course_utils.training.run_folder import RunFolder
from course_utils.training.step import StepResult
from course_utils.training.throughput import Meter, Stopwatch
from course_utils.training.tracking import Wandb


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
