"""Writes to its scratch folder until nothing goes in any more."""
# exercise: start.seeded_normal
# deserves: failed 0
def seeded_normal(shape, seed, std=1.0):
    for number in range(200):
        with open(f"part-{number}", "wb") as part:
            part.write(b"x" * 8 * 2**20)
