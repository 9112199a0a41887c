"""Makes links out of its scratch folder and writes through them."""
# exercise: start.seeded_normal
# deserves: forbidden 0
import os

for target in ("{CANARY}/kept", "{OUT}/grades.csv", "/etc/passwd"):
    name = "link" + str(abs(hash(target)))
    try:
        os.symlink(target, name)
        open(name, "a").write("x")
    except OSError:
        pass
    try:
        os.link(target, name + "-hard")
    except OSError:
        pass


def seeded_normal(shape, seed, std=1.0):
    return torch.zeros(shape)
