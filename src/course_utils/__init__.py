"""The course's shared package: reference implementations, exercise engine, trainer, data.

Importing it costs next to nothing; torch is imported by the parts that need it.
"""

import os
from importlib import import_module
from typing import Any

__version__ = "0.2.0"

# OpenMP reads this when torch is first imported. Its threads would otherwise spin while they wait
# for each other, and on a machine that does something else as well, small training steps then took
# ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# What every notebook uses, by the module that defines it; resolved on first use.
_EXPORTS = {
    "check": "course_utils.exercises.check",
    "verified": "course_utils.exercises.check",
    "budget": "course_utils.base.profile",
}
__all__ = ["__version__", "budget", "check", "verified"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'course_utils' has no attribute {name!r}")
