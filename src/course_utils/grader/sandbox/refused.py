"""What the sandbox says no to, said clearly to the learner and noted for the grader.

The kernel refuses (`lockdown`); this module only sees to it that the refusal has a name. Whoever
gets round it gains nothing but a worse message.
"""

import os
import platform
import sys
from types import FrameType, ModuleType
from typing import Any, NoReturn

import psutil

MAX_NOTES = 20

notes: list[str] = []
_hidden: dict[str, set[str]] = {}


class ForbiddenReference(ImportError):
    """The library's own version of what an exercise asks for."""


def note(what: str) -> None:
    """Remember what was tried; the grader collects it."""
    if what not in notes and len(notes) < MAX_NOTES:
        notes.append(what)


def refuse(symbol: str) -> NoReturn:
    """What the body of a reference says in the sandbox."""
    note(f"the library's own {symbol}")
    raise ForbiddenReference(
        f"The library's own {symbol} is what the exercise asks for, so it is not here: "
        f"write yours, and call that one."
    )


def hide(module: ModuleType, symbol: str) -> None:
    """Let `from module import symbol` fail; the module's own functions still find the name."""
    if module.__name__ not in _hidden:
        _hidden[module.__name__] = set()
        module.__class__ = _Guarded
    _hidden[module.__name__].add(symbol)


def show(symbol: str) -> None:
    """Undo `hide`, everywhere."""
    for names in _hidden.values():
        names.discard(symbol)


class _Guarded(ModuleType):
    def __getattribute__(self, name: str) -> Any:
        namespace = object.__getattribute__(self, "__dict__")
        if name in _hidden.get(namespace["__name__"], ()):
            refuse(name)
        return super().__getattribute__(name)


_NETWORK = ("socket.__new__", "socket.connect", "socket.bind", "socket.getaddrinfo",
            "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto")  # fmt: skip
_PROCESSES = ("os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec", "os.spawn",
              "subprocess.Popen", "pty.spawn")  # fmt: skip
_SIGNALS = ("os.kill", "os.killpg")
_READING = ("os.listdir", "os.scandir", "os.chdir")
_WRITING = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod",
            "os.chown", "os.truncate", "os.utime", "shutil.rmtree", "sqlite3.connect")  # fmt: skip
_FRAMES = 8
# Importing urllib3 probes for a socket; platform and psutil ask programs about the machine.
_ASKING = ("<frozen importlib", platform.__file__, psutil.__file__.removesuffix("__init__.py"))


def watch(roots: tuple[str, ...], scratch: str, cells: dict[str, list[str]]) -> None:
    """Note attempts to leave the sandbox, from here to the end of the process.

    Args:
        roots: real paths of the folders and files that may be read.
        scratch: the folder that may be written to.
        cells: the learner's code by file name; only what comes from there is noted.
    """
    busy = False

    def under(path: str, folders: tuple[str, ...]) -> bool:
        return any(path == folder or path.startswith(folder + "/") for folder in folders)

    def by_learner() -> bool:
        frame: FrameType | None = sys._getframe(2)
        for _ in range(_FRAMES):
            if frame is None or frame.f_code.co_filename.startswith("<frozen importlib"):
                return False
            if frame.f_code.co_filename in cells:
                return True
            frame = frame.f_back
        return False

    def by_library() -> bool:
        """Whether an import, or a library that asks about the machine, is what reached for it."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename not in cells:
            if frame.f_code.co_filename.startswith(_ASKING):
                return True
            frame = frame.f_back
        return False

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _NETWORK or event in _PROCESSES:
            if not by_library():  # the kernel refuses it all the same
                note("the network" if event in _NETWORK else "another process")
        elif event in _SIGNALS:
            note("a signal to a process")
        elif event == "open" or event in _READING or event in _WRITING:
            path = arguments[0] if arguments else None
            if not isinstance(path, str | bytes | os.PathLike) or not by_learner():
                return
            real = os.path.realpath(os.fsdecode(path))
            mode, flags = (arguments[1], arguments[2]) if event == "open" else (None, 0)
            writes = event in _WRITING or (
                any(letter in (mode or "") for letter in "wax+")
                or bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR))
            )
            if under(real, (scratch,)) or (not writes and under(real, roots)):
                return
            note(f"{'writing' if writes else 'reading'} {real[:200]}")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy:
            return
        busy = True
        try:
            look(event, arguments)
        except Exception:  # a hook that raises would change what the learner's code does
            pass
        finally:
            busy = False

    sys.addaudithook(hook)
