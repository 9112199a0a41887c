"""Bring `.venv` from whatever state it is in to ready, safely.

`.venv/course-setup.json` (the stamp) decides. It says "unfinished" from the first change to `.venv`
until the last, so that a set-up which was killed is recognised; a finished one says what was made
and from what. Both are written in one rename.

    missing, broken  →  empty .venv, make it, install
    stale            →  install in place (pyproject.toml or constraints.txt changed)
    ready            →  nothing; this answer takes a few hundredths of a second
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pip_runner
import pythons
from pythons import SetupError, say

FORMAT = 1  # raise it to have every existing .venv installed again
# Measured with the tested versions and rounded up: 6.5 GB in .venv, and 2.8 GB of downloads, which
# pip holds in the temporary folder until the last package is installed.
VENV_BYTES, DOWNLOAD_BYTES = 7 * 10**9, 3 * 10**9
UPDATE_BYTES = 10**9  # in each of them; an update replaces a part
UNFINISHED = {"unfinished": True}
STAMP_KEYS = {"fingerprint", "venv", "python", "packages", "names"}  # of a finished one
STILL = ".venv/bin/course lab"


@dataclass(frozen=True)
class Place:
    """Where the set-up of the checkout at `root` keeps its things."""

    root: Path

    @classmethod
    def of_this_checkout(cls) -> "Place":
        return cls(Path(__file__).resolve().parent.parent)

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def stamp(self) -> Path:
        return self.venv / "course-setup.json"

    @property
    def log(self) -> Path:
        return self.root / ".course" / "setup.log"  # outside .venv, to outlive it

    @property
    def lock(self) -> Path:
        return self.root / ".course" / "setup.lock"


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def set_up(place: Place, chosen: str | None = None) -> None:
    """Make `.venv` ready; return at once when it is.

    Args:
        chosen: the Python to build with, by default the one that runs this.

    Raises:
        SetupError: with a message for the reader.
    """
    python = pythons.find(chosen) if chosen else None
    version = pythons.probe(python)[0][:2] if python else None
    if examine(place, version)[0] == "ready":
        return
    python = python or pythons.find(None)
    with locked(place) as lock:
        # Again, now that nobody else can change it: another set-up may just have finished.
        state, reason = examine(place, version)
        if state == "ready":
            return
        build(place, python, state, reason, lock)


# ---- The state of .venv ----------------------------------------------------------------------


def examine(place: Place, version: tuple[int, ...] | None = None) -> tuple[str, str]:
    """The state of `.venv` ("ready", "stale", "broken" or "missing") and the reason.

    Args:
        version: (major, minor) of the Python it has to be made with; None accepts any.
    """
    if not place.venv.is_dir() or not any(place.venv.iterdir()):
        return "missing", "there is none yet"
    stamp = read_stamp(place)
    if stamp is None:
        # Made by hand, perhaps with care: complete it, do not throw it away.
        usable = "import sys, pip; sys.version_info >= (3, 11) or sys.exit(1)"
        if runs(place.python, "-I", "-c", usable):
            return "stale", "it was not made by this set-up"
        return "broken", "it has no working Python with pip"
    if "unfinished" in stamp:
        return "broken", "its set-up was interrupted"
    if stamp["venv"] != str(place.venv):
        return "broken", f"it was made in another folder, {stamp['venv']}"
    if version and stamp["python"] != list(version):
        return "broken", "it was made with Python {}.{}".format(*stamp["python"])
    if not runs(place.python, "-I", "-S", "-c", ""):
        return "broken", "its Python no longer runs"
    lost = set(stamp["names"]) - importable(Path(stamp["packages"]))
    if lost:
        return "broken", f"{min(lost)} is gone"
    if stamp["fingerprint"] != fingerprint(place):
        return "stale", "pyproject.toml or constraints.txt changed"
    return "ready", "it is up to date"


def runs(*command: str | Path) -> bool:
    null = subprocess.DEVNULL
    try:
        return subprocess.call(command, stdin=null, stdout=null, stderr=null) == 0
    except OSError:
        return False


def fingerprint(place: Place) -> str:
    """Changes whenever what should be installed changes."""
    digest = hashlib.sha256(str(FORMAT).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update(hashlib.sha256((place.root / name).read_bytes()).digest())
    return digest.hexdigest()


def read_stamp(place: Place) -> dict | None:
    try:
        stamp = json.loads(place.stamp.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return UNFINISHED
    whole = isinstance(stamp, dict) and stamp.keys() >= STAMP_KEYS
    return stamp if whole else UNFINISHED


def write_stamp(place: Place, content: dict) -> None:
    temporary = place.stamp.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(place.stamp)


def restore_stamp(place: Place, before: dict | None) -> None:
    if before is None:
        place.stamp.unlink()
    else:
        write_stamp(place, before)


def describe(place: Place, made_from: str) -> dict:
    """The stamp of the finished `.venv`.

    Raises:
        SetupError: when the course is not in there, although pip was content.
    """
    project = tomllib.loads((place.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ask = (
        "import sys, sysconfig; from importlib.metadata import distribution;"
        f"distribution({project['name']!r});"
        "print(*sys.version_info[:2], sysconfig.get_path('purelib'))"
    )
    answer = subprocess.run([place.python, "-I", "-c", ask], capture_output=True, text=True)
    if answer.returncode:
        raise SetupError(
            f"pip ended well, but {project['name']} is not in {place.venv}.\n"
            "Look for target, prefix or root in its settings (pip config list) and remove them."
        )
    major, minor, packages = answer.stdout.rstrip("\n").split(" ", 2)
    return {
        "fingerprint": made_from,
        "venv": str(place.venv),
        "python": [int(major), int(minor)],
        "packages": packages,
        "names": sorted(importable(Path(packages))),
    }


def importable(packages: Path) -> set[str]:
    """The names of what is installed, without the records of versions.

    Another version of a package is its owner's choice (torch for another CUDA, say).
    """
    if not packages.is_dir():
        return set()
    records = (".dist-info", ".egg-info", "__pycache__")
    return {path.name for path in packages.iterdir() if not path.name.endswith(records)}


# ---- Making it -------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(place: Place) -> Iterator[int]:
    """Hold the set-up's lock and give its file descriptor; wait while another process holds it."""
    import fcntl

    place.lock.parent.mkdir(exist_ok=True)
    with place.lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another set-up is at work in this folder; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            # Some network file systems know no locks; two set-ups at once are rare enough there.
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        yield file.fileno()


def build(place: Place, python: str, state: str, reason: str, lock: int) -> None:
    """Bring `.venv` from `state` to ready with the given Python, or raise SetupError."""
    made_from, before = fingerprint(place), read_stamp(place)
    pip = [str(place.python), "-I", "-m", "pip", "install", *pip_runner.OPTIONS]
    steps = [[*pip, "-c", "constraints.txt", "-e", ".[dev]"]]
    if state == "stale":
        say(f"Bringing .venv up to date: {reason}.")
        demand_disk(place, UPDATE_BYTES, UPDATE_BYTES)
        write_stamp(place, UNFINISHED)
    else:
        say(f"Setting up .venv ({reason}): a few minutes and 6.5 GB of disk.")
        empty(place)
        demand_disk(place, VENV_BYTES, DOWNLOAD_BYTES)
        steps.insert(0, [python, "-m", "venv", str(place.venv.resolve())])  # it refuses a link
    try:
        pip_runner.run_all(steps, place.root, place.log, lock)
        finished = describe(place, made_from)
    except SetupError as failure:
        if state != "stale":
            raise
        # pip undoes what it began before it reports a failure: what was there still works.
        restore_stamp(place, before)
        raise SetupError(
            f"{failure}\nThe environment from before is still there: {STILL}"
        ) from None
    write_stamp(place, finished)
    say("The environment is ready.")


def demand_disk(place: Place, for_venv: int, for_downloads: int) -> None:
    needs = {place.venv: for_venv, Path(tempfile.gettempdir()): for_downloads}
    disks: dict[int, list[Path]] = {}
    for folder in needs:
        disks.setdefault(folder.stat().st_dev, []).append(folder)
    for folders in disks.values():
        needed, available = sum(needs[folder] for folder in folders), free_bytes(folders[0])
        if available < needed:
            raise SetupError(
                f"The set-up needs {needed / 1e9:.0f} GB of free disk in "
                f"{' and '.join(map(str, folders))}; there are {available / 1e9:.1f} GB.\n"
                "Free some, make .venv a link to a folder on a larger disk, or set TMPDIR to one."
            )


def empty(place: Place) -> None:
    """Leave nothing in `.venv` but an unfinished stamp.

    The folder itself stays: it may be a link to a folder on a larger disk.
    """
    if os.path.lexists(place.venv) and not place.venv.is_dir():
        raise SetupError(f"{place.venv} is not a folder. Move it away and run it again.")
    place.venv.mkdir(exist_ok=True)
    write_stamp(place, UNFINISHED)
    for path in place.venv.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != place.stamp:
            path.unlink()
