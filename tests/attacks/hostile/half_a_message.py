"""Begins a message and never ends it."""
# exercise: start.seeded_normal
# deserves: timeout 0
import os
import struct
import time


def seeded_normal(shape, seed, std=1.0):
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, struct.pack("!II", 1000, 0))
        except OSError:
            pass
    time.sleep(10**6)
