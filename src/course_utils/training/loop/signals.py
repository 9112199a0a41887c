"""Being asked to stop: a spot machine that is taken away, Ctrl-C, a notebook's stop button.

A step that is torn off half-way leaves weights that belong to no step. So a signal only sets a
flag; between steps the processes count their flags together, save, and end as one.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType

GRACE_S = 300.0  # for the step that is being taken, and the checkpoint after it


@dataclass(frozen=True)
class Stop:
    """Why a run stops before its end, and the exit code that says so; 0 lets the script go on."""

    reason: str
    exit_code: int = 0


class StopRequests:
    """Collects requests to stop: SIGTERM and Ctrl-C while its block runs, and the program's own.

    A second Ctrl-C raises KeyboardInterrupt, for those who cannot wait for the step. Under a
    launcher it does not: there a single Ctrl-C arrives twice, once passed on by the launcher.

    Attributes:
        votes: This process's requests, which the trainer sums over all processes at every step:
            terminated, interrupted, stopped by the program. A plain list, since every step reads
            it and hardly any finds something in it.
    """

    def __init__(self) -> None:
        self.votes = [False, False, False]
        self._own_reason = ""
        self._handlers: dict[int, object] = {}
        self._deadline: threading.Timer | None = None

    def request(self, reason: str) -> None:
        """Stop after this step, for a reason of the program's own."""
        self._own_reason = reason
        self.votes[2] = True

    def verdict(self, summed: Sequence[float]) -> Stop | None:
        """What all processes do, given the sum of their votes."""
        terminated, interrupted, own = summed
        if terminated:
            return Stop("terminated (SIGTERM)", 128 + signal.SIGTERM)
        if interrupted:
            return Stop("interrupted (Ctrl-C)", 128 + signal.SIGINT)
        if own:
            return Stop(self._own_reason or "asked to by another process")
        return None

    def __enter__(self) -> "StopRequests":
        self.votes, self._own_reason = [False, False, False], ""
        if threading.current_thread() is threading.main_thread():  # Python allows no other
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
        """End this process if no step comes to its end: it waits for one that is gone."""
        if self._deadline is None:
            self._deadline = threading.Timer(GRACE_S, os._exit, (128 + signal.SIGTERM,))
            self._deadline.daemon = True
            self._deadline.start()


def in_notebook() -> bool:
    """Whether an IPython kernel or shell runs this code: it must survive the end of a run."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def _is_launched() -> bool:
    return "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ


def _follow_parent() -> None:
    """Have Linux send SIGTERM when the launcher dies.

    `accelerate launch` of one process passes no signal on: terminated, it would leave a training
    process behind that nobody watches and somebody pays for.
    """
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGTERM)
