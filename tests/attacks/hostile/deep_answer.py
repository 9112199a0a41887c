"""Answers with a list nested a hundred thousand times."""
# exercise: start.seeded_normal
# deserves: failed 0
def seeded_normal(shape, seed, std=1.0):
    nested = []
    for _ in range(100_000):
        nested = [nested]
    return nested
