"""Allocates memory in small pieces until there is none."""
# exercise: start.seeded_normal
# deserves: memory 0
def seeded_normal(shape, seed, std=1.0):
    kept = []
    while True:
        kept.append(bytes(64 * 2**20))
