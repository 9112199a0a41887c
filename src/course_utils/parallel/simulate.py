"""Ranks as threads of one process: quick, the same every time, and a deadlock is told at once.

One thread runs at a time. It keeps its turn until it waits for a message that is not there, or has
finished; then the next rank goes on that can. So what happens depends on the program alone and
not on the machine, and when no rank can go on, all of them know it.
"""

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, TypeVar

from torch import Tensor

from course_utils.base.errors import CourseError
from course_utils.parallel.link import Link, LinkError

T = TypeVar("T")


def simulate(function: Callable[..., T], *arguments: Sequence[Any], **settings: Any) -> list[T]:
    """Call `function(link, …)` on every rank, each rank a thread.

    Args:
        function: the program of one rank.
        arguments: lists with one entry for each rank.
        settings: the same for all ranks.

    Returns:
        What the ranks returned, by rank.

    Raises:
        LinkError: when the ranks wait for each other, or a message was sent that nobody received.
        Exception: whatever a rank raised first; the other ranks are stopped.
    """
    calls = per_rank(arguments)
    world = _World(len(calls))
    for rank, call in enumerate(calls):
        link = _ThreadLink(rank, world)
        world.add(rank, partial(function, link, *call, **settings))
    return world.run()


def collective(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a rank's program be called in two ways.

        all_reduce(link, tensor)               as one rank of many, which all call it
        all_reduce([one, another, third])      as all ranks together, in this process

    The second way takes a list with one entry per rank for each argument, settings by name, and
    returns the list of the ranks' results. With `traffic=True` it returns those and two more lists:
    the bytes and the messages that each rank has sent.
    """

    @wraps(function)
    def call(first: Any, *others: Any, traffic: bool = False, **settings: Any) -> Any:
        if isinstance(first, Link):
            return function(first, *others, **settings)
        if not traffic:
            return simulate(function, first, *others, **settings)

        def counted(link: Link, *arguments: Any) -> tuple[Any, int, int]:
            result = function(link, *arguments, **settings)
            return result, link.bytes_sent, link.messages_sent

        return tuple(map(list, zip(*simulate(counted, first, *others), strict=True)))

    return call


def per_rank(arguments: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """The arguments of each rank's call, from one list per argument.

    Raises:
        CourseError: when the lists are not of one length.
    """
    lengths = {len(argument) for argument in arguments}
    if len(lengths) != 1 or not lengths - {0}:
        raise CourseError(
            "Give a list for each argument, with one entry for each rank; found lists of "
            f"{', '.join(map(str, sorted(lengths))) or 'nothing'}."
        )
    return list(zip(*arguments, strict=True))


class _Stopped(SystemExit):  # which `threading` does not report
    """Ends a rank's thread when another rank has failed."""


class _ThreadLink(Link):
    def __init__(self, rank: int, world: "_World") -> None:
        super().__init__(rank, world.size)
        self._world = world

    def _send(self, tensor: Tensor, to: int) -> None:
        self._world.mail[self.rank, to].append(tensor)

    def _recv(self, source: int) -> Tensor:
        self._world.wait_for_mail(self.rank, source)
        return self._world.mail[source, self.rank].popleft()


class _World:
    """The threads, the mail between them, and whose turn it is."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.mail: dict[tuple[int, int], deque[Tensor]] = {
            (a, b): deque() for a in range(size) for b in range(size)
        }
        self._go = [threading.Semaphore(0) for _ in range(size)]  # the turn, handed on
        self._waits: dict[int, int] = {}  # rank → the one whose message it waits for
        self._unfinished = set(range(size))
        self._deadlock = ""
        self._stopped = False
        self._failure: BaseException | None = None
        self._results: list[Any] = [None] * size
        self._threads: list[threading.Thread] = []
        # Not `Thread.join`: interrupted by a time limit, it takes a running thread for finished.
        self._alive = set(range(size))
        self._nobody_alive = threading.Event()

    def add(self, rank: int, call: Callable[[], Any]) -> None:
        thread = threading.Thread(target=self._live, args=(rank, call), daemon=True)
        self._threads.append(thread)

    def run(self) -> list[Any]:
        """Let all ranks finish, and return their results."""
        try:
            for thread in self._threads:
                thread.start()
            self._go[0].release()
            while not self._nobody_alive.wait(0.2):  # a time limit must be able to interrupt
                pass
        finally:
            self._stop()
        if self._failure is not None:
            raise self._failure
        for (sender, receiver), messages in self.mail.items():
            if messages:
                raise LinkError(
                    f"Rank {sender} sent {len(messages)} message(s) to rank {receiver} "
                    "that were never received."
                )
        return self._results

    def wait_for_mail(self, rank: int, source: int) -> None:
        """Return when a message from `source` is there and it is this rank's turn."""
        if not self.mail[source, rank]:
            self._waits[rank] = source
            self._pass_on(rank)
            self._await_turn(rank)
            if self._deadlock:
                raise LinkError(self._deadlock)
            del self._waits[rank]

    def _live(self, rank: int, call: Callable[[], Any]) -> None:
        try:
            self._await_turn(rank)
            self._results[rank] = call()
            self._unfinished.discard(rank)
            self._pass_on(rank)
        except _Stopped:
            pass
        except BaseException as error:
            self._failure = error
            self._wake_to_stop()
        finally:
            self._alive.discard(rank)
            if not self._alive:
                self._nobody_alive.set()

    def _await_turn(self, rank: int) -> None:
        self._go[rank].acquire()
        if self._stopped:
            raise _Stopped

    def _pass_on(self, rank: int) -> None:
        """Give the turn to the next rank that can go on. If none can, the lowest says so."""
        following = sorted(self._unfinished, key=lambda other: (other - rank - 1) % self.size)
        able = [r for r in following if r not in self._waits or self.mail[self._waits[r], r]]
        if not able and following:
            waiting = [f"rank {r} waits for rank {self._waits[r]}" for r in sorted(following)]
            self._deadlock = f"Deadlock: {', '.join(waiting)}, and nobody is left to send."
            able = [min(following)]
        if able:
            self._go[able[0]].release()

    def _wake_to_stop(self) -> None:
        self._stopped = True
        for go in self._go:
            go.release()

    def _stop(self) -> None:
        """Leave no thread behind, whatever it is doing."""
        self._wake_to_stop()
        for rank in tuple(self._alive):
            # Python's own way to end a loop in another thread; a waiting one ends by itself.
            number = ctypes.c_ulong(self._threads[rank].ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(_Stopped))
