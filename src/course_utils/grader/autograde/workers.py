"""Processes that grade side by side.

Each is forked from the grader before that has computed anything, speaks JSON lines on a socket,
and is replaced when it dies or does not come back: no submission can stop the others.
"""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course_utils.base.errors import CourseError
from course_utils.grader.autograde.grade import grade
from course_utils.grader.autograde.plan import LessonPlan
from course_utils.grader.autograde.records import SubmissionGrade, from_plain, to_plain
from course_utils.grader.autograde.submission import Found
from course_utils.grader.sandbox import kernel
from course_utils.grader.sandbox.lockdown import Level, Limits

# A worker that is silent for longer than a submission may take, and this, is stuck itself.
GRACE = 60.0
MAX_MEMORY = 6 * 2**30  # that a worker may map beyond what the grader has


@dataclass(frozen=True)
class Door:
    """What a worker needs of a lesson's zygote."""

    address: str
    level: Level
    limits: Limits


@dataclass
class Worker:
    """One process and what it is busy with."""

    pid: int
    connection: socket.socket
    task: Found | None = None
    since: float = 0.0
    waiting: bytearray = field(default_factory=bytearray)

    def give(self, task: Found, before: SubmissionGrade | None) -> None:
        self.task, self.since = task, time.monotonic()
        message = {
            "student": task.student, "lesson": task.lesson, "path": str(task.path),
            "before": to_plain(before) if before else None,
        }  # fmt: skip
        self.connection.sendall(json.dumps(message).encode() + b"\n")

    def answer(self) -> dict[str, Any] | None:
        """A whole line, if there is one.

        Raises:
            EOFError: when the worker is gone.
        """
        data = self.connection.recv(1 << 20)
        if not data:
            raise EOFError
        self.waiting += data
        if not self.waiting.endswith(b"\n"):
            return None
        line, self.waiting = bytes(self.waiting), bytearray()
        return dict(json.loads(line))

    def end(self) -> None:
        self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def start(plan: LessonPlan, door: Door, secret: int, core: int | None = None) -> Worker:
    """Fork a worker for one lesson, which keeps to one core if that is given."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return Worker(pid, ours)
    code = 1
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        # The lock on the output folder among them: it must end with the grader.
        os.closerange(3, theirs.fileno())
        os.closerange(theirs.fileno() + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the grader decides when to stop
        if core is not None:
            os.sched_setaffinity(0, {core})
        _bound_memory()
        gc.freeze()  # what the grader had made is not the worker's to look through
        _work(theirs, plan, door, secret)
        code = 0
    finally:
        os._exit(code)


def _bound_memory() -> None:
    """However a submission makes the grader allocate: it ends this worker, not the machine."""
    page = resource.getpagesize()
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * page
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    room = mapped + MAX_MEMORY
    resource.setrlimit(
        resource.RLIMIT_AS, (room if most == resource.RLIM_INFINITY else min(room, most), most)
    )


def _work(connection: socket.socket, plan: LessonPlan, door: Door, secret: int) -> None:
    with connection.makefile("rwb") as lines:
        for line in lines:
            task = json.loads(line)
            found = Found(task["student"], task["lesson"], Path(task["path"]))
            before = from_plain(task["before"]) if task["before"] else None
            answer: dict[str, Any]
            try:
                answer = {"record": to_plain(grade(found, plan, door, secret, before))}  # type: ignore[arg-type]
            except CourseError as error:
                answer = {"error": str(error)}
            except Exception as error:  # ours, not the learner's: the others go on
                answer = {"failed": f"{type(error).__name__}: {error}"}
            lines.write(json.dumps(answer).encode() + b"\n")
            lines.flush()


def _cores(jobs: int) -> list[int | None]:
    """Each worker's core, if together they take all of them.

    A worker and the child that it talks to take turns, so one core is enough for both, and to wake
    another one takes longer than most calls.
    """
    cores = sorted(os.sched_getaffinity(0))
    return [cores[i % len(cores)] if jobs >= len(cores) else None for i in range(jobs)]


def run(
    tasks: list[tuple[Found, SubmissionGrade | None]],
    jobs: int,
    launch: Callable[[int | None], Worker],
    most_seconds: float,
) -> Iterator[tuple[Found, SubmissionGrade | str]]:
    """Grade all tasks, as they come; for one that two workers in turn did not survive, what ended
    the second.

    Args:
        tasks: submissions with their earlier records.
        jobs: how many workers.
        launch: starts one on a core, or anywhere.
        most_seconds: that a submission may take.

    Raises:
        CourseError: when a worker met a problem that is the grader's own.
    """
    queue = list(reversed(tasks))
    tried: dict[Found, int] = {}
    cores = _cores(max(1, min(jobs, len(tasks))))
    workers = [launch(core) for core in cores]
    earlier = dict(tasks)

    def feed(worker: Worker) -> None:
        worker.task = None
        if queue:
            found, before = queue.pop()
            # If it has just died, its connection is at its end, and that is seen to below.
            with contextlib.suppress(OSError):
                worker.give(found, before)

    try:
        for worker in workers:
            feed(worker)
        while any(worker.task for worker in workers):
            busy = [worker for worker in workers if worker.task]
            ready, _, _ = select.select([w.connection for w in busy], [], [], 1.0)
            for worker in busy:
                task = worker.task
                assert task is not None
                gone = ""
                if time.monotonic() - worker.since > most_seconds + GRACE:
                    gone = "it took too long"
                elif worker.connection in ready:
                    try:
                        answer = worker.answer()
                    except (EOFError, OSError):
                        gone = "its process ended"
                    else:
                        if answer is None:
                            continue
                        if "error" in answer:
                            raise CourseError(answer["error"])
                        if "failed" in answer:
                            # Again, and not here: it may be what an earlier one left behind.
                            gone = answer["failed"]
                        else:
                            feed(worker)
                            yield task, from_plain(answer["record"])
                if gone:
                    worker.end()
                    place = workers.index(worker)
                    workers[place] = fresh = launch(cores[place])
                    tried[task] = tried.get(task, 0) + 1
                    if tried[task] < 2:
                        queue.append((task, earlier[task]))
                    else:
                        yield task, gone
                    feed(fresh)
    finally:
        for worker in workers:
            worker.end()
