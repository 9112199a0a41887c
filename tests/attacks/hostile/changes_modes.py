"""Changes the mode, the times and the size of files that are not its own."""
# exercise: start.seeded_normal
# deserves: forbidden 0
import ctypes
import os

libc = ctypes.CDLL(None)
for path in ("{CANARY}/kept", "{CANARY}"):
    name = path.encode()
    for change in (
        lambda: os.chmod(path, 0o777),
        lambda: os.utime(path, (1, 1)),
        lambda: os.chown(path, 1, 1),
        lambda: os.truncate(path, 0),
        lambda: os.setxattr(path, "user.x", b"x"),
        lambda: os.close(os.open(path, os.O_RDONLY | os.O_TRUNC)),
        lambda: os.close(os.open(path, 3 | os.O_TRUNC)),
    ):
        try:
            change()
        except OSError:
            pass
    libc.chmod(name, 0o777)
    libc.fchmodat(-100, name, 0o777, 0)
    libc.syscall(452, -100, name, 0o777, 0)
    libc.utimes(name, None)
    libc.utimensat(-100, name, None, 0)
    libc.truncate(name, ctypes.c_long(0))


def seeded_normal(shape, seed, std=1.0):
    return torch.zeros(shape)
