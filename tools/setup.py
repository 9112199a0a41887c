"""Bring `.venv` from whatever state it is in to ready; `make` runs this before anything else.

    missing, broken  ->  make .venv anew, install requirements.lock and the course
    stale            ->  install in place (pyproject.toml or requirements.lock changed)
    ready            ->  nothing

`.venv/course-setup.json` (the stamp) decides. It says "unfinished" from the first change to `.venv`
until the last, so that a set-up which was killed is recognised. uv does the work: it checks every
file against the lock's hashes and links packages from its cache, so a second clone takes seconds.
This file uses only what Python 3.6 understands: an old Python can say that it is too old.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

FORMAT = 2  # raise it to have every existing .venv installed again
MINIMUM = [3, 11]
UV = "uv>=0.9,<1"
DISK_GB, DISK_GB_LINKED = 10, 1  # 6.5 GB of packages and 3 GB of downloads; less if all is cached
STAMP_KEYS = {"fingerprint", "venv", "python", "packages", "names"}  # of a finished one
TOO_OLD = (
    "The course needs Python 3.11 or newer; {} is Python {}.\n"
    "Install a newer one, or say where it is: make setup PYTHON=/path/to/python3.12"
)
NETWORK = ("error sending request", "dns error", "Failed to fetch", "onnect", "timed out")
ASK = "import sys; print(*sys.version_info[:2])"
NO_ROOM = "The set-up needs {} GB of free disk in {}; there are {:.1f} GB. Free some first."
NO_VENV = "{} cannot make environments: sudo apt install python3-venv, or put uv on PATH."


class SetupError(Exception):
    """What is wrong and what to do about it, in one or two lines for the person at the keyboard."""


class Place:
    """Where the set-up of the checkout at `root` keeps its things."""

    def __init__(self, root):
        self.root, self.venv, self.own = root, root / ".venv", root / ".course"
        self.python, self.stamp = self.venv / "bin" / "python", self.venv / "course-setup.json"
        self.log = self.own / "setup.log"  # outside .venv, to outlive it

    def fingerprint(self):
        """Changes whenever what should be installed changes."""
        digest = hashlib.sha256(str(FORMAT).encode())
        for name in ("pyproject.toml", "requirements.lock"):
            digest.update(hashlib.sha256((self.root / name).read_bytes()).digest())
        return digest.hexdigest()

    def read_stamp(self):
        try:
            stamp = json.loads(self.stamp.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) and stamp.keys() >= STAMP_KEYS else {}

    def write_stamp(self, content):
        temporary = self.stamp.with_suffix(".new")
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(self.stamp)


def say(text):
    print(text, file=sys.stderr, flush=True)


def examine(place, version=None):
    """The state of `.venv` and the reason; `version` is the Python it has to be made with."""
    if not place.venv.is_dir() or not any(place.venv.iterdir()):
        return "missing", "there is none yet"
    stamp = place.read_stamp()
    if stamp is None:  # made by hand, perhaps with care: complete it, do not throw it away
        if version_of(str(place.python)) >= MINIMUM:
            return "stale", "it was not made by this set-up"
        return "broken", "it has no working Python of version 3.11 or newer"
    if not stamp:
        return "broken", "its set-up was interrupted"
    if stamp["venv"] != str(place.venv):
        return "broken", "it was made in another folder, " + stamp["venv"]
    if version and stamp["python"] != version:
        return "broken", "it was made with Python " + ".".join(map(str, stamp["python"]))
    if not version_of(str(place.python)):
        return "broken", "its Python no longer runs"
    lost = set(stamp["names"]) - importable(Path(stamp["packages"]))
    if lost:
        return "broken", min(lost) + " is gone"
    if stamp["fingerprint"] != place.fingerprint():
        return "stale", "pyproject.toml or requirements.lock changed"
    return "ready", ""


def importable(packages):
    """Names of what is installed, without versions: another torch is its owner's choice."""
    found = packages.iterdir() if packages.is_dir() else []
    return {p.name for p in found if not p.name.endswith(("-info", "__pycache__"))}


def version_of(python):
    """A Python's [major, minor]; [] if it does not run."""
    try:
        command = [python, "-I", "-S", "-c", ASK]
        answer = subprocess.check_output(command, stderr=subprocess.DEVNULL)
        return list(map(int, answer.split()))
    except (OSError, ValueError, subprocess.CalledProcessError):
        return []


def find_uv(place):
    """uv from PATH, or from PyPI into a small folder beside the course."""
    own = place.own / "uv" / "bin" / "uv"
    for command in (shutil.which("uv"), str(own)):
        if command and shutil.which(command):
            return command
    if sys.version_info < (3, 8):
        raise SetupError(TOO_OLD.format(sys.executable, sys.version.split()[0]))
    folder = str(place.own / "uv")
    if run(place, [sys.executable, "-m", "venv", folder]):
        raise SetupError(NO_VENV.format(sys.executable))
    fail(place, run(place, [folder + "/bin/python", "-m", "pip", "install", "--no-input", UV]))
    return str(own)


def run(place, command):
    """Run a command; its lines if it fails.

    In a terminal uv draws its own progress, as fractions. Elsewhere, and to learn why a command
    failed, its lines are read: a second run stops at once for the same reason.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_T"))}
    if "PIP_INDEX_URL" in environment:
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    how = {"cwd": str(place.root), "env": environment, "stdin": subprocess.DEVNULL}
    if sys.stderr.isatty() and subprocess.call(command, **how) == 0:
        return []
    how.update(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    process = subprocess.Popen(command, errors="replace", **how)
    lines, begun, arrived = [], 0, 0
    with place.log.open("a", encoding="utf-8") as log:
        for line in process.stdout:
            log.write(line)
            lines.append(line.rstrip())
            begun += line.startswith("Downloading ")
            if line.startswith(" Downloaded "):
                arrived += 1
                say(f"  {arrived} of {begun} large packages: {line.split()[-1]}")
    return [] if process.wait() == 0 else list(filter(None, lines)) or [f"{command[0]} failed"]


def fail(place, lines):
    """Raise what a failed command's last lines mean; nothing for no lines."""
    if not lines:
        return
    text = "\n".join(lines)
    if "No space left on device" in text:
        says = "The disk filled up. Free some space and run it again."
    elif "not a virtual environment" in text:
        says = f"{place.venv} is no environment. Move it away and run it again."
    elif "ash mismatch" in text:
        says = "A download is not the file that requirements.lock names:\n" + text
    elif any(sign in text for sign in NETWORK):
        says = "The package index cannot be reached: no network, or a proxy in between?\n"
        says += "Run it again when it is back; what has arrived is kept."
    else:
        says = "\n  ".join(["The packages could not be installed:", *lines[-6:]])
    raise SetupError(f"{says}\nThe full log is in {os.path.relpath(str(place.log))}.")


def build(place, chosen, state, reason):
    """Bring `.venv` from `state` to ready."""
    made_from, before = place.fingerprint(), place.read_stamp()
    place.log.write_text("")
    uv = find_uv(place)
    cached = Path(subprocess.check_output([uv, "cache", "dir"]).decode().strip())
    cached /= "course-" + made_from[:16]
    needed = DISK_GB_LINKED if state == "stale" or cached.exists() else DISK_GB
    free = shutil.disk_usage(str(place.root)).free / 1e9
    if free < needed:
        raise SetupError(NO_ROOM.format(needed, place.root, free))
    if state == "stale":
        say(f"Bringing .venv up to date: {reason}.")
    else:
        say(f"Setting up .venv ({reason}): 6.5 GB, which clones share where they can.")
        # uv finds a Python that is new enough, or fetches one.
        make = [uv, "venv", "--clear", "--python", chosen or ">=3.11"]
        fail(place, run(place, [*make, str(place.venv.resolve())]))
    place.write_stamp({})
    install = [uv, "pip", "install", "--python", str(place.python)]
    lines = run(place, [*install, "--require-hashes", "-r", "requirements.lock"])
    if lines and before and not any(line.startswith("Prepared") for line in lines):
        place.write_stamp(before)  # uv changes nothing before all packages are there
        say("The environment from before is still there: .venv/bin/course lab")
    fail(place, lines)
    fail(place, run(place, [*install, "--no-deps", "-e", "."]))
    place.write_stamp(describe(place, made_from))
    cached.touch()
    say("The environment is ready.")


def describe(place, made_from):
    """The stamp of the finished `.venv`."""
    ask = "import course_utils, sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.check_output([str(place.python), "-I", "-c", ask]).decode().strip()
    found = {"python": version_of(str(place.python)), "packages": packages}
    found["names"] = sorted(importable(Path(packages)))
    return dict(found, fingerprint=made_from, venv=str(place.venv))


def set_up(place, chosen=None):
    """Make `.venv` ready; return at once when it is. `chosen` is the Python to make it with."""
    version = version_of(chosen) if chosen else None
    if version == [] or (version and version < MINIMUM):
        raise SetupError(TOO_OLD.format(chosen, ".".join(map(str, version)) or "none"))
    if examine(place, version)[0] == "ready":
        return
    import fcntl

    place.own.mkdir(exist_ok=True)
    with (place.own / "setup.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another set-up is at work in this folder; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        state, reason = examine(place, version)  # again: the other one may just have finished
        if state != "ready":
            build(place, chosen, state, reason)


def main():
    try:
        if os.name == "nt":
            raise SetupError("On Windows the course runs in WSL: wsl --install")
        set_up(Place(Path(__file__).resolve().parent.parent), os.environ.get("PYTHON"))
    except (SetupError, OSError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("\nStopped. Run the same command again to finish the set-up.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
