"""Sends four gigabytes of promises and then noise over the pipe."""
# exercise: start.seeded_normal
# deserves: crashed 0
import os


def seeded_normal(shape, seed, std=1.0):
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"\xff" * 65536)
        except OSError:
            pass
