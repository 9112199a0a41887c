"""The process that is forked for every submission of one lesson.

It starts as a program of its own, so that it has nothing of the grader's: it imports torch, the
course without the lesson's references (`cut`) and whatever the instructor's set-up cells import,
runs those cells, and then forks a child for each connection. It runs on one thread, because
threads do not survive a fork.

    python -m course_utils.grader.sandbox.zygote DESCRIPTOR
"""

import array
import contextlib
import gc
import importlib.abc
import importlib.util
import io
import os
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from course_utils.grader.sandbox import kernel, landlock, lockdown
from course_utils.grader.sandbox.lockdown import Level, Limits


class CutFinder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports some modules from the texts that the grader sent."""

    def __init__(self, modules: list[dict[str, Any]]) -> None:
        self.modules = {module["name"]: module for module in modules}

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        module = self.modules.get(fullname)
        if module is None:
            return None
        package = module["path"].endswith("__init__.py")
        spec = importlib.util.spec_from_loader(fullname, self, is_package=package)
        assert spec is not None
        spec.origin, spec.has_location = module["path"], True
        if package:
            spec.submodule_search_locations = [str(Path(module["path"]).parent)]
        return spec

    def get_source(self, fullname: str) -> str:
        return str(self.modules[fullname]["text"])

    def is_package(self, fullname: str) -> bool:
        return str(self.modules[fullname]["path"]).endswith("__init__.py")

    def exec_module(self, module: ModuleType) -> None:
        path = self.modules[module.__name__]["path"]
        exec(compile(self.get_source(module.__name__), path, "exec"), vars(module))


def main(descriptor: int) -> None:
    """Set up, say so, and fork until the grader hangs up."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    control = socket.socket(fileno=descriptor)
    from course_utils.grader.sandbox.frames import receive, send

    config, _ = receive(control)
    level = Level(config["level"])
    if level == Level.NAMESPACES:
        lockdown.enter_namespaces(os.getuid(), os.getgid())
        inside = os.fork()
        if inside:  # stays behind: the first process of a process namespace has to be a child
            control.close()
            os.close(config["listener"])  # or connections would wait here when the other is gone
            _wait_for(inside)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        namespace = prepare(config)
    except BaseException as error:
        trace = traceback.format_exc().strip().split("\n")
        send(control, {"error": f"{type(error).__name__}: {error}", "trace": trace[-8:]})
        return
    listener = socket.socket(fileno=config["listener"])
    _fork_for_each(control, listener, level, config, namespace)


def _wait_for(child: int) -> None:
    while True:
        with contextlib.suppress(InterruptedError):
            os.waitpid(child, 0)
            os._exit(0)


def prepare(config: dict[str, Any]) -> dict[str, Any]:
    """Import what the lesson needs and run its set-up cells; returns their namespace."""
    modules = config["modules"]
    sys.meta_path.insert(0, CutFinder(modules))
    for module in modules:  # nobody may have imported one before
        assert module["name"] not in sys.modules, module["name"]
    import torch
    import torch._dynamo  # the first optimizer imports it, for seconds

    torch.set_num_threads(1)
    import course_utils
    from course_utils.grader.sandbox import child  # noqa: F401
    from course_utils.grader.sandbox.restore import empty_ones

    vars(course_utils).update(check=_not_here, verified=_hand_on)
    for module in modules:
        importlib.import_module(module["name"])
    for name in config["imports"]:
        importlib.import_module(name)
    from course_utils.exercises.cell_text import notebook_names

    _compile_nothing()
    namespace = notebook_names()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for index, source in enumerate(config["setup"]):
            exec(compile(source, f"<set-up cell {index}>", "exec"), namespace)
    warm_up()
    empty_ones([(module["name"], symbol) for module in modules for symbol in module["symbols"]])
    return namespace


def _not_here(exercise_id: str, student: Any) -> float:
    """In the sandbox a learner's cell cannot ask for a verdict."""
    return 0.0


def _hand_on(exercise_id: str, student: Any) -> Any:
    return student


def _compile_nothing() -> None:
    """`torch.compile` gives back what it got: its compiler starts programs and writes files."""
    import torch

    def unchanged(model: Any = None, *anything: Any, **named: Any) -> Any:
        return model if model is not None else lambda given: given

    torch.compile = unchanged
    torch.nn.Module.compile = lambda self, *anything, **named: None  # type: ignore[method-assign]


def warm_up() -> None:
    """What torch does only the first time, done once for all children."""
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    state = torch.get_rng_state()
    loss = nn.functional.cross_entropy(model(torch.randn(2, 1, 4, 4)), torch.tensor([0, 1]))
    loss.backward()
    optimizer.step()
    torch.autograd.grad(model(torch.randn(1, 1, 4, 4)).sum(), list(model.parameters()))
    torch.set_rng_state(state)


def _fork_for_each(
    control: socket.socket,
    listener: socket.socket,
    level: Level,
    config: dict[str, Any],
    namespace: dict[str, Any],
) -> None:
    """Get ready, say so, and fork a child for each connection.

    What fails here for want of processes, memory or descriptors concerns that one connection: it is
    closed without a child, and the grader asks again. The others would be left without a zygote.
    """
    from course_utils.grader.sandbox.frames import send

    limits = Limits(**config["limits"])
    own_processes = os.open("/proc/self/ns/pid", os.O_RDONLY) if level == Level.NAMESPACES else -1
    readable = [Path(path) for path in config["readable"]]
    roots = tuple({os.path.realpath(path) for path in readable})
    scratch_root = Path(tempfile.mkdtemp(prefix="course-sandbox-", dir=config["scratch"]))
    common = lockdown.prepare_scratch(level, scratch_root)
    library = [Path(config["library"])]
    null = Path("/dev/null")
    rules = landlock.ruleset(readable, [scratch_root, null], library) if common else -1
    mapped = lockdown.address_space()
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.collect()
    gc.freeze()
    kernel.collapse_memory()
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(control, select.POLLIN)
    send(control, {"ready": True})
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        _reap()
        if control.fileno() in ready:  # the grader has closed, or has died
            if common is None:
                shutil.rmtree(scratch_root, ignore_errors=True)
            return
        if listener.fileno() not in ready:
            continue
        connection: socket.socket | None = None
        try:
            connection, _ = listener.accept()
            scratch = common or Path(tempfile.mkdtemp(dir=scratch_root))
            if level == Level.NAMESPACES:
                # From our own each time: no process can be born in the last child's any more.
                kernel.setns(own_processes, kernel.CLONE_NEWPID)
                kernel.unshare(kernel.CLONE_NEWPID)
            child = os.fork()
        except OSError:
            if connection is not None:
                connection.close()
            time.sleep(0.05)  # whatever is short is so for a while
            continue
        if child == 0:
            listener.close()
            control.close()
            if rules < 0 and level >= Level.LANDLOCK:
                # Without a file system of its own, nothing would stop it from filling the disk.
                rules = landlock.ruleset(readable, [null], library)
            lock_in = partial(lockdown.lock_in, level, limits, mapped, rules, scratch)
            _live(connection, lock_in, rules, roots, scratch, namespace)
        if common is None:
            _scratch_of[child] = scratch
        _hand_over(child, connection)


def _hand_over(child: int, connection: socket.socket) -> None:
    """Give the grader a handle of the child; a child that nobody holds is killed."""
    with connection:
        try:
            handle = os.pidfd_open(child)
            try:
                descriptors = array.array("i", [handle]).tobytes()
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)
                connection.sendmsg([b"p"], [rights])
            finally:
                os.close(handle)
        except OSError:
            os.kill(child, signal.SIGKILL)


_scratch_of: dict[int, Path] = {}


def _reap() -> None:
    while True:
        try:
            child, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if child == 0:
            return
        scratch = _scratch_of.pop(child, None)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _live(
    connection: socket.socket,
    lock_in: Callable[[], None],
    rules: int,
    roots: tuple[str, ...],
    scratch: Path,
    namespace: dict[str, Any],
) -> None:
    """The child's life, from the fork to the end."""
    from course_utils.grader.sandbox import refused
    from course_utils.grader.sandbox.child import Child
    from course_utils.grader.sandbox.frames import Closed

    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        os.environ.update(HOME=str(scratch), TMPDIR=str(scratch))
        tempfile.tempdir = str(scratch)
        last = 3
        for kept in sorted({connection.fileno(), *({rules} if rules >= 0 else ())}):
            os.closerange(last, kept)
            last = kept + 1
        os.closerange(last, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        lock_in()
        cells: dict[str, list[str]] = {}
        child = Child(connection, namespace, cells)
        refused.watch(roots, str(scratch), cells)
        child.serve()
    except Closed:
        os._exit(0)
    except BaseException:
        os._exit(70)


if __name__ == "__main__":
    main(int(sys.argv[1]))
    os._exit(0)  # nothing is left to tidy up, and torch takes its time
