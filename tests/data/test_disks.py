"""Disks that really are full or read-only: small file systems, mounted for one process only."""

import contextlib
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from standins import COMMIT, Course, FileServer

TEXT = os.urandom(300_000)

PRINT_ERROR = """
from course_utils.base.errors import CourseError
try:
    store.find("big")
except CourseError as error:
    print(error)
"""


def mounted(folder: Path, options: str, code: str) -> str:
    """What `code` prints while `folder` is a file system of its own, seen by that process only.

    Skips the test where mount namespaces are not allowed.
    """
    folder.mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o {options} none "{folder}" && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    program = [sys.executable, "-c", f"from course_utils.data import store\n{code}"]
    with contextlib.suppress(FileNotFoundError):
        if not subprocess.run([*command, "true"], capture_output=True).returncode:
            result = subprocess.run([*command, *program], capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
            return result.stdout
    pytest.skip("no mount namespaces here")


def url_source(server: FileServer, shelf: Path) -> dict[str, str]:
    return {"kind": "url", "base": server.url}


def hub_source(server: FileServer, shelf: Path) -> dict[str, str]:
    return {"kind": "huggingface", "repo": "some/one", "revision": COMMIT}


def pip_source(server: FileServer, shelf: Path) -> dict[str, str]:
    path = shelf / "big-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("big.bin", TEXT)
        archive.writestr(
            "big-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: big\nVersion: 1.0"
        )
        archive.writestr("big-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "kind": "pip",
        "package": "big",
        "version": "1.0",
        "archive": path.name,
        "sha256": sha256,
    }


@pytest.fixture
def world(course: Course, hub: FileServer, shelf: Path) -> FileServer:
    hub.files |= {"big.bin": TEXT, f"datasets/some/one/resolve/{COMMIT}/big.bin": TEXT}
    return hub


@pytest.mark.parametrize("source", [url_source, hub_source, pip_source])
def test_disk_that_fills_up_while_fetching(
    course: Course, world: FileServer, shelf: Path, source: object
) -> None:
    """As under a quota, which `disk_usage` does not tell; no other source is tried then."""
    first = source(world, shelf)  # type: ignore[operator]
    course.add("big", {"big.bin": TEXT}, first, {"kind": "modelscope", "repo": "never/asked"})
    code = f"""
store._require_space = lambda *_: None
{PRINT_ERROR}
print(*store.Path({str(course.cache)!r}).rglob("big.bin"))
"""
    said, found = mounted(course.cache, "size=200k", code).splitlines()
    assert f"The disk of {course.cache / 'big'} is full; big takes 0.3 MB." in said
    assert "COURSE_DATA_DIR" in said
    assert said.endswith("course data get big")
    assert found == ""


def test_disk_known_to_be_too_small_is_not_even_begun_with(
    course: Course, world: FileServer, shelf: Path
) -> None:
    course.add("big", {"big.bin": TEXT}, url_source(world, shelf))
    assert "is full; big takes 0.3 MB" in mounted(course.cache, "size=200k", PRINT_ERROR)
    assert not world.hits


def test_read_only_cache_that_is_empty_explains_itself(course: Course, world: FileServer) -> None:
    course.add("big", {"big.bin": TEXT}, {"kind": "url", "base": world.url})
    said = mounted(course.cache, "ro", PRINT_ERROR)
    assert said.startswith(f"Cannot write to {course.cache / 'big'} (Read-only file system).")
    assert said.endswith("course data get big\n")
    assert not world.hits


def test_read_only_cache_that_is_filled_works(course: Course, world: FileServer) -> None:
    """Also with a large file whose verification cannot be noted down."""
    course.add("big", {"big.bin": TEXT}, {"kind": "url", "base": world.url})
    folder = course.cache / "big"
    code = f"""
import subprocess
from course_utils.data import verification
store.find("big")
subprocess.run(["mount", "-o", "remount,ro", {str(course.cache)!r}], check=True)
verification.LARGE = 100_000
print(store.find("big"), *store.Path({str(folder)!r}).glob(".verified*"))
"""
    assert mounted(course.cache, "rw", code) == f"{folder}\n"
