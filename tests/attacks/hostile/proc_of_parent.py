"""Walks through /proc to read the memory, environment and files of other processes."""
# exercise: start.seeded_normal
# deserves: forbidden 0
import os

for process in ("1", "self", "thread-self", str(os.getppid())):
    for name in ("environ", "maps", "mem", "cmdline", "root", "cwd", "fd"):
        try:
            open(f"/proc/{process}/{name}", "rb").read(10)
        except OSError:
            pass


def seeded_normal(shape, seed, std=1.0):
    return torch.zeros(shape)
