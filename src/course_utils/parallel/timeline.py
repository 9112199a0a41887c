"""Timelines: the spans of time that a rank spends on computation and communication.

On one machine all processes read the same clock, so their spans can be drawn below each other.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["compute", "communicate", "wait"]


@dataclass(frozen=True)
class Span:
    """From `start` to `end`, in seconds of `time.perf_counter`."""

    name: str
    kind: Kind
    start: float
    end: float


@dataclass
class Timeline:
    """The spans of one rank, in the order in which they ended."""

    spans: list[Span] = field(default_factory=list)

    @contextmanager
    def span(self, name: str, kind: Kind = "compute") -> Iterator[None]:
        """Measure the body of a `with`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, kind, start)

    def add(self, name: str, kind: Kind, start: float) -> None:
        """A span from `start` to now."""
        self.spans.append(Span(name, kind, start, time.perf_counter()))

    def seconds(self, kind: Kind) -> float:
        """All spans of a kind together."""
        return sum(span.end - span.start for span in self.spans if span.kind == kind)
