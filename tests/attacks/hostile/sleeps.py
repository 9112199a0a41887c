"""Waits for ever, without using the processor."""
# exercise: start.seeded_normal
# deserves: timeout 0
import time


def seeded_normal(shape, seed, std=1.0):
    time.sleep(10**6)
