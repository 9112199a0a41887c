"""Run pip (and venv): show what they are doing, log all they print, explain how they failed."""

import collections
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

from pythons import SetupError, say

# Python compiles a module when it is first imported. Doing it now for all of 18,000 would take a
# third of the processor time of a set-up, and a lesson imports only some of them.
OPTIONS = ("--no-compile", "--no-input", "--disable-pip-version-check", "--progress-bar", "off")
# What would make pip look or install elsewhere than in .venv.
MISLEADING = (
    *("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PIP_REPORT"),
    *("PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE", "__PYVENV_LAUNCHER__"),
)
# The same in pip's settings file; the environment wins over it.
PLAIN_INSTALL = {"PIP_USER": "0", "PIP_DRY_RUN": "0", "PIP_NO_DEPS": "0"}
NETWORK_SIGNS = (
    "connection broken by",
    "NewConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "Read timed out",
    "Max retries exceeded",
    "Could not fetch URL",
    "Network is unreachable",
    "IncompleteRead",
)


def run_all(steps: list[list[str]], folder: Path, log: Path, lock: int) -> None:
    """Run commands in `folder` until one fails.

    Args:
        lock: the file descriptor of the set-up's lock. The commands inherit it: when this process
            is killed and leaves pip running, the next set-up waits for that pip too.

    Raises:
        SetupError: saying why a command failed.
    """
    progress = Progress()
    try:
        with log.open("w", encoding="utf-8") as file:
            for command in steps:
                last_lines = run(command, folder, file, lock, progress)
                if last_lines:
                    raise SetupError(explain(last_lines, log))
    finally:
        progress.end()


def run(
    command: list[str], folder: Path, log: IO[str], lock: int, progress: "Progress"
) -> list[str]:
    """Run one command; return the last lines it printed if it failed, nothing if it succeeded."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=(lock,),
    )
    assert process.stdout is not None
    # A thread reads, so that the clock on the screen goes on while pip is silent.
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=pump, args=(process.stdout, lines), daemon=True).start()
    tail: collections.deque[str] = collections.deque(maxlen=40)
    while True:
        try:
            line = lines.get(timeout=1)
        except queue.Empty:
            progress.tick()
            continue
        if line is None:
            break
        log.write(line)
        log.flush()
        tail.append(line.rstrip())
        progress.read(line)
    if process.wait() == 0:
        return []
    return list(filter(None, tail)) or [f"{command[0]} ended with status {process.returncode}"]


def pump(stream: IO[str], lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def environment() -> dict[str, str]:
    """This process's environment without what would send pip elsewhere than `.venv`."""
    kept = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    return kept | PLAIN_INSTALL


def explain(lines: list[str], log: Path) -> str:
    """What went wrong, by the last lines of the log."""
    text = "\n".join(lines)
    where = f"\nThe full log is in {os.path.relpath(log)}."
    if "No space left on device" in text:
        return (
            "The disk filled up. Free some space, or set TMPDIR to a folder on a larger disk, "
            "and run it again." + where
        )
    if any(sign in text for sign in NETWORK_SIGNS):
        return (
            "The package index cannot be reached: no network, or a proxy in between?\n"
            "Run it again when it is back; pip keeps what it has." + where
        )
    return "\n  ".join(["The packages could not be installed:", *lines[-6:]]) + where


class Progress:
    """Says what pip is doing: in a terminal one line that keeps changing, elsewhere a few lines."""

    QUIET_SECONDS = 30  # between lines that only say that it is still at work
    LARGE_MB = 50  # a download worth a line of its own

    def __init__(self) -> None:
        self.started = self.last_said = time.monotonic()
        self.in_terminal = sys.stderr.isatty()
        self.doing = "making the virtual environment"

    def read(self, line: str) -> None:
        """Take note of a line of pip's output."""
        action, _, rest = line.strip().partition(" ")
        if action == "Installing" and rest.startswith("collected packages"):
            self.doing = f"installing packages ({rest.count(',') + 1})"
            self.tick(worth_a_line=True)
        elif action in ("Collecting", "Downloading", "Preparing", "Building"):
            self.doing = f"{action.lower()} {rest.partition(': ')[0]}"
            self.tick(worth_a_line=megabytes(rest) >= self.LARGE_MB)

    def tick(self, worth_a_line: bool = False) -> None:
        now = time.monotonic()
        minutes, seconds = divmod(int(now - self.started), 60)
        text = f"  {minutes}:{seconds:02d}  {self.doing}"
        if self.in_terminal:
            width = shutil.get_terminal_size().columns
            print(f"\r\033[K{text[: width - 1]}", end="", file=sys.stderr, flush=True)
        elif worth_a_line or now - self.last_said >= self.QUIET_SECONDS:
            say(text)
            self.last_said = now

    def end(self) -> None:
        if self.in_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def megabytes(download: str) -> float:
    """The size in a line such as "torch-2.15.0-cp311.whl (532.1 MB)"; 0 if it has none."""
    size, _, unit = download.rpartition("(")[2].partition(" ")
    try:
        return float(size) * {"MB)": 1, "GB)": 1000}.get(unit.strip(), 0)
    except ValueError:
        return 0.0
