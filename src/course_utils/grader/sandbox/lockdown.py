"""Locking a process in, as far as this machine allows, and saying how far that was.

    3  namespaces + Landlock + seccomp + limits     processes, network and mounts of their own
    2  bubblewrap + Landlock + seccomp + limits     where only bubblewrap may make namespaces
    1  Landlock + seccomp + limits                  any user, any kernel from 5.13 on
    0  limits                                       not enough: only with --unsafe

Only the highest level has a scratch folder to write to, in memory and of limited size. On each of
the first three the learner's code sees no file that is not on a list, opens no socket,
starts and signals no process, and dies with the whole of its tree.
"""

import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path

from course_utils.base.errors import CourseError
from course_utils.grader.sandbox import kernel, landlock, seccomp


class Level(IntEnum):
    """How much of the ladder there is."""

    LIMITS = 0
    LANDLOCK = 1
    BUBBLEWRAP = 2
    NAMESPACES = 3

    @property
    def says(self) -> str:
        return {
            Level.LIMITS: "limits only (unsafe)",
            Level.LANDLOCK: "Landlock + seccomp + limits",
            Level.BUBBLEWRAP: "bubblewrap + Landlock + seccomp + limits",
            Level.NAMESPACES: "namespaces + Landlock + seccomp + limits",
        }[self]


@dataclass(frozen=True)
class Limits:
    """What one submission may use. Bytes and seconds."""

    memory: int = 2 * 2**30  # address space beyond what the zygote has mapped
    cpu: int = 120
    wall: float = 300.0
    file_size: int = 32 * 2**20
    scratch: int = 64 * 2**20
    open_files: int = 64

    def plain(self) -> dict[str, float]:
        return asdict(self)


_BWRAP = ("--ro-bind", "/", "/", "--unshare-all", "--die-with-parent", "--new-session")


@cache
def best_level() -> Level:
    """The highest level that works here, found by trying."""
    if not (landlock.version() and seccomp.available()):
        return Level.LIMITS
    if _in_a_child(_try_namespaces):
        return Level.NAMESPACES
    if bubblewrap_works():
        return Level.BUBBLEWRAP
    return Level.LANDLOCK


def _try_namespaces() -> None:
    enter_namespaces(os.getuid(), os.getgid())
    kernel.mount_read_only()


def usable_level(unsafe: bool = False, at_most: Level = Level.NAMESPACES) -> Level:
    """The level to use.

    Raises:
        CourseError: when it would not hold anybody, and `unsafe` does not say that this is fine.
    """
    level = min(best_level(), at_most)
    if level < Level.LANDLOCK and not unsafe:
        raise CourseError(
            "This machine has no sandbox for learners' code (Linux with Landlock and seccomp, "
            "kernel 5.13 or later). Grade on another one, or say --unsafe if you trust everybody."
        )
    return level


def prefix(level: Level, own: Sequence[Path] = (), needed: Sequence[Path] = ()) -> list[str]:
    """What stands before the command that starts a zygote.

    Args:
        own: folders that it may write to.
        needed: folders that it must see, though they lie below /tmp, which is empty for it.
    """
    if level != Level.BUBBLEWRAP:
        return []
    # Mounts come in the order of the options: what lies below /tmp after /tmp.
    below = [path for path in needed if Path("/tmp") in path.parents]
    shown = [part for path in below for part in ("--ro-bind-try", str(path), str(path))]
    shown += [part for path in own for part in ("--bind", str(path), str(path))]
    return ["bwrap", *_BWRAP, "--dev", "/dev", "--tmpfs", "/tmp", *shown]


def bubblewrap_works() -> bool:
    """Whether bubblewrap is installed, and may make namespaces."""
    return shutil.which("bwrap") is not None and _succeeds([*prefix(Level.BUBBLEWRAP), "true"])


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _in_a_child(attempt) -> bool:  # type: ignore[no-untyped-def]
    child = os.fork()
    if child == 0:
        try:
            attempt()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def enter_namespaces(uid: int, gid: int) -> None:
    """A user, network, IPC, mount and process world of one's own; children live in it.

    The user keeps its number, so that what belongs to it stays readable, and loses every right
    over the rest of the machine.

    Raises:
        OSError: when this machine does not allow it.
    """
    kernel.unshare(
        kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWNS
        | kernel.CLONE_NEWUTS | kernel.CLONE_NEWPID
    )  # fmt: skip
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)


def address_space() -> int:
    """Bytes that this process has mapped."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _threads_of_all() -> int:
    """How many threads this machine has: "0.10 0.20 0.30 running/threads last"."""
    return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])


def prepare_scratch(level: Level, root: Path) -> Path | None:
    """With namespaces, the one folder over which every child mounts a scratch folder of its own.

    It lies in a tiny file system that can only be read, so there is nothing beside it to write to.
    From here on the calling process and its children can change no file anywhere else, its mode and
    times included, of which Landlock knows nothing.
    """
    if level != Level.NAMESPACES:
        return None
    kernel.mount("scratch", str(root), "tmpfs", 0, "size=64k,mode=0700")
    scratch = root / "scratch"
    scratch.mkdir(mode=0o700)
    # On new mounts: a file that a set-up cell has left open to write to holds the old ones open.
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount_read_only()
    return scratch


def lock_in(level: Level, limits: Limits, mapped: int, rules: int, scratch: Path) -> None:
    """Leave the calling process nothing but to compute; there is no way back.

    Args:
        level: from `usable_level`.
        limits: for this process.
        mapped: the address space it came with, which the memory limit does not count.
        rules: of Landlock, for the files it may read and for the scratch folder.
        scratch: an empty folder that it may write to.

    Raises:
        OSError: when a step of this level fails. Nothing of the learner's may run then.
    """
    if level == Level.NAMESPACES:
        kernel.unshare(kernel.CLONE_NEWNS)
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        kernel.mount("scratch", str(scratch), "tmpfs", flags, f"size={limits.scratch},mode=0700")
    os.chdir(scratch)
    # Without a user namespace of one's own, what the same user runs elsewhere counts, too. To count
    # that takes long; it is not more than the machine has.
    elsewhere = 0 if level == Level.NAMESPACES else _threads_of_all()
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
    for what, value in (
        (resource.RLIMIT_AS, mapped + limits.memory),
        (resource.RLIMIT_CPU, limits.cpu),
        (resource.RLIMIT_FSIZE, limits.file_size),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_NPROC, elsewhere + 256),
        (resource.RLIMIT_CORE, 0),
    ):
        most = resource.getrlimit(what)[1]  # only the superuser may raise it
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(what, (value, value))
    if level >= Level.LANDLOCK:
        kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if level >= Level.LANDLOCK:
        landlock.restrict(rules)
        seccomp.restrict()
