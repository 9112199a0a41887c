"""Kills itself in the middle of a check."""
# exercise: start.seeded_normal
# deserves: forbidden 0
import os
import signal


def seeded_normal(shape, seed, std=1.0):
    os.kill(os.getpid(), signal.SIGKILL)
