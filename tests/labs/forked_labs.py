"""Start labs in forks of one process that has imported torch and transformers already.

A lab that is started with `python labs/x.py` imports for 3 to 5 seconds; a fork takes 0.1. The
child has its own environment, arguments, standard streams and exit status, as a new process has.
"""

import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

# Imported before the forks; each of them only defines things.
WARM = (
    "torch",
    "accelerate",
    "safetensors.torch",
    "transformers",
    "course_utils.cli",
    "course_utils.generation.chat",
    "course_utils.training.lab.language_lab",
    "course_utils.training.lab.language_run",
    "course_utils.training.lab.recipes",
)


class ForkedLabs:
    """A process with warm imports, and `run`, which starts a lab in a fork of it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                # OpenMP reads it once, at its start.
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        ours.settimeout(600)  # as long as a lab may take
        self._requests = ours.makefile("rw", encoding="utf-8")
        ours.close()

    def run(
        self, words: list[str], env: Mapping[str, str], input: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run `python *words`, where the words begin with a script or with -c and a program."""
        assert env["OMP_NUM_THREADS"] == "1", "the forks have one thread"
        with tempfile.TemporaryDirectory(prefix="forked-lab-") as folder:
            streams = [str(Path(folder, name)) for name in ("stdin", "stdout", "stderr")]
            Path(streams[0]).write_text(input or "", "utf-8")
            request = {
                "words": words,
                "env": dict(env),
                "cwd": str(Path.cwd()),
                "streams": streams,
            }
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
            code = json.loads(self._requests.readline())
            said = [Path(path).read_text("utf-8") for path in streams[1:]]
        return subprocess.CompletedProcess(words, code, *said)

    def __enter__(self) -> "ForkedLabs":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: Any, where: TracebackType | None
    ) -> None:
        self._requests.close()
        self._process.wait(timeout=60)


def serve(connection: socket.socket) -> None:
    """Answer requests with exit codes until the connection is closed; returns in a child too."""
    for name in WARM:
        __import__(name)
    requests = connection.makefile("rw", encoding="utf-8")
    while line := requests.readline():
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            connection.close()
            become(request)
            return
        _, status = os.waitpid(child, 0)
        requests.write(json.dumps(os.waitstatus_to_exitcode(status)) + "\n")
        requests.flush()


def become(request: dict[str, Any]) -> None:
    """Make this process what `python *words` is, and run it."""
    modes = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)
    for number, (path, mode) in enumerate(zip(request["streams"], modes, strict=True)):
        opened = os.open(path, mode, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    first, *rest = request["words"]
    try:
        if first == "-c":
            program, *rest = rest
            sys.argv = ["-c", *rest]
            sys.path[0] = ""
            exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = [first, *rest]
            sys.path[0] = str(Path(first).parent)
            runpy.run_path(first, run_name="__main__")
    except Exception:
        traceback.print_exc()
        raise SystemExit(1) from None


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
