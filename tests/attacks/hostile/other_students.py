"""Copies the solution of another student."""
# exercise: start.seeded_normal
# deserves: forbidden 0
import json

cells = json.load(open("{SUBMITTED}/anna/00_start_here/00_start_here.ipynb"))["cells"]


def seeded_normal(shape, seed, std=1.0):
    return torch.zeros(shape)
