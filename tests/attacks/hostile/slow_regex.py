"""Spends a lifetime in a regular expression."""
# exercise: start.seeded_normal
# deserves: timeout 0
import re


def seeded_normal(shape, seed, std=1.0):
    return re.match(r"(a+)+$", "a" * 60 + "b")
