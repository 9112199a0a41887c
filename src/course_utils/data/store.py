"""Data sets by name: where they are, whether they are whole, and getting them.

    find("mnist")        the folder with exactly the catalogue's files, fetched when needed
    fetch("mnist")       the same, said outright
    verify("mnist")      every byte read and compared
    status()             one row per data set, for `course data list`

A data set lies in one flat folder: the checkout's `data/<name>/` when it is bundled, else
`<name>/` in the data cache. Downloads grow in a hidden folder beside the files, are verified there,
and get their names in one step; one process fetches while others wait. So a file with its right
name is whole, and whatever interrupts a fetch, the next one continues from there.
"""

import errno
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from course_utils.base.errors import CourseError
from course_utils.base.paths import data_dir
from course_utils.base.progress_bar import announce
from course_utils.data.catalog import DataSet, load_catalog, look_up
from course_utils.data.files import FileEntry, install, problem_with
from course_utils.data.sources import Bundled, Source, SourceError, SourceUnreachable, offline
from course_utils.data.verification import Report, State, inspect

_INCOMING = ".incoming"


@dataclass(frozen=True)
class Status:
    """One row of `course data list`; `folder` is None for a set that is not on this machine."""

    name: str
    title: str
    bytes: int
    licence: str
    folder: Path | None
    state: State | Literal["streamed"]


def find(name: str) -> Path:
    """The folder that holds data set `name`, every file verified; fetched first when it must be.

    Raises:
        CourseError: unknown name, or it is not here and cannot be had; says what to run.
    """
    return fetch(name)


def fetch(name: str, *, force: bool = False) -> Path:
    """Make sure that data set `name` is on this machine, and return its folder.

    Args:
        force: read every byte again, and replace the cached copy even when it is right. A bundled
            copy that is right stays what is used.

    Raises:
        CourseError: unknown name, no source delivers the right bytes (each with its reason), the
            network is forbidden, or the cache cannot be written.
    """
    dataset = look_up(name)
    if dataset.hub:
        raise CourseError(
            f"{name} stays on the Hub ({dataset.hub.repo}) and is read from there row by row: "
            f"give its name to a lab, as in labs/pretrain.py --data {name}."
        )
    cache = data_dir() / name
    for report in _reports(dataset, rehash=force):
        if report.ok and not (force and report.folder == cache):
            return report.folder
    with disk_errors(dataset, cache), only_one(cache, name):
        # Looked at again under the lock: another process may just have fetched it.
        problems = inspect(dataset, cache).problems
        wanted = [entry for entry in dataset.files if force or entry.name in problems]
        _require_space(dataset, wanted, cache)
        left, said = _bring(dataset, wanted, cache)
    if left or not inspect(dataset, cache).ok:
        raise CourseError(_failure(dataset, said))
    return cache


def verify(name: str) -> Report:
    """Read every byte of data set `name` and compare it with the catalogue.

    Returns:
        the report on the copy that `find` would use; when no copy is right, on the damaged one.

    Raises:
        CourseError: unknown name, or a set that is streamed and has nothing to verify.
    """
    dataset = look_up(name)
    if dataset.hub:
        raise CourseError(f"{name} is streamed from the Hub: there are no files to verify.")
    return _best(_reports(dataset, rehash=True))


def status() -> list[Status]:
    """What is where, for every data set of the catalogue, in its order."""
    return [_status(dataset) for dataset in load_catalog().values()]


def _status(dataset: DataSet) -> Status:
    if dataset.hub:
        return Status(dataset.name, dataset.title, 0, dataset.licence, None, "streamed")
    report = _best(_reports(dataset))
    folder = None if report.state == "missing" else report.folder
    return Status(dataset.name, dataset.title, dataset.bytes, dataset.licence, folder, report.state)


def _reports(dataset: DataSet, *, rehash: bool = False) -> Iterator[Report]:
    """Reports on the places a data set can be in, in the order in which they are used."""
    for source in dataset.sources:
        if isinstance(source, Bundled):
            yield inspect(dataset, source.folder, rehash=rehash)
    yield inspect(dataset, data_dir() / dataset.name, rehash=rehash)


def _best(reports: Iterator[Report]) -> Report:
    rank = {"ready": 0, "damaged": 1, "missing": 2}
    return min(reports, key=lambda report: rank[report.state])


def _bring(
    dataset: DataSet, wanted: Sequence[FileEntry], cache: Path
) -> tuple[Sequence[FileEntry], list[str]]:
    """Try the sources in order; returns the files that none of them brought, and what each said."""
    said: list[str] = []
    for source in dataset.sources:
        if not wanted:
            break
        where = f"{source.kind} {source.place}"
        if source.needs_network and offline():
            said.append(f"{where}: COURSE_OFFLINE forbids the network")
            continue
        announce(f"{dataset.name}: from {where}")
        wanted, reasons = _bring_from(source, wanted, scratch_folder(cache, where), cache)
        said += [f"{where}: {reason}" for reason in reasons]
    if not wanted:
        shutil.rmtree(cache / _INCOMING, ignore_errors=True)
    return wanted, said


def scratch_folder(cache: Path, where: str) -> Path:
    """A source's own scratch folder: a part of one mirror's file is never continued at another."""
    return cache / _INCOMING / hashlib.sha256(where.encode()).hexdigest()[:12]


def _bring_from(
    source: Source, wanted: Sequence[FileEntry], scratch: Path, cache: Path
) -> tuple[list[FileEntry], list[str]]:
    """Bring what one source has; returns the files still wanted, and why."""
    scratch.mkdir(parents=True, exist_ok=True)
    left: list[FileEntry] = []
    reasons: list[str] = []
    for index, entry in enumerate(wanted):
        try:
            arrived = source.fetch(entry, scratch)
            if problem := problem_with(arrived, entry):
                arrived.unlink()
                raise SourceError(f"{entry.name}: {problem}")
            install(arrived, cache / entry.name)
        except SourceUnreachable as error:
            return [*left, *wanted[index:]], [*reasons, str(error)]
        except SourceError as error:
            left.append(entry)
            reasons.append(str(error))
    if left:
        # It was there and brought the wrong thing: nothing it left may be continued next time.
        shutil.rmtree(scratch)
    return left, reasons


def _failure(dataset: DataSet, said: Sequence[str]) -> str:
    report = _best(_reports(dataset))
    if report.ok:
        found = f"{dataset.name} is here and intact, but no source delivered it anew"
    elif report.state == "missing":
        found = f"{dataset.name} is not on this machine, and no source delivered it"
    else:
        name, problem = next(iter(report.problems.items()))
        found = f"{dataset.name} is damaged ({report.folder / name}: {problem})"
    lines = [f"{found}:", *(f"  {reason}" for reason in said)]
    first = "unset COURSE_OFFLINE and run: " if offline() else "run: "
    remedy = f"To repair it, {first}{dataset.repair}"
    if any(isinstance(source, Bundled) for source in dataset.sources):
        remedy += f"   (or: git checkout -- data/{dataset.name})"
    return "\n".join([*lines, remedy])


def _require_space(dataset: DataSet, wanted: Sequence[FileEntry], cache: Path) -> None:
    if shutil.disk_usage(cache).free < sum(entry.bytes for entry in wanted):
        raise OSError(errno.ENOSPC, "too little space")


def _megabytes(dataset: DataSet) -> str:
    return f"{dataset.bytes / 1e6:,.1f} MB"


@contextmanager
def disk_errors(dataset: DataSet, folder: Path) -> Iterator[None]:
    """Turn what a disk can do to us (full, read-only, not ours) into words and a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CourseError(
                f"The disk of {folder} is full; {dataset.name} takes {_megabytes(dataset)}. "
                "Make room there, or set COURSE_DATA_DIR to a folder on another disk, "
                f"then run: {dataset.repair}"
            ) from None
        raise CourseError(
            f"Cannot write to {folder} ({error.strerror or error}). "
            f"Set COURSE_DATA_DIR to a folder you may write to, then run: {dataset.repair}"
        ) from None


@contextmanager
def only_one(folder: Path, what: str) -> Iterator[None]:
    """Let one process at a time work on `folder`; a process that dies lets go of it by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        announce(f"Another process is fetching {what}; waiting for it to finish.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
