"""Plain downloads: a folder of files behind an address, and ModelScope's files by address."""

import http.client
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urljoin
from urllib.request import Request, urlopen

from course_utils.base.progress_bar import Bar
from course_utils.data.files import FileEntry, problem_with
from course_utils.data.sources.base import SourceError, SourceUnreachable

_CHUNK = 1 << 18
_TIMEOUT_S = 30
_ATTEMPTS = 4


@dataclass(frozen=True)
class Url:
    """Files below `base`, each under its own name or under the path that `paths` gives."""

    kind: ClassVar[str] = "url"
    needs_network: ClassVar[bool] = True

    base: str
    paths: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return self.base

    def fetch(self, entry: FileEntry, scratch: Path) -> Path:
        address = urljoin(self.base, quote(self.paths.get(entry.name, entry.name)))
        return download(address, entry, scratch / f"{entry.name}.part")


@dataclass(frozen=True)
class ModelScope:
    """A data set repository on ModelScope (or the host that `MODELSCOPE_DOMAIN` names)."""

    kind: ClassVar[str] = "modelscope"
    needs_network: ClassVar[bool] = True

    repo: str
    revision: str = "master"
    paths: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.repo}@{self.revision}"

    def fetch(self, entry: FileEntry, scratch: Path) -> Path:
        host = os.environ.get("MODELSCOPE_DOMAIN", "www.modelscope.cn")
        root = host if "://" in host else f"https://{host}"
        path = quote(self.paths.get(entry.name, entry.name))
        address = f"{root}/datasets/{self.repo}/resolve/{quote(self.revision, safe='')}/{path}"
        return download(address, entry, scratch / f"{entry.name}.part")


class _Interrupted(Exception):
    """The connection ended early; what came so far is in the part file."""


def download(address: str, entry: FileEntry, part: Path) -> Path:
    """Fetch `address` into `part`, going on where an earlier attempt stopped.

    What an earlier attempt left is trusted only until the whole is there: when the joined file is
    not the right one, it is thrown away and fetched once more from its first byte.

    Raises:
        SourceError: the server refuses, or sends more than the file can have.
        SourceUnreachable: no connection, or it keeps breaking without a byte of progress.
    """
    reason = ""
    for _ in range(_ATTEMPTS):
        before = _size(part)
        try:
            _receive(address, entry, part)
        except _Interrupted as interruption:
            reason = str(interruption)
            if _size(part) == before:
                break
            continue
        if before and problem_with(part, entry):
            part.unlink()
            reason = "the file changed between two attempts"
            continue
        return part
    raise SourceUnreachable(reason)


def _receive(address: str, entry: FileEntry, part: Path) -> None:
    have = _size(part)
    try:
        response = urlopen(_request(address, have), timeout=_TIMEOUT_S)
    except HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            part.unlink()
            raise _Interrupted("the part on disk is no part of this file") from None
        raise SourceError(f"{entry.name}: HTTP {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, URLError) else error
        raise SourceUnreachable(str(cause) or type(cause).__name__) from None

    appending = response.status == http.client.PARTIAL_CONTENT
    received = have if appending else 0
    length = response.headers.get("Content-Length")
    total = received + int(length) if length else None
    with (
        response,
        part.open("ab" if appending else "wb") as out,
        Bar(desc=entry.name, total=total, initial=received) as bar,
    ):
        for piece in _pieces(response):
            out.write(piece)
            bar.update(len(piece))
            received += len(piece)
            if received > entry.most_bytes:
                raise SourceError(f"{entry.name}: sends more than {entry.most_bytes:,} bytes")
    if total is not None and received < total:
        raise _Interrupted(f"{entry.name}: connection ended after {received:,} of {total:,} bytes")


def _request(address: str, have: int) -> Request:
    headers = {"User-Agent": "course-utils"}
    if have:
        headers["Range"] = f"bytes={have}-"
    return Request(address, headers=headers)


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    # read1 hands on what has arrived, so that a slow download moves the bar and, when it is cut
    # off, leaves everything it had got.
    try:
        while piece := response.read1(_CHUNK):
            yield piece
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
