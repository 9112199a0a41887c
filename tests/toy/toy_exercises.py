"""Exercises on the toy library."""

import torch
from toy_library import Counter, mean_of_rows, random_rows

from course_utils.exercises import Exercise, Mutant, assert_close, assert_equal


def equals_torch(student, rng):
    """Equals torch's mean."""
    x = random_rows(rng)
    assert_close(student(x), x.mean(dim=1), "the means differ")


def scales(student, rng):
    """Multiplies by `scale`."""
    x = random_rows(rng)
    assert_close(student(x, scale=2.0), 2 * x.mean(dim=1), "the scaled means differ")


MEAN = Exercise(
    id="toy.mean_of_rows",
    reference="toy_library:mean_of_rows",
    title="Mean of rows",
    points=4,
    minutes=2,
    difficulty=1,
    checks=(equals_torch, scales),
    mutants=(
        Mutant("You averaged the columns.", "dim=0 comes first", ("dim=1", "dim=0")),
        Mutant("You forgot the scale.", "it is 1 by default", (" * scale", "")),
        Mutant("You divided by the rows.", "shape[0] comes first", ("x.shape[1]", "x.shape[0]")),
        Mutant("You took the sum.", "the mean is a sum", (" / x.shape[1]", "")),
    ),
    hints=("Look at dim.", "Sum, then divide."),
)


def counts(student, rng):
    """Counts up from its start."""
    start = int(torch.randint(1, 9, (), generator=rng))
    counter = student(start)
    assert_equal(counter.step(), start + 1, "one step")
    assert_equal(counter.step(3), start + 4, "a step of three")


COUNTER = Exercise(
    id="toy.counter",
    reference="toy_library:Counter",
    title="A counter",
    points=1,
    minutes=2,
    difficulty=1,
    checks=(counts,),
    mutants=(Mutant("You forgot `by`.", "1 is the default", ("+= by", "+= 1")),),
    hints=("Add.",),
    holes=("step",),
)

__all__ = ["COUNTER", "MEAN", "Counter", "mean_of_rows"]
