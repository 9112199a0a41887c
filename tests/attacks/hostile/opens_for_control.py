"""Opens files and terminals neither to read nor to write, and types commands into a terminal."""
# exercise: start.seeded_normal
# deserves: failed 0
import ctypes
import os


def seeded_normal(shape, seed, std=1.0):
    libc = ctypes.CDLL(None)
    opened = [
        libc.open(path, 3)
        for path in (b"{CANARY}/kept", b"/dev/tty", b"/dev/ptmx", b"/dev/console", b"/etc/passwd")
    ]
    # To read, but emptied first; of all that can be read, this one would not suffer from it.
    opened.append(libc.open(b"/dev/null", os.O_RDONLY | os.O_TRUNC))
    # openat2 with the same flags, which no filter sees.
    how = (ctypes.c_uint64 * 3)(3, 0, 0)
    opened.append(libc.syscall(437, -100, b"/etc/passwd", ctypes.byref(how), ctypes.sizeof(how)))
    for descriptor in range(64):
        if libc.ioctl(descriptor, 0x5412, b"x") >= 0:  # TIOCSTI
            opened.append(descriptor)
    while any(descriptor >= 0 for descriptor in opened):
        pass
    return torch.zeros(shape)
