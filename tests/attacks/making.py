"""A class of hostile students, made into notebooks and graded once."""

import copy
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from course_utils.authoring.build import build
from course_utils.authoring.lesson import find_lesson
from course_utils.exercises.exercise import find_exercise

HOSTILE = Path(__file__).parent / "hostile"
LESSON = "00_start_here"


@dataclass(frozen=True)
class Attack:
    """One hostile cell, what it tries, and what it deserves."""

    name: str
    says: str
    exercise: str
    status: str
    score: float
    code: str


@cache
def attacks() -> tuple[Attack, ...]:
    """All of tests/attacks/hostile."""
    found = []
    for path in sorted(HOSTILE.glob("*.py")):
        text = path.read_text("utf-8")
        head = re.match(
            r'"""(.+?)"""\n# exercise: (\S+)\n# deserves: (\w+) ([\d.]+)\n', text, re.DOTALL
        )
        assert head, path.name
        found.append(
            Attack(path.stem, head[1], head[2], head[3], float(head[4]), text[head.end() :])
        )
    return tuple(found)


@cache
def _released() -> dict[str, Any]:
    return json.loads(json.dumps(build(find_lesson("00"), "learner")))


def notebook(solutions: dict[str, str]) -> dict[str, Any]:
    """Lesson 00 with these cells, by exercise."""
    made = copy.deepcopy(_released())
    for cell in made["cells"]:
        ours = cell["metadata"].get("course", {})
        if ours.get("role") == "solution" and ours["exercise"] in solutions:
            cell["source"] = solutions[ours["exercise"]]
    return made


def references() -> dict[str, str]:
    names = ("start.accuracy", "start.parameter_bytes", "start.seeded_normal")
    return {name: find_exercise(name).source for name in names}


def put(folder: Path, student: str, content: dict[str, Any] | bytes) -> Path:
    """Hand in a notebook."""
    path = folder / student / LESSON / f"{LESSON}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def tree(folder: Path) -> dict[str, str]:
    """A hash, the mode, the size and the time of everything below a folder, links and empty folders
    included."""
    found = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        if path.is_symlink():
            found[str(path)] = f"link to {path.readlink()}"
        elif path.is_file():
            # Half a gigabyte of holes is not read for this.
            told = path.stat()
            text = path.read_bytes() if told.st_size < 2**24 else b"large"
            inode = f"{told.st_mode:o} {told.st_uid} {told.st_size} {told.st_mtime_ns}"
            found[str(path)] = f"{hashlib.sha256(text).hexdigest()} {inode}"
        else:
            found[str(path)] = f"folder {path.stat().st_mode:o}"
    return found


@dataclass
class Listeners:
    """A TCP and a UDP socket on this machine, and what arrived at them."""

    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        for listen in (self._accept, self._receive):
            threading.Thread(target=listen, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                _, address = self.tcp.accept()
            except OSError:
                return
            self.heard.append(f"tcp from {address}")

    def _receive(self) -> None:
        while True:
            try:
                _, address = self.udp.recvfrom(100)
            except OSError:
                return
            self.heard.append(f"udp from {address}")

    @property
    def ports(self) -> dict[str, str]:
        return {"TCP": str(self.tcp.getsockname()[1]), "UDP": str(self.udp.getsockname()[1])}

    def close(self) -> None:
        self.tcp.close()
        self.udp.close()


def filled(code: str, places: dict[str, str]) -> str:
    """The code with the places that it aims at."""
    for name, place in places.items():
        code = code.replace("{" + name + "}", place)
    return code
