"""A time limit for code that may never return.

Two clocks, because each alone is wrong: processor time does not punish a learner whose machine is
busy with something else, and wall time stops code that sleeps or waits. Code that computes, though
slowly since other programs use the processor, gets ten times the wall time. Signals only reach the
main thread; elsewhere the code runs without a limit (a notebook's cells run in the main thread).
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

CPU_SECONDS = 1.5
WALL_SECONDS = 6.0
# The alarm keeps ringing: a bare `except:` in the learner's loop swallows the first one only.
_AGAIN = 0.05
# Code that gets this share of the wall time as processor time is not asleep.
_COMPUTES = 0.05


class TimeUp(BaseException):
    """Raised inside the running code; not an `Exception`, so that `except Exception` lets it by."""


@contextmanager
def time_limit(cpu: float = CPU_SECONDS, wall: float = WALL_SECONDS) -> Iterator[None]:
    """Raise `TimeUp` in the body after `cpu` seconds of processor time or `wall` seconds asleep.

    A call that stays inside compiled code is only interrupted when it comes back to Python.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(
        signal, "setitimer"
    ):
        yield
        return
    armed = True
    started, used = time.monotonic(), time.process_time()

    def ring(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGALRM:
            passed = time.monotonic() - started
            if time.process_time() - used > _COMPUTES * passed and passed < 10 * wall:
                return  # the alarm rings again
        if armed:
            raise TimeUp

    clocks = ((signal.SIGPROF, signal.ITIMER_PROF, cpu), (signal.SIGALRM, signal.ITIMER_REAL, wall))
    previous = [(number, signal.signal(number, ring)) for number, _, _ in clocks]
    try:
        for _, timer, seconds in clocks:
            signal.setitimer(timer, seconds, _AGAIN)
        yield
    finally:
        armed = False  # an alarm that rings while we tidy up must not escape from here
        for _, timer, _ in clocks:
            signal.setitimer(timer, 0)
        for number, handler in previous:
            signal.signal(number, handler)
