"""Leaves by os._exit(0), as if all were well."""
# exercise: start.seeded_normal
# deserves: crashed 0
import os


def seeded_normal(shape, seed, std=1.0):
    os._exit(0)
