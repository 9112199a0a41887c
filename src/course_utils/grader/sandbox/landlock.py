"""Landlock: a process gives up all files but those on a list, and cannot take it back.

https://docs.kernel.org/userspace-api/landlock.html. Works for any user, without namespaces.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from course_utils.grader.sandbox.kernel import syscall

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL = 1 << 14, 1 << 15
_READ = _READ_FILE | _READ_DIR
# All of the first version: making, removing and renaming files of every kind are bits 4 to 12.
_FIRST_VERSION = (1 << 13) - 1
_FOR_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_PATH_BENEATH = 1


def version() -> int:
    """The kernel's Landlock version; 0 when it has none."""
    try:
        return syscall("landlock_create_ruleset", None, 0, 1)
    except OSError:
        return 0


def ruleset(
    readable: Iterable[Path], writable: Iterable[Path], listable: Iterable[Path] = ()
) -> int:
    """A descriptor of rules that leave these files and folders, no TCP, no signals to others.

    Of a `listable` folder the names below it can be read, and nothing else. Paths that do not
    exist are left out.

    Raises:
        OSError: when the kernel has no Landlock.
    """
    known = version()
    handled = _FIRST_VERSION
    handled |= (1 << 13) if known >= 2 else 0  # moving a file to another folder
    handled |= _TRUNCATE if known >= 3 else 0
    handled |= _IOCTL if known >= 5 else 0
    tcp = 0b11 if known >= 4 else 0  # bind and connect: none is allowed below
    scoped = 0b11 if known >= 6 else 0  # abstract sockets and signals stay among ourselves
    attributes = struct.pack("=QQQ", handled, tcp, scoped)
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    rules = syscall("landlock_create_ruleset", ctypes.create_string_buffer(attributes), size, 0)
    for path in readable:
        _allow(rules, path, _READ & handled)
    for path in listable:
        _allow(rules, path, _READ_DIR)
    for path in writable:
        _allow(rules, path, handled & ~_EXECUTE)
    return rules


def restrict(rules: int) -> None:
    """Put the rules over this process, for good. Needs `no_new_privs`."""
    syscall("landlock_restrict_self", rules, 0)
    os.close(rules)


def _allow(rules: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FOR_FILES
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, descriptor))
        syscall("landlock_add_rule", rules, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
