"""Stand-ins for the world outside: a small course with a catalogue of its own, and a file server.

Everything real but the far end: the server speaks HTTP on the loopback interface (ranges, cut
connections, and enough of the hub's interface for its own client), packages are built here by hand.
"""

import gzip
import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def entry_of(name: str, content: bytes) -> dict[str, Any]:
    """The catalogue's table for a file with this content."""
    table = {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if name.endswith(".gz"):
        unpacked = gzip.decompress(content)
        table |= {
            "content_bytes": len(unpacked),
            "content_sha256": hashlib.sha256(unpacked).hexdigest(),
        }
    return table


@dataclass
class Course:
    """A course's folder whose catalogue the test writes."""

    root: Path
    cache: Path
    tables: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, files: dict[str, bytes], *sources: dict[str, Any]) -> None:
        """Put a data set into the catalogue; its hashes are those of `files`."""
        self.tables[name] = {
            "title": f"The set {name}",
            "about": "A set for a test.",
            "licence": "CC0",
            "citation": "nobody",
            "files": [entry_of(file, content) for file, content in files.items()],
            "sources": list(sources),
        }
        self.write()

    def write(self) -> None:
        # JSON strings, numbers, arrays and inline tables with `=` are TOML.
        lines = []
        for name, table in self.tables.items():
            lines.append(f"[{name}]")
            lines += [f"{json.dumps(key)} = {_toml(value)}" for key, value in table.items()]
        (self.root / "data" / "catalog.toml").write_text("\n".join(lines))


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value)


@dataclass
class FileServer:
    """HTTP on the loopback interface. `files` maps a path to its bytes; `hits` counts the GETs.

    Attributes:
        cut: a path to the number of bytes after which every answer's connection is cut off.
        gates: a path to an event; an answer stops after `cut` bytes, or before its first, until
            the event is set.
        started: set when an answer that has a gate has sent what it may.
        ranges: the Range headers of all GETs, in order.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    hits: Counter[str] = field(default_factory=Counter)
    cut: dict[str, int] = field(default_factory=dict)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    started: threading.Event = field(default_factory=threading.Event)
    ranges: list[str | None] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: FileServer

    def do_GET(self) -> None:
        world, path = self.world, self.path.split("?")[0].lstrip("/")
        world.hits[path] += 1
        world.ranges.append(self.headers.get("Range"))
        content = self._head()
        if content is None:
            return
        stop = world.cut.get(path, 0 if path in world.gates else len(content))
        self.wfile.write(content[:stop])
        self.wfile.flush()
        if path in world.gates:
            world.started.set()
            world.gates[path].wait()
            self.wfile.write(content[stop:])
        elif stop < len(content):
            self.close_connection = True

    def do_HEAD(self) -> None:
        self._head()

    def _head(self) -> bytes | None:
        """Send the headers; returns the body, from where the client asked on."""
        content = self.world.files.get(self.path.split("?")[0].lstrip("/"))
        start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
        elif start > len(content):
            self.send_response(416)
        else:
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            if start:
                self.send_header("Content-Range", f"bytes {start}-/{len(content)}")
            content = content[start:]
            self.send_header("Content-Length", str(len(content)))
            if self.path.endswith("/"):
                self.send_header("Content-Type", "text/html")
            self.end_headers()
            return content
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def log_message(self, *_: Any) -> None:
        pass
