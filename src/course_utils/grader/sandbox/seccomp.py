"""seccomp: the system calls that are left to a process that only computes.

A list of what is allowed. Sockets cannot be made (so there is no UDP either, which Landlock lets
by), processes can be neither made nor signalled, programs cannot be started; a call that is not
known here does not exist. Numbers: asm/unistd_64.h and asm-generic/unistd.h.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Sequence

from course_utils.grader.sandbox.kernel import ARCHITECTURE, syscall

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_CLONE_THREAD = 0x00010000
_CLONE = {"x86_64": 56, "aarch64": 220}
_PRCTL = {"x86_64": 157, "aarch64": 167}
# Naming a thread or a piece of memory.
_PRCTL_OPTIONS = (15, 16, 0x53564D41)
# Calls that name a process, here only oneself: prlimit64, sched_setaffinity, sched_getaffinity.
_ON_ONESELF = {"x86_64": (302, 203, 204), "aarch64": (261, 122, 123)}
_TGKILL = {"x86_64": 234, "aarch64": 131}
# Copying descriptors, their flags, and locks on parts of a file. Not among it: who is signalled
# when a descriptor is ready (F_SETOWN, F_SETSIG), so O_ASYNC signals nobody, and leases, which hold
# up whoever opens the file.
_FCNTL = {"x86_64": 72, "aarch64": 25}
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 1030)
# Is it a terminal, and how large; are there bytes to read; not to wait; closing it on exec. Not
# among it: typing into a terminal (TIOCSTI), and again who is signalled (FIOSETOWN, SIOCSPGRP).
_IOCTL = {"x86_64": 16, "aarch64": 29}
_IOCTL_REQUESTS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# open and openat, and which argument the flags are. openat2 keeps its flags where a filter cannot
# look, so it does not exist.
_OPEN = {"x86_64": ((2, 1), (257, 2)), "aarch64": ((56, 2),)}

_ALLOWED = {
    "x86_64": (
        # reading, writing, waiting
        0, 1, 3, 5, 7, 8, 17, 18, 19, 20, 22, 23, 32, 33, 232, 233, 270, 271, 281, 290, 291,
        292, 293, 295, 296, 436, 213,
        # files: Landlock says which
        4, 6, 21, 40, 74, 75, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89,
        95, 137, 138, 217, 221, 258, 262, 263, 264, 265, 266, 267, 269, 285, 316,
        332, 439,
        # memory, threads, their signals
        9, 10, 11, 12, 25, 26, 27, 28, 149, 150, 13, 14, 15, 127, 128, 130, 131, 24, 202,
        218, 273, 274, 309, 324, 334, 449, 121, 120, 143, 145, 146, 147, 239,
        # who and when
        39, 96, 97, 98, 99, 100, 63, 102, 104, 107, 108, 110, 111, 115, 118, 120, 121, 124, 186,
        201, 228, 229, 230, 35, 318, 36, 37, 38, 222, 223, 224, 226, 283, 286, 158, 34, 61,
        247,
        # the one socket there is, and the end
        44, 45, 46, 47, 48, 51, 52, 55, 60, 219, 231,
    ),
    "aarch64": (
        63, 64, 57, 80, 62, 67, 68, 65, 66, 23, 24, 20, 21, 22, 72, 73, 19, 59, 69, 70, 436,
        48, 71, 82, 83, 46, 17, 49, 50, 34, 35, 36, 37, 38, 43, 44, 47, 61, 78, 79,
        166, 223, 276, 291, 439,
        222, 226, 215, 214, 216, 227, 232, 233, 228, 229, 134, 135, 139, 136, 137, 133, 132, 124,
        98, 96, 99, 100, 168, 283, 293, 449, 121, 120, 125, 126, 236,
        172, 169, 165, 179, 153, 160, 174, 176, 175, 177, 173, 158, 148, 150, 155, 156, 178, 113,
        114, 115, 101, 278, 102, 103, 107, 108, 110, 111, 85, 86, 260, 95,
        206, 207, 211, 212, 210, 204, 205, 209, 93, 128, 94,
    ),
}  # fmt: skip

# Answered with success, and nothing is done. Landlock knows no rule for the mode and the times of
# a file, so these would reach every file of the grading user; but honest code calls them on its
# own: shutil.copy, the library when it saves weights. chmod, fchmod, fchmodat, fchmodat2,
# utimensat; and flock, for a lock on what everybody reads would hold up others.
_PRETENDED = {"x86_64": (90, 91, 268, 452, 280, 73), "aarch64": (52, 53, 452, 88, 32)}

# What does exist, and is not for the learner: "not permitted" says more than "no such call".
# truncate by path is among it: Landlock lets that by before Linux 6.2.
_REFUSED = {
    "x86_64": (
        41, 42, 43, 49, 50, 53, 56, 57, 58, 59, 62, 76, 101, 157, 129, 155, 161, 165, 166, 200, 272,
        288, 297, 308, 319, 321, 322, 424, 425, 434, 438,
    ),
    "aarch64": (
        45, 198, 199, 200, 201, 202, 203, 242, 220, 221, 129, 130, 138, 240, 117, 167, 40, 39, 97,
        268, 279, 280, 281, 424, 425, 434, 438,
    ),
}  # fmt: skip


def available() -> bool:
    """Whether this kernel has filters, on a machine whose calls are known."""
    try:
        syscall("seccomp", 2, 0, ctypes.create_string_buffer(struct.pack("=I", _KILL)))
    except OSError:
        return False
    return True


def restrict() -> None:
    """Put the filter over this process and all its threads. Needs `no_new_privs`.

    Raises:
        OSError: when the kernel has no filters, or the machine's calls are not known.
    """
    program = _program()
    code = ctypes.create_string_buffer(b"".join(program))
    header = struct.pack("=HxxxxxxQ", len(program), ctypes.addressof(code))
    all_threads = 1
    syscall("seccomp", 1, all_threads, ctypes.create_string_buffer(header))


def _program() -> list[bytes]:
    """A classic BPF program that goes through the lists, one comparison a call."""
    load, equal, any_bit, at_least, keep_bits, give = 0x20, 0x15, 0x45, 0x35, 0x54, 0x06

    def line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, value)

    refuse = line(give, _ERROR | errno.EPERM)
    unknown = line(give, _ERROR | errno.ENOSYS)
    allow = line(give, _ALLOW)
    number, architecture, first_argument, per_argument = 0, 4, 16, 8
    pretend = line(give, _ERROR | 0)
    program = [
        line(load, architecture),
        line(equal, _AUDIT_ARCH[ARCHITECTURE], 1, 0),
        line(give, _KILL),
        line(load, number),
        # x86-64's calls with 32-bit pointers have numbers from 2³⁰ on.
        line(at_least, 0x40000000, 0, 1),
        unknown,
        # A new thread is fine, a new process is not.
        line(equal, _CLONE[ARCHITECTURE], 0, 4),
        line(load, first_argument),
        line(any_bit, _CLONE_THREAD, 1, 0),
        refuse,
        allow,
    ]

    def only(call: int, values: Sequence[int], argument: int = 0) -> None:
        """Allow a call if this argument of it, of 32 bits, is one of these."""
        program.append(line(equal, call, 0, 3 + len(values)))
        program.append(line(load, first_argument + argument * per_argument))
        program.extend(line(equal, value, len(values) - i, 0) for i, value in enumerate(values))
        program.extend((refuse, allow))

    def opening(call: int, argument: int) -> None:
        """Allow to open what Landlock then looks at, by the flags in this argument.

        Landlock asks for the right to read or to write by the access mode. Mode 3 (ioctl only) is
        neither, so it would open anything; and before Linux 6.2 O_TRUNC empties a file that is
        opened for reading only.
        """
        flags = line(load, first_argument + argument * per_argument)
        program.extend(
            (
                line(equal, call, 0, 8),
                flags,
                line(keep_bits, os.O_ACCMODE),
                line(equal, os.O_ACCMODE, 4, 0),
                line(equal, os.O_RDONLY, 0, 2),
                flags,
                line(any_bit, os.O_TRUNC, 1, 0),
                allow,
                refuse,
            )
        )

    only(_PRCTL[ARCHITECTURE], _PRCTL_OPTIONS)
    only(_TGKILL[ARCHITECTURE], (os.getpid(),))
    only(_FCNTL[ARCHITECTURE], _FCNTL_COMMANDS, argument=1)
    only(_IOCTL[ARCHITECTURE], _IOCTL_REQUESTS, argument=1)
    for call in _ON_ONESELF[ARCHITECTURE]:
        only(call, (0, os.getpid()))
    for call, argument in _OPEN[ARCHITECTURE]:
        opening(call, argument)
    for call in sorted(set(_ALLOWED[ARCHITECTURE])):
        program += [line(equal, call, 0, 1), allow]
    for call in _PRETENDED[ARCHITECTURE]:
        program += [line(equal, call, 0, 1), pretend]
    for call in _REFUSED[ARCHITECTURE]:
        program += [line(equal, call, 0, 1), refuse]
    return [*program, unknown]
