"""A socket, an address, signals: running the application as a program or beside one."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from course_utils.base.errors import CourseError

SECONDS_TO_FINISH = 10  # for answers that are being written when the server is stopped
SECONDS_FOR_HEAD = 10.0  # for the lines before a request's body to come


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def chosen_key(given: str | None, host: str) -> str | None:
    """The API key: the one that is given, or COURSE_API_KEY.

    Raises:
        CourseError: when others can reach the address and there is none.
    """
    key = given or os.environ.get("COURSE_API_KEY") or None
    if key is None and not is_loopback(host):
        raise CourseError(
            f"On {host} everybody in the network could ask this model, at your expense: set "
            "COURSE_API_KEY (or --api-key) to a secret, or leave --host at 127.0.0.1."
        )
    return key


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 takes one that is free.

    Raises:
        CourseError: when the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise CourseError(
            f"Cannot listen on {host}, port {port} ({why}): choose another --port, or 0 for a "
            "free one."
        ) from None


def address(listening: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_until_stopped(app: FastAPI, listening: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM; answers that are being written may be finished first."""
    # uvicorn raises the signal again when it is done: these are then asked.
    before = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        _uvicorn(app).run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def running_beside(
    app: FastAPI, host: str = "127.0.0.1", *, head_seconds: float = SECONDS_FOR_HEAD
) -> Iterator[str]:
    """Serve on a thread while the block runs; gives the address.

    Args:
        head_seconds: after which a connection without a request is closed.
    """
    listening = listen(host, 0)
    server = _uvicorn(app, head_seconds)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield address(listening)
    finally:
        server.should_exit = True
        thread.join()


class PromptHeads(H11Protocol):
    """A connection that is closed when the next request's head is not there in time.

    uvicorn's own timer starts after an answer and ends with the next byte. Who connects and says
    nothing, or half a head, would stay for ever, and about a thousand such use up the files that a
    process may open. This timer starts with the connection, and again with the first byte after an
    answer, and goes on whatever else comes; a complete head ends it, so that it never cuts an
    answer, however long that takes.
    """

    seconds = SECONDS_FOR_HEAD
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._watch()

    def _watch(self) -> None:
        # `cycle` is the newest request whose head is complete.
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.transport.is_closing():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
        elif self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self.transport.close)


def _uvicorn(app: FastAPI, head_seconds: float = SECONDS_FOR_HEAD) -> uvicorn.Server:
    class Protocol(PromptHeads):  # uvicorn makes one for each connection, without settings of ours
        seconds = head_seconds

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",  # nothing here talks so, and these connections would leave Protocol
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SECONDS_TO_FINISH,
        )
    )
