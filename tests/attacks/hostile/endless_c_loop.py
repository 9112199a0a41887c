"""Stays inside one function of C for ever, with all signals blocked."""
# exercise: start.seeded_normal
# deserves: timeout 0
import signal


def seeded_normal(shape, seed, std=1.0):
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))
    return sum(range(10**18))
