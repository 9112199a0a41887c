"""What a source of data is: something that can put one named file into a scratch folder."""

import os
from pathlib import Path
from typing import ClassVar, Protocol

from course_utils.data.files import FileEntry


class SourceError(Exception):
    """This source could not deliver this file; the message says why in a few words."""


class SourceUnreachable(SourceError):
    """This source delivers nothing at the moment, so its other files need not be tried."""


class Source(Protocol):
    """A place to get files from. To add a kind, write one of these and name it in `KINDS`.

    A source need not check what it delivers, clean up, or write atomically: the store does all
    three. It may keep anything in `scratch`, which nobody else uses and which survives an
    interruption, so that the next attempt can continue.
    """

    kind: ClassVar[str]
    needs_network: ClassVar[bool]

    @property
    def place(self) -> str:
        """Where this is, for people: an address, a repository, a package."""
        ...

    def fetch(self, entry: FileEntry, scratch: Path) -> Path:
        """Bring one file and say where in `scratch` it lies; the caller takes it from there.

        Raises:
            SourceError: with the reason, when the source has no such file or fails.
            OSError: when this machine's disk is the problem, so that other sources would fail too.
        """
        ...


def offline() -> bool:
    """Whether `COURSE_OFFLINE` forbids the network."""
    return os.environ.get("COURSE_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
