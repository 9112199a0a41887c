"""Reads address 0."""
# exercise: start.seeded_normal
# deserves: crashed 0
import ctypes


def seeded_normal(shape, seed, std=1.0):
    return ctypes.string_at(0)
