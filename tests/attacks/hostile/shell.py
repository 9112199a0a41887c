"""Starts a shell."""
# exercise: start.seeded_normal
# deserves: forbidden 0
import subprocess

subprocess.run("id > {CANARY}/id; cat /etc/passwd", shell=True)


def seeded_normal(shape, seed, std=1.0):
    return torch.zeros(shape)
