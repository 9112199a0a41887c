"""Which references of its own lesson an exercise is built on.

`LoRALinear` asks its settings for their scale, and how to compute that is a later exercise of the
same lesson. So while the layer is judged the sandbox needs the library's `lora_scale`; and while
that one is judged, it must not be there. This finds out by running the reference and watching.
"""

import sys
from functools import cache
from types import CodeType, FrameType
from typing import Any

import torch

from course_utils.exercises.exercise import Exercise


@cache
def borrowed(exercise: Exercise, later: tuple[Exercise, ...]) -> tuple[Exercise, ...]:
    """Those of the `later` exercises whose references this exercise's own one calls."""
    own = _codes(exercise.target, ())
    theirs = {code: other for other in later for code in _codes(other.target, other.holes)}
    if not theirs:
        return ()
    found: dict[str, Exercise] = {}
    inside = 0

    def watch(frame: FrameType, event: str, _: Any) -> None:
        nonlocal inside
        code = frame.f_code
        if event == "call":
            if code in own:
                inside += 1
            if inside and code in theirs and code not in own:
                found[theirs[code].id] = theirs[code]
        elif event == "return" and code in own:
            inside -= 1

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        for check in exercise.checks:
            inside = 0
            sys.setprofile(watch)
            try:
                check(exercise.target, torch.Generator().manual_seed(0))
            finally:
                sys.setprofile(None)
    return tuple(found.values())


def _codes(target: Any, methods: tuple[str, ...]) -> set[CodeType]:
    """The code of a function, or of a class's methods (all, or those named)."""
    members = [target]
    if isinstance(target, type):
        members = [value for name, value in vars(target).items() if not methods or name in methods]
    codes = set()
    for member in members:
        function = getattr(member, "__func__", getattr(member, "fget", member))
        while hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        code = getattr(function, "__code__", None)
        if code is not None:
            codes.add(code)
    return codes
