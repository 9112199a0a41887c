"""Imports the library's own seeded_normal."""
# exercise: start.seeded_normal
# deserves: forbidden 0
from course_utils.training.parts.seeding import seeded_normal
