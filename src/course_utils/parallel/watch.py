"""Watching ranks talk: every message of a program, with its place in logical time.

Clocks count rounds and not seconds (Lamport, 1978, "Time, Clocks, and the Ordering of Events in a
Distributed System"). A rank's clock goes on by one with each message that it sends, and a message
arrives one tick after it was sent at the earliest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from course_utils.parallel.link import Link
from course_utils.parallel.simulate import simulate


@dataclass(frozen=True)
class Message:
    """From `sender` at the time `sent` to `receiver` at the time `received`."""

    sender: int
    receiver: int
    sent: int
    received: int
    tensor: Tensor


def watch(
    function: Callable[..., Any], *arguments: Sequence[Any], **settings: Any
) -> list[Message]:
    """The messages of a rank's program, run on threads; arguments as for `simulate`."""

    def program(link: Link, *own: Any) -> list[Message]:
        watched = _WatchedLink(link)
        function(watched, *own, **settings)
        return watched.received

    logs = simulate(program, *arguments)
    return sorted((m for log in logs for m in log), key=lambda m: (m.sent, m.sender))


class _WatchedLink(Link):
    def __init__(self, link: Link) -> None:
        super().__init__(link.rank, link.world_size)
        self._link, self._clock = link, 0
        self.received: list[Message] = []

    def _send(self, tensor: Tensor, to: int) -> None:
        self._link.send(torch.tensor(self._clock), to)
        self._link.send(tensor, to)
        self._clock += 1

    def _recv(self, source: int) -> Tensor:
        sent = int(self._link.recv(source))
        tensor = self._link.recv(source)
        self._clock = max(self._clock, sent + 1)
        self.received.append(Message(source, self.rank, sent, self._clock, tensor))
        return tensor
