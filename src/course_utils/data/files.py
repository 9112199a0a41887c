"""One file of a data set: what it must be, whether it is that, and how it is put in place.

A file is never believed because of its name. `problem_with` compares it with the size and sha256
that the catalogue pins, and `install` is the only way a file gets its final name.
"""

import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 20
_GZIP_WINDOW = 31  # zlib: a 32 KiB window, with gzip's header and checksum around the stream


@dataclass(frozen=True)
class FileEntry:
    """What the catalogue says about one file.

    Attributes:
        name: its file name; data sets are flat folders.
        bytes, sha256: the file as it is stored.
        content_bytes, content_sha256: what a gzip file unpacks to. Mirrors carry the same content
            packed by different programs, so a packing that unpacks to this is as good.
    """

    name: str
    bytes: int
    sha256: str
    content_bytes: int | None = None
    content_sha256: str | None = None

    @property
    def most_bytes(self) -> int:
        """The largest size any right packing can have; a source that sends more is wrong."""
        return max(self.bytes, self.content_bytes or 0) + (64 << 10)

    def unpacked(self) -> "FileEntry":
        """The entry of the file that gunzipping this one gives.

        Raises:
            ValueError: when the catalogue does not say what it unpacks to.
        """
        if self.content_bytes is None or self.content_sha256 is None:
            raise ValueError(f"{self.name} has no content_bytes and content_sha256")
        return FileEntry(self.name.removesuffix(".gz"), self.content_bytes, self.content_sha256)


def problem_with(path: Path, entry: FileEntry) -> str | None:
    """What is wrong with the file at `path`, in a few words; None when it is exactly `entry`."""
    try:
        if not path.is_file():
            return "missing"
        size = path.stat().st_size
        if size != entry.bytes:
            problem = f"{size:,} bytes instead of {entry.bytes:,}"
        elif (found := sha256_of(path)) != entry.sha256:
            problem = f"sha256 {found[:12]}… instead of {entry.sha256[:12]}…"
        else:
            return None
        return None if entry.content_sha256 and _unpacks_to(path, entry.unpacked()) else problem
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def sha256_of(path: Path) -> str:
    """The file's sha256 in hexadecimal, read in pieces so that its size does not matter."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpacks_to(path: Path, content: FileEntry) -> bool:
    digest, length, inflate = hashlib.sha256(), 0, zlib.decompressobj(_GZIP_WINDOW)
    with path.open("rb") as file:
        try:
            while piece := file.read(_CHUNK):
                data = inflate.decompress(piece)
                digest.update(data)
                length += len(data)
                if length > content.bytes:
                    return False
        except zlib.error:
            return False
    return inflate.eof and length == content.bytes and digest.hexdigest() == content.sha256


def install(temporary: Path, target: Path) -> None:
    """Give a finished file its final name: on the disk first, then renamed in one step.

    Both must be on the same file system. A power cut at any moment leaves the old file, the new
    file, or none, never half of one.
    """
    with temporary.open("r+b") as file:
        os.fsync(file.fileno())
    temporary.replace(target)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
