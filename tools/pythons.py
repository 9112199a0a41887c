"""Find a Python that can carry the course, or say what is missing. Runs on Python 3.6."""

import shutil
import subprocess
import sys

MINIMUM = (3, 11)
OTHERS = ("python3.12", "python3.13", "python3.11", "python3.14")
NAME_ONE = "make setup PYTHON=/path/to/python3.12"

# In an activated environment, the Python it was made with: .venv must not be rebuilt from itself.
PROBE = """
import sys
print("%d.%d.%d" % tuple(sys.version_info[:3]))
import ensurepip, venv
print(getattr(sys, "_base_executable", None) or sys.executable)
"""


class SetupError(Exception):
    """What is wrong and what to do about it, in one or two lines for the person at the keyboard."""


def say(text: str) -> None:
    print(text, file=sys.stderr)
    sys.stderr.flush()


def find(chosen: "str | None") -> str:
    """The path of the Python to build with.

    Args:
        chosen: the one the reader named with `PYTHON=`; otherwise it is the Python that runs this,
            or the first on PATH that will do.

    Raises:
        SetupError: when none is new enough, or none can make virtual environments.
    """
    found = []
    for name in [chosen] if chosen else [sys.executable, *OTHERS]:
        version, python = probe(name)
        if version >= MINIMUM and python:
            return python
        if version:
            found.append((version, shutil.which(name) or name))
    raise SetupError(explain(chosen, found))


def probe(command: str) -> "tuple[tuple[int, ...], str]":
    """A Python's version, () if it does not run, and its path, "" if it cannot make a venv."""
    try:
        answer = subprocess.check_output(
            [command, "-c", PROBE], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except subprocess.CalledProcessError as failure:
        answer = failure.output
    except OSError:
        return (), ""
    version, _, path = answer.decode("utf-8", "replace").partition("\n")
    # Empty: a shim of pyenv, say, for a version that is not switched on.
    return tuple(int(part) for part in version.split(".") if part), path.strip()


def explain(chosen: "str | None", found: "list[tuple[tuple[int, ...], str]]") -> str:
    if not found:
        command = f"PYTHON={chosen}" if chosen else "python3"
        return f"{command} does not run as Python. Name one that does: {NAME_ONE}"
    version, path = max(found)
    dotted = ".".join(str(number) for number in version)
    if version >= MINIMUM:
        return (
            f"Python {dotted} ({path}) has no working venv module.\nOn Debian and Ubuntu: "
            f"sudo apt install python{version[0]}.{version[1]}-venv. Then run it again."
        )
    needed = ".".join(str(number) for number in MINIMUM)
    return (
        f"The course needs Python {needed} or newer; {path} is Python {dotted}.\n"
        f"Install a newer one, or say where it is: {NAME_ONE}"
    )
