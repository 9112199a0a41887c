"""Stopping a run: SIGTERM from a spot machine, Ctrl-C, a notebook's stop button, and errors.

A step that is interrupted half-way leaves weights that belong to no step. Therefore a signal only
sets a flag. Between two steps all ranks add up their flags, save a checkpoint, and stop together.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType

import torch

from course_utils.base.errors import CourseError

GRACE_S = 300.0  # time to finish the current step and to write the checkpoint after it


@dataclass(frozen=True)
class Stop:
    """Why a run stops before its last step, and the script's exit code; with 0 it continues."""

    reason: str
    exit_code: int = 0


class StopRequests:
    """Collects requests to stop: SIGTERM and Ctrl-C within its block, and calls of `request`.

    A second Ctrl-C raises KeyboardInterrupt at once, without waiting for the end of the step. Under
    `accelerate launch` it does not, because there a single Ctrl-C arrives twice: from the terminal
    and from the launcher.

    Attributes:
        votes: This rank's requests, which the trainer sums over all ranks at every step:
            terminated, interrupted, stopped by the program. It is a plain list, since every step
            reads it and hardly any step finds a request.
    """

    def __init__(self) -> None:
        self.votes = [False, False, False]
        self._own_reason = ""
        self._handlers: dict[int, object] = {}
        self._deadline: threading.Timer | None = None

    def request(self, reason: str) -> None:
        """Stop after this step, for the reason given."""
        self._own_reason = reason
        self.votes[2] = True

    def verdict(self, summed: Sequence[float]) -> Stop | None:
        """Return whether and why all ranks stop, given the sum of their votes."""
        terminated, interrupted, own = summed
        if terminated:
            return Stop("terminated (SIGTERM)", 128 + signal.SIGTERM)
        if interrupted:
            return Stop("interrupted (Ctrl-C)", 128 + signal.SIGINT)
        if own:
            return Stop(self._own_reason or "another process asked to stop")
        return None

    def __enter__(self) -> "StopRequests":
        self.votes, self._own_reason = [False, False, False], ""
        # Python lets only the main thread set signal handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._remember)
        if _is_launched():
            _follow_parent()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _remember(self, number: int, frame: FrameType | None) -> None:
        which = 0 if number == signal.SIGTERM else 1
        again, self.votes[which] = self.votes[which], True
        if number == signal.SIGTERM and _is_launched():
            self._give_up_later()
        if again and number == signal.SIGINT and not _is_launched():
            raise KeyboardInterrupt

    def _give_up_later(self) -> None:
        """Exit after GRACE_S: if another rank has died, this rank's collective never returns."""
        if self._deadline is None:
            self._deadline = threading.Timer(GRACE_S, os._exit, (128 + signal.SIGTERM,))
            self._deadline.daemon = True
            self._deadline.start()


def in_notebook() -> bool:
    """Whether IPython runs this code: its kernel must keep running after a run stops."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def _is_launched() -> bool:
    return "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ


def _follow_parent() -> None:
    """Ask Linux to send SIGTERM to this process when the launcher dies.

    With one process, `accelerate launch` does not forward signals. Without this call, terminating
    the launcher would leave the training running on a machine that still costs money.
    """
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGTERM)


@contextlib.contextmanager
def released_on_error(micro_batch: int, accumulation: int) -> Iterator[None]:
    """Free all tensors when the block is interrupted or runs out of GPU memory.

    A notebook keeps the last traceback, whose frames reference gigabytes of activations: without
    this, the next attempt would run out of memory at once. Other errors keep their frames, for the
    debugger.

    Raises:
        CourseError: in place of torch's OutOfMemoryError; it says how to reduce the memory.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        traceback.clear_frames(error.__traceback__)
        raise
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)
        raise CourseError(
            f"The GPU ran out of memory with micro-batches of {micro_batch}: "
            f"double accumulation (now {accumulation}) to halve them."
        ) from None
