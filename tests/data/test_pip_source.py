"""Files out of packages, with the real pip and packages built here by hand."""

import base64
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from standins import Course, FileServer, entry_of

from course_utils.base.errors import CourseError
from course_utils.data import store
from course_utils.data.files import FileEntry
from course_utils.data.sources.base import SourceError
from course_utils.data.sources.pip import Pip

TEXT = b"Once upon a time.\n" * 5000
MEMBER = "tiny_stories_data/texts/stories.txt"

# Runs in pip's metadata step, the only code of a source archive that is meant to run.
BACKEND = """
import pathlib
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = pathlib.Path(folder, "tiny_stories-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: tiny-stories\\nVersion: 1.0\\n")
    return info.name
def build_wheel(*_, **__):
    raise SystemExit("the archive was built")
"""
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def wheel(folder: Path) -> Path:
    """A wheel whose import would fail: nobody may try."""
    info = "tiny_stories-1.0.dist-info"
    members = {
        "tiny_stories_data/__init__.py": b"raise SystemExit('the package was imported')\n",
        MEMBER: TEXT,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-stories\nVersion: 1.0\n"
        b"Requires-Dist: no-such-package-anywhere\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_b64(data)},{len(data)}\n" for name, data in members.items())
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / "tiny_stories-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def sdist(folder: Path, link: str = "") -> Path:
    """A source archive with a build backend of its own, so that pip needs nothing else.

    Args:
        link: where its `link.txt` points to, if it has one. pip itself refuses an archive with a
            link to an absolute path since version 26.
    """
    members = {
        "PKG-INFO": b"Metadata-Version: 2.1\nName: tiny-stories\nVersion: 1.0\n",
        "pyproject.toml": PYPROJECT.encode(),
        "backend.py": BACKEND.encode(),
        MEMBER: TEXT,
    }
    path = folder / "tiny_stories-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(f"tiny_stories-1.0/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo("tiny_stories-1.0/link.txt")
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)
    return path


def sdist_with_a_link_out(folder: Path) -> Path:
    return sdist(folder, link="/etc/hostname")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def pip_source(built: Path, **changes: Any) -> dict[str, Any]:
    prefix = "tiny_stories-1.0/" if built.name.endswith(".tar.gz") else ""
    source = {
        "kind": "pip",
        "package": "tiny-stories",
        "version": "1.0",
        "archive": built.name,
        "sha256": hashlib.sha256(built.read_bytes()).hexdigest(),
        "paths": {"stories.txt": prefix + MEMBER},
    }
    return source | changes


@pytest.mark.parametrize("build", [wheel, sdist])
def test_file_comes_out_of_the_archive_and_nothing_is_installed(
    course: Course, shelf: Path, build: Any
) -> None:
    course.add("stories", {"stories.txt": TEXT}, pip_source(build(shelf)))
    folder = store.find("stories")
    assert (folder / "stories.txt").read_bytes() == TEXT
    assert sorted(p.name for p in folder.iterdir() if p.name != ".lock") == ["stories.txt"]
    with pytest.raises(PackageNotFoundError):
        distribution("tiny-stories")


def test_index_over_http_with_another_file_of_the_version_beside_the_pinned_one(
    course: Course, shelf: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [wheel(shelf), sdist(shelf)]
    links = "".join(f'<a href="/files/{path.name}">{path.name}</a>\n' for path in both)
    server.files = {f"files/{path.name}": path.read_bytes() for path in both}
    server.files["simple/tiny-stories/"] = f"<!DOCTYPE html>\n{links}".encode()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}simple/")
    course.add("stories", {"stories.txt": TEXT}, pip_source(both[1]))
    assert (store.find("stories") / "stories.txt").read_bytes() == TEXT
    assert server.hits["files/tiny_stories-1.0.tar.gz"] == 1
    assert server.hits["files/tiny_stories-1.0-py3-none-any.whl"] == 0


def test_several_files_of_one_archive_need_one_download(
    course: Course, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: calls.append(a) or real(*a, **k))
    source = pip_source(wheel(shelf))
    init = b"raise SystemExit('the package was imported')\n"
    source["paths"]["init.txt"] = "tiny_stories_data/__init__.py"
    course.add("stories", {"stories.txt": TEXT, "init.txt": init}, source)
    assert (store.find("stories") / "init.txt").read_bytes() == init
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sha256": "00" * 32}, "sha256 is not the pinned one"),
        ({"version": "9.9"}, "No matching distribution found for tiny-stories==9.9"),
        ({"archive": "other.whl"}, "pip brought no other.whl with the pinned sha256"),
    ],
    ids=["hash", "version", "archive"],
)
def test_failure_is_explained(
    course: Course, shelf: Path, changes: dict[str, Any], says: str
) -> None:
    course.add("stories", {"stories.txt": TEXT}, pip_source(wheel(shelf), **changes))
    with pytest.raises(CourseError) as raised:
        store.find("stories")
    assert "  pip tiny-stories " in str(raised.value)
    assert says in str(raised.value)
    assert not (course.cache / "stories" / "stories.txt").exists()


@pytest.mark.parametrize(
    ("build", "member"),
    [
        (sdist_with_a_link_out, "tiny_stories-1.0/link.txt"),
        (sdist, "tiny_stories-1.0/tiny_stories_data"),
        (sdist, "nothing.txt"),
        (wheel, "nothing.txt"),
    ],
)
def test_only_ordinary_files_leave_an_archive(tmp_path: Path, build: Any, member: str) -> None:
    keys = pip_source(build(tmp_path), paths={"stories.txt": member})
    del keys["kind"]
    entry = FileEntry(**entry_of("stories.txt", TEXT))
    with pytest.raises(SourceError, match=f"holds no file {member}"):
        Pip(**keys).fetch(entry, tmp_path)


def test_half_an_archive_that_was_left_behind_is_fetched_again(course: Course, shelf: Path) -> None:
    path = sdist(shelf)
    source = pip_source(path)
    course.add("stories", {"stories.txt": TEXT}, source)
    scratch = store.scratch_folder(course.cache / "stories", "pip tiny-stories 1.0")
    scratch.mkdir(parents=True)
    (scratch / path.name).write_bytes(path.read_bytes()[:-500])
    assert (store.find("stories") / "stories.txt").read_bytes() == TEXT


def test_missing_pip_is_explained(
    course: Course, shelf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    monkeypatch.setattr(sys, "executable", str(bare / "bin" / "python"))
    course.add("stories", {"stories.txt": TEXT}, pip_source(wheel(shelf)))
    with pytest.raises(CourseError, match="No module named pip"):
        store.find("stories")
