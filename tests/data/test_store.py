"""Finding, fetching and verifying, with everything that goes wrong on the way."""

import errno
import gzip
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from standins import Course, FileServer

from course_utils.base.errors import CourseError
from course_utils.data import store, verification

TEXT = os.urandom(300_000)
OTHER = b"the other file\n"


def in_a_process(code: str, **popen: object) -> subprocess.Popen:
    """Run `code` in a Python of its own, with this test's environment."""
    program = f"from course_utils.data import store\n{code}"
    return subprocess.Popen([sys.executable, "-c", program], text=True, **popen)  # type: ignore[call-overload]


@pytest.fixture
def two_files(course: Course, server: FileServer) -> Course:
    """A set `pair` of two files on the server."""
    server.files |= {"pair/text.bin": TEXT, "pair/other.txt": OTHER}
    source = {"kind": "url", "base": server.url + "pair/"}
    course.add("pair", {"text.bin": TEXT, "other.txt": OTHER}, source)
    return course


def test_find_fetches_once_and_then_needs_no_network(
    two_files: Course, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.find("pair")
    assert folder == two_files.cache / "pair"
    assert (folder / "text.bin").read_bytes() == TEXT
    assert (folder / "other.txt").read_bytes() == OTHER
    assert not (folder / ".incoming").exists()
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    assert store.find("pair") == folder
    assert server.hits == {"pair/text.bin": 1, "pair/other.txt": 1}


def test_bundled_set_is_used_where_it_lies(course: Course) -> None:
    course.add("here", {"a.txt": OTHER}, {"kind": "bundled"})
    lying = course.root / "data" / "here"
    lying.mkdir()
    (lying / "a.txt").write_bytes(OTHER)
    assert store.find("here") == lying
    assert store.fetch("here", force=True) == lying
    assert not course.cache.exists()


def test_damaged_bundled_file_is_replaced_from_the_next_source(
    course: Course, server: FileServer
) -> None:
    server.files["a.txt"] = OTHER
    course.add("here", {"a.txt": OTHER}, {"kind": "bundled"}, {"kind": "url", "base": server.url})
    lying = course.root / "data" / "here"
    lying.mkdir()
    (lying / "a.txt").write_bytes(OTHER[:-1] + b"!")
    folder = store.find("here")
    assert folder == course.cache / "here"
    assert (folder / "a.txt").read_bytes() == OTHER


def test_damaged_bundled_file_without_network_names_both_remedies(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    course.add(
        "here", {"a.txt": OTHER}, {"kind": "bundled"}, {"kind": "url", "base": "http://[::1]:9/"}
    )
    lying = course.root / "data" / "here"
    lying.mkdir()
    (lying / "a.txt").write_bytes(OTHER[:-1])
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    with pytest.raises(CourseError) as raised:
        store.find("here")
    text = str(raised.value)
    assert f"{lying / 'a.txt'}: 14 bytes instead of 15" in text
    assert "unset COURSE_OFFLINE and run: course data get here" in text
    assert "git checkout -- data/here" in text


@pytest.mark.parametrize("damage", ["truncated", "changed", "removed", "emptied"])
def test_damage_in_the_cache_is_noticed_and_repaired(
    two_files: Course, server: FileServer, damage: str
) -> None:
    path = store.find("pair") / "text.bin"
    if damage == "removed":
        path.unlink()
    else:
        changed = bytes([TEXT[0] ^ 1]) + TEXT[1:]
        path.write_bytes({"truncated": TEXT[:-1], "changed": changed, "emptied": b""}[damage])
    report = store.verify("pair")
    assert not report.ok
    assert list(report.problems) == ["text.bin"]
    assert store.status()[0].state == "damaged"
    assert store.find("pair") == path.parent
    assert path.read_bytes() == TEXT
    assert store.verify("pair").ok
    assert server.hits == {"pair/text.bin": 2, "pair/other.txt": 1}


def test_wrong_bytes_from_one_source_are_refused_and_the_next_is_tried(
    course: Course, server: FileServer
) -> None:
    server.files |= {"bad/a.txt": OTHER.upper(), "good/a.txt": OTHER}
    bad, good = ({"kind": "url", "base": f"{server.url}{name}/"} for name in ("bad", "good"))
    course.add("set", {"a.txt": OTHER}, bad, good)
    assert (store.find("set") / "a.txt").read_bytes() == OTHER
    assert server.hits["bad/a.txt"] == 1


def test_failure_lists_what_every_source_said(course: Course, server: FileServer) -> None:
    server.files |= {"wrong/a.txt": OTHER.upper(), "long/a.txt": OTHER * 10_000}
    with socket.socket() as closed:  # bound, never listening: nothing else can answer there
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        bases = [f"{server.url}{name}/" for name in ("wrong", "long", "none")] + [nobody]
        course.add("set", {"a.txt": OTHER}, *({"kind": "url", "base": base} for base in bases))
        with pytest.raises(CourseError) as raised:
            store.find("set")
    lines = str(raised.value).splitlines()
    assert lines[0] == "set is not on this machine, and no source delivered it:"
    assert lines[1].startswith(f"  url {bases[0]}: a.txt: sha256 ")
    assert lines[2].startswith(f"  url {bases[1]}: a.txt: sends more than ")
    assert lines[3] == f"  url {bases[2]}: a.txt: HTTP 404 Not Found"
    assert lines[4].startswith(f"  url {nobody}: ")
    assert "refused" in lines[4]
    assert lines[5] == "To repair it, run: course data get set"
    assert not (course.cache / "set" / "a.txt").exists()


def test_files_missing_from_one_source_come_from_another(
    course: Course, server: FileServer
) -> None:
    server.files |= {"one/a.bin": TEXT, "two/b.txt": OTHER}
    one, two = ({"kind": "url", "base": f"{server.url}{name}/"} for name in ("one", "two"))
    course.add("set", {"b.txt": OTHER, "a.bin": TEXT}, one, two)
    folder = store.find("set")
    assert (folder / "a.bin").read_bytes() == TEXT
    assert (folder / "b.txt").read_bytes() == OTHER
    assert server.hits == {"one/b.txt": 1, "one/a.bin": 1, "two/b.txt": 1}


def test_unreachable_source_is_asked_once_not_once_per_file(
    course: Course, server: FileServer
) -> None:
    server.files |= {"a.bin": TEXT, "b.txt": OTHER}
    server.cut["a.bin"] = 0
    course.add("set", {"a.bin": TEXT, "b.txt": OTHER}, {"kind": "url", "base": server.url})
    with pytest.raises(CourseError, match="connection ended after 0 of 300,000 bytes"):
        store.find("set")
    assert server.hits == {"a.bin": 1}


def test_same_content_in_another_gzip_packing_is_accepted(
    course: Course, server: FileServer
) -> None:
    pinned, other = gzip.compress(TEXT, 9, mtime=0), gzip.compress(TEXT, 1, mtime=1)
    assert pinned != other
    server.files["a.gz"] = other
    course.add("set", {"a.gz": pinned}, {"kind": "url", "base": server.url})
    assert gzip.decompress((store.find("set") / "a.gz").read_bytes()) == TEXT


@pytest.mark.parametrize(
    "sent",
    [
        gzip.compress(TEXT[:-1] + bytes([TEXT[-1] ^ 1])),
        gzip.compress(TEXT[:-1]),
        gzip.compress(TEXT + b"!"),
        gzip.compress(TEXT)[:-1],
        TEXT,
    ],
    ids=["changed", "shorter", "longer", "truncated", "unpacked"],
)
def test_other_content_in_a_gzip_packing_is_refused(
    course: Course, server: FileServer, sent: bytes
) -> None:
    server.files["a.gz"] = sent
    course.add("set", {"a.gz": gzip.compress(TEXT, mtime=0)}, {"kind": "url", "base": server.url})
    with pytest.raises(CourseError, match=r"a\.gz: .* instead of"):
        store.find("set")


def test_offline_makes_no_connection(
    two_files: Course, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = {"package": "p", "version": "1", "archive": "p.whl", "sha256": "00"}
    hub = {"repo": "a/b", "revision": "main"}
    two_files.tables["pair"]["sources"] += [
        {"kind": "pip", **archive},
        {"kind": "huggingface", **hub},
        {"kind": "huggingface-images", **hub},
        {"kind": "modelscope", "repo": "a/b"},
    ]
    two_files.write()

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("something opened a connection or started a program")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(subprocess, "Popen", no_network)
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    with pytest.raises(CourseError) as raised:
        store.find("pair")
    assert str(raised.value).count("COURSE_OFFLINE forbids the network") == 5
    assert not server.hits


def test_killed_in_the_middle_it_goes_on_from_there(
    two_files: Course, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.gates["pair/text.bin"] = threading.Event()
    server.cut["pair/text.bin"] = 200_000
    child = in_a_process("store.find('pair')")
    assert server.started.wait(60)
    folder = two_files.cache / "pair"
    wait_for(lambda: sum(p.stat().st_size for p in folder.rglob("*.part")) >= 100_000)
    child.send_signal(signal.SIGKILL)
    assert child.wait(60) == -signal.SIGKILL

    assert not (folder / "text.bin").exists()
    with monkeypatch.context() as context:
        context.setenv("COURSE_OFFLINE", "1")
        with pytest.raises(CourseError, match="course data get pair"):
            store.find("pair")

    (part,) = folder.rglob("*.part")
    have = part.stat().st_size
    server.gates.clear()
    server.cut.clear()
    assert (store.find("pair") / "text.bin").read_bytes() == TEXT
    assert f"bytes={have}-" in server.ranges
    assert not (folder / ".incoming").exists()


def wait_for(happened: object) -> None:
    """Look until `happened()`, for a minute at most."""
    ticking = threading.Event()
    for _ in range(6000):
        if happened():  # type: ignore[operator]
            return
        ticking.wait(0.01)
    raise AssertionError("it did not happen within a minute")


def test_broken_connection_is_continued_within_one_call(
    two_files: Course, server: FileServer
) -> None:
    server.cut["pair/text.bin"] = 120_000  # of every answer: three are needed
    assert (store.find("pair") / "text.bin").read_bytes() == TEXT
    assert server.ranges[:3] == [None, "bytes=120000-", "bytes=240000-"]


@pytest.mark.parametrize("left_behind", [OTHER * 100, TEXT + b"!" * 10], ids=["foreign", "longer"])
def test_part_that_does_not_fit_is_thrown_away(
    two_files: Course, server: FileServer, left_behind: bytes
) -> None:
    server.cut["pair/text.bin"] = 0
    with pytest.raises(CourseError):
        store.find("pair")
    (part,) = two_files.cache.rglob("*.part")
    part.write_bytes(left_behind)
    server.cut.clear()
    assert (store.find("pair") / "text.bin").read_bytes() == TEXT


def test_two_processes_at_once_download_once(two_files: Course, server: FileServer) -> None:
    server.gates["pair/text.bin"] = threading.Event()
    first = in_a_process("store.find('pair')")
    assert server.started.wait(60)
    # The second says so when it meets the lock; were there none, it would ask the server instead.
    code = "store.announce = lambda text: print(text, flush=True)\nprint(store.find('pair'))"
    second = in_a_process(code, stdout=subprocess.PIPE)
    assert second.stdout is not None
    said = second.stdout.readline()
    server.gates["pair/text.bin"].set()
    rest, _ = second.communicate(timeout=60)
    assert first.wait(60) == 0
    assert second.returncode == 0
    assert said == "Another process is fetching pair; waiting for it to finish.\n"
    assert rest == f"{two_files.cache / 'pair'}\n"
    assert server.hits == {"pair/text.bin": 1, "pair/other.txt": 1}


def test_force_fetches_again(two_files: Course, server: FileServer) -> None:
    store.find("pair")
    store.fetch("pair", force=True)
    assert server.hits == {"pair/text.bin": 2, "pair/other.txt": 2}
    assert store.verify("pair").ok


def test_force_that_fails_says_so_and_keeps_what_was_there(
    two_files: Course, server: FileServer
) -> None:
    folder = store.find("pair")
    del server.files["pair/text.bin"]
    with pytest.raises(CourseError, match="here and intact, but no source delivered it anew"):
        store.fetch("pair", force=True)
    assert store.find("pair") == folder
    assert (folder / "text.bin").read_bytes() == TEXT


def test_status_says_what_is_where(two_files: Course) -> None:
    two_files.add("nowhere", {"a.txt": OTHER}, {"kind": "bundled"})
    store.find("pair")
    pair, nowhere = store.status()
    assert pair == store.Status(
        "pair", "The set pair", 300_015, "CC0", two_files.cache / "pair", "ready"
    )
    assert (nowhere.folder, nowhere.state) == (None, "missing")


# -- large files: hashed once ----------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read to be hashed, in order; files above 100 kB count as large."""
    from course_utils.data import files

    paths: list[Path] = []
    real = files.sha256_of

    def counting(path: Path) -> str:
        paths.append(path)
        return real(path)

    monkeypatch.setattr(files, "sha256_of", counting)
    monkeypatch.setattr(verification, "LARGE", 100_000)
    return paths


def test_large_file_is_hashed_once_small_ones_always(two_files: Course, hashed: list[Path]) -> None:
    folder = store.find("pair")
    hashed.clear()
    for _ in range(3):
        store.find("pair")
    assert hashed == [folder / "other.txt"] * 3
    hashed.clear()
    store.verify("pair")
    assert hashed == [folder / "text.bin", folder / "other.txt"]


def test_touched_large_file_is_hashed_again(two_files: Course, hashed: list[Path]) -> None:
    path = store.find("pair") / "text.bin"
    before = path.stat()
    with path.open("r+b") as file:
        file.write(bytes([TEXT[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    hashed.clear()
    assert not verification.inspect(store.look_up("pair"), path.parent).ok
    assert path in hashed


def test_replaced_large_file_is_hashed_again(two_files: Course, hashed: list[Path]) -> None:
    """Same name, size and modification time, another inode: what restoring a backup leaves."""
    path = store.find("pair") / "text.bin"
    before = path.stat()
    twin = path.with_suffix(".twin")
    twin.write_bytes(bytes([TEXT[0] ^ 1]) + TEXT[1:])
    os.utime(twin, ns=(before.st_atime_ns, before.st_mtime_ns))
    twin.replace(path)
    assert not verification.inspect(store.look_up("pair"), path.parent).ok


def test_note_for_other_bytes_is_not_believed(two_files: Course, hashed: list[Path]) -> None:
    """A new edition of the catalogue pins another hash for a file of the same name and size."""
    store.find("pair")
    two_files.tables["pair"]["files"][0]["sha256"] = hashlib.sha256(b"new").hexdigest()
    two_files.write()
    assert not verification.inspect(store.look_up("pair"), two_files.cache / "pair").ok


def test_broken_note_costs_only_time(two_files: Course, hashed: list[Path]) -> None:
    folder = store.find("pair")
    (folder / ".verified.json").write_text("{half")
    hashed.clear()
    assert store.find("pair") == folder
    assert folder / "text.bin" in hashed


# -- disks that are full, read-only, or not ours ---------------------------------------------------


def test_full_disk_stops_at_once_and_says_so(
    two_files: Course, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    two_files.tables["pair"]["sources"] *= 2
    two_files.write()
    with monkeypatch.context() as context:
        context.setattr(os, "fsync", full)
        with pytest.raises(CourseError) as raised:
            store.find("pair")
    assert "is full" in str(raised.value)
    assert "COURSE_DATA_DIR" in str(raised.value)
    assert str(raised.value).endswith("course data get pair")
    assert server.hits == {"pair/text.bin": 1}
    assert not (two_files.cache / "pair" / "text.bin").exists()
    assert store.verify("pair").state == "missing"
    assert (store.find("pair") / "text.bin").read_bytes() == TEXT


def test_too_little_space_is_seen_before_downloading(
    two_files: Course, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 300_014

    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(CourseError, match=r"is full; pair takes 0\.3 MB"):
        store.find("pair")
    assert not server.hits
    Usage.free += 1
    store.find("pair")


def test_cache_that_is_no_folder(two_files: Course, server: FileServer) -> None:
    two_files.cache.write_text("a file stands where the cache should be")
    with pytest.raises(CourseError, match=r"Cannot write to .*COURSE_DATA_DIR.*course data get"):
        store.find("pair")
    assert not server.hits


# -- silence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_only_on_a_terminal(
    two_files: Course,
    terminal: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    store.find("pair")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("text.bin" in captured.err) == terminal
    assert terminal or captured.err == ""
