"""Allocates 100 GB in one piece."""
# exercise: start.seeded_normal
# deserves: memory 0
def seeded_normal(shape, seed, std=1.0):
    return torch.empty(100 * 2**30, dtype=torch.uint8).fill_(1)
