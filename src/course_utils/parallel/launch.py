"""Ranks as processes that talk over gloo, started from a script or from a notebook's cell.

    def program(link, numbers):                 # of one rank; may be defined in a cell
        return all_reduce(link, numbers)

    launch(program, [one, another])             # two processes; returns both results

Processes are forked from a server that has imported torch and done nothing with it: a process that
has computed cannot be forked safely, and one that starts from nothing needs seconds. Functions are
sent by value (dill), so those of a notebook's cell travel with the names that they use.
"""

import multiprocessing
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import dill  # type: ignore[import-untyped]

from course_utils.base.errors import CourseError
from course_utils.parallel.rank import live
from course_utils.parallel.simulate import per_rank

T = TypeVar("T")


def launch(
    function: Callable[..., T],
    *arguments: Sequence[Any],
    timeout: float = 120.0,
    threads: int = 1,
) -> list[T]:
    """Call `function(link, …)` on every rank, each rank a process, and return what they returned.

    In each, `torch.distributed` is ready to use as well. What a rank prints is printed here, when
    all have finished, with its number in front.

    Args:
        function: the program of one rank; any function or lambda.
        arguments: lists with one entry for each rank.
        timeout: seconds after which the ranks are ended, finished or not.
        threads: that torch computes with, on each rank.

    Raises:
        CourseError: when a rank raised, died or ran out of time. It says which and why, and no
            process is left behind.
    """
    calls = per_rank(arguments)
    deadline = time.monotonic() + timeout
    with tempfile.TemporaryDirectory(prefix="course-ranks-") as folder:
        processes = []
        try:
            for rank, call in enumerate(calls):
                work = dill.dumps((function, call), recurse=True)
                place = (rank, len(calls), folder, timeout, threads)
                processes.append(_Process(rank, Path(folder), place, work))
            results = _collect(processes, deadline, timeout)
        finally:
            for process in processes:
                process.end()
        for process in processes:
            process.show_output()
    return results


@cache
def _context() -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # The first optimizer that a process makes imports torch._dynamo, which takes seconds.
    context.set_forkserver_preload(["course_utils.parallel.rank", "torch._dynamo"])
    return context


@contextmanager
def _main_out_of_sight() -> Iterator[None]:
    """A process that starts would run the script once more, for names that we send anyway."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Process:
    """A rank's process, seen from here."""

    def __init__(self, rank: int, folder: Path, place: tuple, work: bytes) -> None:
        self.rank, self._folder = rank, folder
        self.results: Connection
        self.results, theirs = _context().Pipe(duplex=False)
        self._process = _context().Process(target=live, args=(*place, work, theirs), daemon=True)  # type: ignore[attr-defined]
        with _main_out_of_sight():
            self._process.start()
        theirs.close()  # so that a process that dies can be noticed

    def end(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self.results.close()

    def cause_of_death(self) -> str:
        self._process.join(5)
        code = self._process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        last = self._text("stderr").strip().splitlines()[-1:]
        return " ".join([f"Rank {self.rank} {how} before it was finished.", *last])

    def show_output(self) -> None:
        for line in self._text("stdout").splitlines():
            print(f"[rank {self.rank}] {line}")

    def _text(self, stream: str) -> str:
        path = self._folder / f"{self.rank}.{stream}"
        return path.read_text("utf-8", errors="replace") if path.is_file() else ""


def _collect(processes: Sequence[_Process], deadline: float, timeout: float) -> list[Any]:
    """The results by rank, or a `CourseError` for the first thing that went wrong."""
    results: dict[int, Any] = {}
    pending = {process.results: process for process in processes}
    while pending:
        ready = wait(list(pending), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            late = ", ".join(str(process.rank) for process in pending.values())
            raise CourseError(
                f"Rank(s) {late} had not finished after {timeout:g} s and were ended. Does every "
                "recv have its send, and does every rank make the same collective calls?"
            )
        failures: list[tuple[float, str]] = []
        for pipe in ready:
            process = pending.pop(pipe)  # type: ignore[call-overload]
            try:
                outcome, when, value = dill.loads(process.results.recv_bytes())
            except EOFError:
                failures.append((time.monotonic(), process.cause_of_death()))
                continue
            if outcome == "failed":
                failures.append((when, value))
            results[process.rank] = value
        if failures:
            raise CourseError(min(failures)[1])  # the others only miss the one that failed first
    return [results[process.rank] for process in processes]
