"""How much a lesson may do: the same notebook runs in a test, on a laptop and on a rented GPU.

`COURSE_PROFILE` says which; without it the machine decides.

    smoke   seconds: enough to see that every line runs (tests, CI)
    cpu     a few minutes on two processor cores
    gpu     the same minutes on a GPU, with more data and larger models
"""

import os
from functools import cache
from typing import Literal, TypeVar, get_args

from course_utils.base.errors import CourseError

Profile = Literal["smoke", "cpu", "gpu"]
T = TypeVar("T")


def profile() -> Profile:
    """The profile in force.

    Raises:
        CourseError: when `COURSE_PROFILE` names none.
    """
    chosen = os.environ.get("COURSE_PROFILE")
    if not chosen:
        return _detected()
    for known in get_args(Profile):
        if chosen == known:
            return known
    raise CourseError(
        f"COURSE_PROFILE={chosen} is not a profile. Set it to smoke, cpu or gpu, or unset it."
    )


def budget(*, smoke: T, cpu: T, gpu: T | None = None) -> T:
    """The value for the profile in force, such as a number of steps; `gpu` defaults to `cpu`'s."""
    match profile():
        case "smoke":
            return smoke
        case "gpu" if gpu is not None:
            return gpu
        case _:
            return cpu


@cache
def _detected() -> Profile:
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"
