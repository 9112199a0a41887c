"""Reloads the reference's module from its file."""
# exercise: start.seeded_normal
# deserves: forbidden 0
import importlib.machinery
import importlib.util
import sys

path = sys.modules["course_utils.training.parts.seeding"].__spec__.origin
spec = importlib.util.spec_from_file_location("copy", path)
copy = importlib.util.module_from_spec(spec)
source = open(path).read()
exec(source, copy.__dict__)
seeded_normal = copy.seeded_normal
