"""What a run says on the screen.

Everything goes to standard output: nbgrader gives a test cell that wrote to standard error no
points, and progress is no error.
"""

import sys

from tqdm import tqdm

from course_utils.training.callbacks import Record
from course_utils.training.config import Progress
from course_utils.training.signals import in_notebook


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
