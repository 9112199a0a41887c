"""Crash-safe versions of a folder, each complete and verifiable: the storage of checkpoints.

    checkpoints/
      .step-00000300.writing/    being written; removed later if its writer was killed
      step-00000200/             complete: renamed after all its bytes were on the disk
        manifest.json            size and SHA-256 of every other file
        …
      step-00000100/             the one before

A version appears by a rename, which is atomic within a folder. The hashes detect what a rename
cannot prevent: corrupted bits on the disk, and incomplete copies.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from course_utils.base.durable import flush_file, flush_folder
from course_utils.base.errors import CourseError

MANIFEST = "manifest.json"


class DamagedError(CourseError):
    """A version whose files differ from its manifest."""


def versions(root: Path) -> list[Path]:
    """The versions in `root`, by step; nothing is verified."""
    return sorted(path for path in root.glob("step-*") if path.is_dir())


def step_of(version: Path) -> int:
    """The step a version's name states."""
    return int(version.name.removeprefix("step-"))


def name_of(step: int) -> str:
    """The name of a step's version."""
    return f"step-{step:08d}"


def write(root: Path, step: int, fill: Callable[[Path], None], keep: int) -> Path:
    """Write the version of `step`, then delete old versions.

    Args:
        root: The folder of all versions.
        step: The new version's step; a version of the same step is replaced.
        fill: Writes the files into the folder it is given.
        keep: How many of the newest versions to keep, including the new one. Versions of later
            steps are deleted too: training resumed before them because they were damaged.

    Raises:
        OSError: when the disk is full or may not be written; older versions stay as they were.
    """
    sweep(root)
    draft = root / f".{name_of(step)}.writing"
    try:
        draft.mkdir(parents=True)
        fill(draft)
        files = sorted(path for path in draft.iterdir())
        manifest = {
            path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files
        }
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1))
        for path in (*files, draft / MANIFEST):
            flush_file(path)
        flush_folder(draft)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    version = root / name_of(step)
    if version.exists():
        _remove(version)
    draft.rename(version)
    flush_folder(root)
    earlier = [other for other in versions(root) if step_of(other) < step]
    wanted = {version, *earlier[max(0, len(earlier) - (keep - 1)) :]}
    for other in versions(root):
        if other not in wanted:
            _remove(other)
    return version


def newest_intact(root: Path) -> tuple[Path | None, list[str]]:
    """The newest version that verifies, and what is wrong with each newer one.

    This function changes nothing, so other processes may call it while the run writes.
    """
    damage: list[str] = []
    for version in reversed(versions(root)):
        try:
            verify(version)
        except DamagedError as error:
            damage.append(str(error))
        else:
            return version, damage
    return None, damage


def verify(version: Path) -> None:
    """Compare every file of a version with its manifest.

    Raises:
        DamagedError: at the first file that is missing, cut short, changed or unknown.
    """
    try:
        manifest: dict[str, dict] = json.loads((version / MANIFEST).read_text())
        promised = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise DamagedError(f"{version.name} has no readable {MANIFEST}") from None
    try:
        _compare(version, promised)
    except OSError as error:  # for example, the run has just deleted this version
        raise DamagedError(f"{version.name} cannot be read: {error.strerror or error}") from None


def _compare(version: Path, promised: Mapping[str, tuple[int, str]]) -> None:
    present = {path.name for path in version.iterdir()} - {MANIFEST}
    for name in sorted(present ^ promised.keys()):
        problem = "lacks" if name in promised else "has an unexpected"
        raise DamagedError(f"{version.name} {problem} {name}")
    for name, (size, digest) in promised.items():
        path = version / name
        if path.stat().st_size != size:
            raise DamagedError(f"{version.name}/{name} has {path.stat().st_size} of {size} bytes")
        if _sha256(path) != digest:
            raise DamagedError(f"{version.name}/{name} was changed after it was written")


def sweep(root: Path) -> None:
    """Remove unfinished versions of killed writers. Only the run's rank 0 may call it."""
    for leftover in root.glob(".step-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _remove(version: Path) -> None:
    # Rename first, so that an interrupted removal leaves nothing that looks like a version.
    doomed = version.with_name(f".{version.name}.removing")
    version.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
