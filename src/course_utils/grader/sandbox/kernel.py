"""The few system calls that Python does not offer, and what they answered."""

import ctypes
import os
import platform
import struct
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

ARCHITECTURE = platform.machine()

#             x86_64, aarch64
_NUMBERS = {
    "capset": (126, 91),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
    "mount_setattr": (442, 442),
    "pidfd_open": (434, 434),
    "seccomp": (317, 277),
}

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_REC, MS_PRIVATE = 0x4000, 1 << 18

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
PR_CAPBSET_DROP = 24


def syscall(name: str, *arguments: int | ctypes.Array | None) -> int:
    """One system call by name.

    Raises:
        OSError: as the kernel answered, also for a machine whose numbers are not known.
    """
    if ARCHITECTURE not in ("x86_64", "aarch64"):
        raise OSError(38, f"no system call numbers for {ARCHITECTURE}")
    number = _NUMBERS[name][ARCHITECTURE == "aarch64"]
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(name, _libc.syscall(ctypes.c_long(number), *wide))


def _checked(name: str, answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return answer


def prctl(option: int, value: int = 0) -> None:
    _checked("prctl", _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def unshare(flags: int) -> None:
    _checked("unshare", _libc.unshare(ctypes.c_int(flags)))


def setns(descriptor: int, kind: int) -> None:
    _checked("setns", _libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)))


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    answer = _libc.mount(
        source.encode(), target.encode(), kind.encode() if kind else None,
        ctypes.c_ulong(flags), options.encode(),
    )  # fmt: skip
    _checked(f"mount {target}", answer)


def mount_read_only() -> None:
    """Make every mount that there is, in this mount namespace, one that can only be read."""
    here, recursive, read_only = -100, 0x8000, 1
    change = struct.pack("=QQQQ", read_only, 0, 0, 0)
    syscall(
        "mount_setattr", here, ctypes.create_string_buffer(b"/"), recursive,
        ctypes.create_string_buffer(change), len(change),
    )  # fmt: skip


def drop_capabilities() -> None:
    """Give up every right that the superuser has over others, for good."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break  # past the last one, or there is nothing to drop
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
    syscall("capset", header, ctypes.create_string_buffer(24))


def collapse_memory() -> None:
    """Put this process's own memory into huge pages, as far as the kernel goes along (Linux 6.1).

    A fork copies one entry for each page, and its end frees them again: of half a gigabyte in pages
    of 4 KiB that is most of what a fork costs.
    """
    huge, collapse = 2 * 2**20, 25
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, rights, _, _, inode, *name = line.split(maxsplit=5)
        if rights != "rw-p" or inode != "0" or name[:1] not in ([], ["[heap]"]):
            continue
        start, end = (int(address, 16) for address in place.split("-"))
        for address in range(-(-start // huge) * huge, end - huge + 1, huge):
            _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(huge), collapse)
