"""Starting a lesson's zygote, and talking to the children that it forks."""

import array
import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import torch
from torch import Tensor

from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root, data_dir
from course_utils.exercises.exercise import Exercise, find_exercise
from course_utils.exercises.timelimit import CPU_SECONDS, WALL_SECONDS, TimeUp
from course_utils.grader.sandbox import lockdown
from course_utils.grader.sandbox.cut import CutModule, cut_modules, home
from course_utils.grader.sandbox.frames import Closed, Stalled, WireError, receive, send
from course_utils.grader.sandbox.lockdown import Level, Limits
from course_utils.grader.sandbox.proxy import Talk

_LIBRARY = Path(__file__).resolve().parents[2]
MAX_NOTE, MAX_PRINTED = 300, 10_000
MAX_RECEIVED = 2**29  # bytes of tensors in one check
# Processor seconds that crossing the boundary takes the child; they are not the learner's.
PER_CALL = 0.0005


class Died(BaseException):
    """The learner's process ended by itself, or sent something that is no message."""


class Zygote:
    """One lesson's prepared process; a context manager.

    Args:
        exercises: whose references must not be there.
        setup: the instructor's set-up cells.
        level: how far it is locked in.
        limits: for one submission.

    Raises:
        CourseError: when the set-up cells fail.
    """

    def __init__(
        self,
        exercises: Sequence[Exercise],
        setup: Sequence[str] = (),
        level: Level | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.level = lockdown.usable_level() if level is None else level
        self.limits = limits or Limits()
        self._folder = tempfile.TemporaryDirectory(prefix="course-grade-")
        self.address = str(Path(self._folder.name) / "socket")
        modules = cut_modules(exercises)
        control, theirs = socket.socketpair()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.address)
        listener.listen(64)
        scratch = Path(self._folder.name) / "scratch"
        scratch.mkdir(mode=0o700)
        needed = [course_root(), data_dir(), Path(sys.prefix), _LIBRARY]
        own = [Path(self._folder.name)]
        command = [
            *lockdown.prefix(self.level, own, needed), sys.executable, "-s", "-m",
            "course_utils.grader.sandbox.zygote", str(theirs.fileno()),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command,
            pass_fds=(theirs.fileno(), listener.fileno()),
            env=_environment(scratch),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if os.environ.get("COURSE_SANDBOX_DEBUG") else subprocess.DEVNULL,
            cwd=scratch,
        )
        self.control = control
        config = {
            "level": int(self.level),
            "modules": [
                {"name": m.name, "path": str(m.path), "text": m.text, "symbols": m.symbols}
                for m in modules
            ],
            "imports": [],
            "setup": list(setup),
            "readable": [str(path) for path in readable_paths(modules)],
            "library": str(_LIBRARY),
            "limits": self.limits.plain(),
            "listener": listener.fileno(),
            "scratch": str(scratch),
        }
        send(control, config)
        theirs.close()
        listener.close()
        self._ready = False

    def wait(self) -> None:
        """Until it is prepared; takes a few seconds."""
        if self._ready:
            return
        try:
            answer, _ = receive(self.control)
        except WireError:
            raise CourseError(
                "The sandbox did not start (COURSE_SANDBOX_DEBUG=1 says more)."
            ) from None
        if "error" in answer:
            told = "\n".join(answer.get("trace", []))
            raise CourseError(
                f"A set-up cell failed, so nothing can be graded: {answer['error']}\n{told}"
            )
        self._ready = True

    def close(self) -> None:
        self.control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=2)
        self.process.kill()
        self.process.wait()
        self._folder.cleanup()

    def __enter__(self) -> "Zygote":
        self.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _environment(scratch: Path) -> dict[str, str]:
    """What the learner's code may know of ours: next to nothing."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "PATH") if name in os.environ}
    if "COURSE_SANDBOX_DEBUG" in os.environ:
        kept["COURSE_SANDBOX_DEBUG"] = "1"
    return {
        **kept,
        "HOME": str(scratch), "TMPDIR": str(scratch), "MPLCONFIGDIR": str(scratch),
        "XDG_CACHE_HOME": str(scratch),
        "PYTHONPATH": str(_LIBRARY.parent), "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "random", "MPLBACKEND": "agg",
        # A child lives for a tenth of a second: first touches of its memory are much of that, and
        # in huge pages there are fewer of them.
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive",
        "COURSE_ROOT": str(course_root()), "COURSE_DATA_DIR": str(data_dir()),
        "COURSE_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "COURSE_PROFILE": "smoke",
        "COURSE_HOME": str(scratch / "home"), "COURSE_RUNS_DIR": str(scratch / "runs"),
        "WANDB_MODE": "offline", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip


def readable_paths(modules: Sequence[CutModule]) -> list[Path]:
    """What a child may read: Python, its packages, the data, and the course's other modules.

    Not among it: the modules with references in them, compiled files (which would hold those too),
    exercises, lessons, tests, the repository, homes, /proc, and other submissions.
    """
    paths = {
        Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    paths |= {Path(p) for p in ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo",
                                "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime",
                                "/dev/null", "/dev/urandom", "/usr/share/fonts")}  # fmt: skip
    paths |= {course_root() / "data", data_dir()}
    for folder in [path for path in paths if path in _LIBRARY.parents]:
        # The course itself is installed among the packages: its neighbours only.
        paths.remove(folder)
        paths |= {path for path in folder.iterdir() if path != _LIBRARY}
    hidden = {module.path.resolve() for module in modules}
    paths |= {path for path in _LIBRARY.rglob("*.py") if path.resolve() not in hidden}
    return sorted(path for path in paths if path.exists())


def _new_child(address: str) -> tuple[socket.socket, int]:
    """A connection to a child that was just forked, and a handle of its process.

    Raises:
        CourseError: when there is no zygote any more, or it could start none for ten seconds.
    """
    for pause in (0.1, 0.3, 0.6, 1.0, 2.0, 3.0, 3.0):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(address)
            _, rights, _, _ = connection.recvmsg(1, socket.CMSG_LEN(4))
        except (ConnectionRefusedError, FileNotFoundError):  # nobody listens, nor will again
            connection.close()
            break
        except OSError:
            rights = []
        if rights:
            return connection, array.array("i", rights[0][2])[0]
        connection.close()
        time.sleep(pause)
    raise CourseError("The sandbox is gone. Grade again with --resume: it goes on from here.")


@cache
def _source(exercise_id: str) -> str:
    return find_exercise(exercise_id).source


@dataclass
class Session:
    """One submission's child.

    Args:
        zygote: whose fork it is.
    """

    zygote: Zygote
    notes: list[str] = field(default_factory=list)
    printed: str = ""
    alive: bool = True

    def __post_init__(self) -> None:
        self.connection, self.handle = _new_child(self.zygote.address)
        told = Path(f"/proc/self/fdinfo/{self.handle}").read_text()
        found = re.search(r"^Pid:\s+(-?\d+)", told, re.MULTILINE)
        self.pid = int(found[1]) if found else -1
        if self.pid > 0:
            with contextlib.suppress(OSError):  # it may be gone already
                os.sched_setaffinity(self.pid, os.sched_getaffinity(0))
        self.started = time.monotonic()
        self.talk, self.received = Talk(self._ask), 0
        self.cpu_deadline, self.wall_deadline = 0.0, 0.0

    # --- what the grader asks -----------------------------------------------------------------

    def run_cell(
        self, source: str, file: str, symbol: str, before: Sequence[tuple[str, str]] = ()
    ) -> tuple[str, str]:
        """Run a solution cell; returns what went wrong, and whether it defined something.

        Args:
            source: the cell's text as Python; each of its statements is run for itself.
            file: its name in tracebacks.
            symbol: what it should define.
            before: names and texts of cells that are run before it.
        """
        with self.time_limit(5.0, 15.0):
            found = self._order(
                "cell", source=source, file=file, symbol=symbol, before=[list(b) for b in before]
            )  # fmt: skip
        if type(found) is not list or [type(part) for part in found] != [str, str]:
            raise Died("a cell ends in words")
        return found[0][:600], found[1]

    def restore(self, exercise: Exercise, hand_on: bool) -> None:
        """Put an exercise's reference back into the child's library, now that it is judged."""
        with self.time_limit(5.0, 15.0):
            self._order(
                "restore", module=home(exercise), symbol=exercise.symbol,
                source=_source(exercise.id), holes=list(exercise.holes), hand_on=hand_on,
            )  # fmt: skip

    def _order(self, op: str, **more: Any) -> Any:
        """Something that only fails where the learner's code has broken the sandbox's own."""
        try:
            # An answer brings the child's switch for gradients and its random numbers along; a
            # check has its own, and whatever this process does next is not the learner's.
            with torch.enable_grad(), torch.random.fork_rng(devices=[]):
                return self.talk.ask_about(op, 0, **more)
        except Exception as error:
            self.close()
            raise Died(f"it broke what runs it ({type(error).__name__})") from None

    def student(self) -> Any:
        """The learner's object, for one check: its arguments and results are then forgotten."""
        self.talk, self.received = Talk(self._ask), 0
        return self.talk.student

    @contextlib.contextmanager
    def time_limit(
        self, cpu: float = CPU_SECONDS, wall: float = 2 * WALL_SECONDS
    ) -> Iterator[None]:
        """What the child may use in the body: processor time of its own, and wall time.

        Raises:
            TimeUp: the child is dead then.
            CourseError: the child died because the zygote did.
        """
        now = time.monotonic()
        self.cpu_deadline = self._cpu() + cpu
        self.wall_deadline = min(now + wall, self.started + self.zygote.limits.wall)
        try:
            yield
        except Died:
            # With its zygote every child dies; that must not become a verdict on somebody's code.
            connection, handle = _new_child(self.zygote.address)
            os.close(handle)
            connection.close()
            raise

    def close(self) -> None:
        """Kill the child with everything it started."""
        if self.handle >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)
            os.close(self.handle)
            self.handle = -1
        self.connection.close()
        self.alive = False

    # --- the conversation ---------------------------------------------------------------------

    def _ask(self, message: dict[str, Any], tensors: list[Tensor]) -> tuple[dict, list[Tensor]]:
        self.cpu_deadline += PER_CALL
        # A busy machine makes each call wait for its turn; a check with thousands waits for long.
        last = self.started + self.zygote.limits.wall
        self.wall_deadline = min(self.wall_deadline + 10 * PER_CALL, last)
        if not self.alive:
            raise Died("the learner's process is gone")
        self.connection.settimeout(max(1.0, self.wall_deadline - time.monotonic()))
        try:
            send(self.connection, message, tensors)
            while True:
                self._wait()
                # A message that begins and does not go on must not hold us either.
                answer, found = receive(self.connection, self.wall_deadline + 0.1)
                if type(answer) is not dict or answer.get("op") not in (
                    "return",
                    "raise",
                    "callback",
                ):
                    raise WireError("not an answer")
                self.received += sum(tensor.nbytes for tensor in found)
                if self.received > MAX_RECEIVED:
                    raise WireError("more than the grader keeps for one check")
                self._collect(answer)
                if answer["op"] != "callback":
                    return answer, found
                reply, held = self.talk.answer_callback(answer, found)
                send(self.connection, reply, held)
        except Closed:
            self._find_out()
        except Stalled:
            self.close()
            raise TimeUp from None
        except WireError as error:
            self.close()
            raise Died(f"it sent something that is no message ({error})") from None
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        """Until the child says something, or its time is up."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        while True:
            left = min(self.wall_deadline - time.monotonic(), self.cpu_deadline - self._cpu())
            if left <= 0:
                self.close()
                raise TimeUp
            if poll.poll(max(1.0, left * 1000)):
                return

    def _cpu(self) -> float:
        """Processor seconds of the child so far."""
        try:
            return time.clock_gettime((~self.pid << 3) | 2)
        except (OSError, OverflowError):
            return 0.0

    def _collect(self, answer: dict[str, Any]) -> None:
        for said in answer.get("notes") or ():
            if type(said) is str and len(self.notes) < 20:
                # It may hold anything: what a terminal would obey, or half of a character.
                shown = (c if c.isprintable() else "\ufffd" for c in said[:MAX_NOTE])
                self.notes.append("".join(shown))
        printed = answer.get("printed")
        if type(printed) is str:
            self.printed = (self.printed + printed)[:MAX_PRINTED]

    def _find_out(self) -> NoReturn:
        """Why the child is gone."""
        used = self._cpu()
        self.close()
        if used >= self.zygote.limits.cpu - 0.5:
            raise TimeUp from None
        raise Died("its process ended") from None
