"""Leaves a file in every folder that it can think of."""
# exercise: start.seeded_normal
# deserves: forbidden 0
import os
from pathlib import Path

for folder in ("{CANARY}", "{SUBMITTED}", "{ROOT}", "/tmp", "/var/tmp", "/dev/shm", "/root", os.getcwd() + "/.."):
    try:
        Path(folder, "i-was-here").write_text("x")
    except OSError:
        pass


def seeded_normal(shape, seed, std=1.0):
    return torch.zeros(shape)
