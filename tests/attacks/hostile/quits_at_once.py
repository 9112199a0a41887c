"""Leaves by os._exit while its cell runs."""
# exercise: start.seeded_normal
# deserves: crashed 0
import os

os._exit(0)
