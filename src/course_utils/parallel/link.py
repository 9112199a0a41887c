"""The communication interface of a rank: its number, the world size, `send` and `recv`.

    rank 0                          rank 1
    link.send(x, to=1)  ────x────►  link.recv(source=0)

The same program runs on every rank (SPMD) and decides by `link.rank` what to do. Written against
a `Link`, it runs on threads (`simulate`) and on processes (`launch`).
"""

from abc import ABC, abstractmethod

from torch import Tensor

from course_utils.base.errors import CourseError


class LinkError(CourseError):
    """Sends and receives of the ranks that do not match."""


class Link(ABC):
    """The connection of one rank to all others.

    Attributes:
        rank: this one's number, from 0.
        world_size: the number of ranks.
        bytes_sent, messages_sent: by this rank so far.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self.bytes_sent = self.messages_sent = 0

    def send(self, tensor: Tensor, to: int) -> None:
        """Send a copy of `tensor`; `send` returns without waiting for the receiver.

        Messages from one rank to another arrive in the order in which they were sent.

        Raises:
            LinkError: when there is no such rank, or it is this one.
        """
        if not isinstance(tensor, Tensor):
            raise LinkError(f"Only tensors can be sent; rank {self.rank} gave {tensor!r:.40}.")
        self._check_partner(to, "send to")
        self.bytes_sent += tensor.numel() * tensor.element_size()
        self.messages_sent += 1
        self._send(tensor.detach().clone().contiguous(), to)

    def recv(self, source: int) -> Tensor:
        """Wait for the next message from `source`; shape and dtype are the sender's.

        Raises:
            LinkError: when there is no such rank, or it is this one, or (in `simulate`) when all
                ranks wait and nobody is left to send.
        """
        self._check_partner(source, "receive from")
        return self._recv(source)

    @abstractmethod
    def _send(self, tensor: Tensor, to: int) -> None: ...

    @abstractmethod
    def _recv(self, source: int) -> Tensor: ...

    def _check_partner(self, other: int, doing: str) -> None:
        if other == self.rank:
            raise LinkError(f"Rank {self.rank} wants to {doing} itself.")
        if not 0 <= other < self.world_size:
            raise LinkError(
                f"Rank {self.rank} wants to {doing} rank {other}; "
                f"there are the ranks 0 to {self.world_size - 1}."
            )
