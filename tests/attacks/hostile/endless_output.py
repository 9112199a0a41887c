"""Prints without end."""
# exercise: start.seeded_normal
# deserves: timeout 0
import os
import sys


def seeded_normal(shape, seed, std=1.0):
    while True:
        print("spam " * 1000)
        os.write(1, b"spam " * 1000)
        sys.__stderr__.write("spam " * 1000)
