"""Raises the course's own CheckFailure and hopes that it counts as something else."""
# exercise: start.seeded_normal
# deserves: failed 0
from course_utils.exercises import CheckFailure


class Passed(CheckFailure):
    status = "passed"
    passed = True


def seeded_normal(shape, seed, std=1.0):
    raise Passed("passed", 1.0, 1.0)
