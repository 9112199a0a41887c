"""Catches everything, and goes on."""
# exercise: start.seeded_normal
# deserves: timeout 0
def seeded_normal(shape, seed, std=1.0):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
