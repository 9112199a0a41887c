"""Versions of a folder: complete or absent, and never taken for good when they are not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from course_utils.training.storage import snapshots


def write(root: Path, step: int, keep: int = 2) -> Path:
    def fill(folder: Path) -> None:
        (folder / "a.bin").write_bytes(bytes(100) + bytes([step]))
        (folder / "b.bin").write_bytes(b"second")

    return snapshots.write(root, step, fill, keep)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        version = write(tmp_path, step)
    assert names(tmp_path) == ["step-00000002", "step-00000003"]
    assert snapshots.newest_intact(tmp_path) == (version, [])
    assert snapshots.step_of(version) == 3
    write(tmp_path, 4, keep=1)
    assert names(tmp_path) == ["step-00000004"]


def truncate(version: Path) -> None:
    (version / "a.bin").write_bytes(bytes(60))


def flip_a_bit(version: Path) -> None:
    content = bytearray((version / "a.bin").read_bytes())
    content[50] ^= 1
    (version / "a.bin").write_bytes(content)


def remove_a_file(version: Path) -> None:
    (version / "b.bin").unlink()


def add_a_file(version: Path) -> None:
    (version / "c.bin").touch()


def remove_the_manifest(version: Path) -> None:
    (version / snapshots.MANIFEST).unlink()


def cut_the_manifest(version: Path) -> None:
    path = version / snapshots.MANIFEST
    path.write_bytes(path.read_bytes()[:30])


def empty_the_manifest(version: Path) -> None:
    (version / snapshots.MANIFEST).write_text('{"a.bin": 3}')


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (truncate, "step-00000002/a.bin has 60 of 101 bytes"),
        (flip_a_bit, "step-00000002/a.bin was changed after it was written"),
        (remove_a_file, "step-00000002 lacks b.bin"),
        (add_a_file, "step-00000002 has an unexpected c.bin"),
        (remove_the_manifest, "step-00000002 has no readable manifest.json"),
        (cut_the_manifest, "step-00000002 has no readable manifest.json"),
        (empty_the_manifest, "step-00000002 has no readable manifest.json"),
    ],
)
def test_a_damaged_version_is_named_and_passed_over(
    tmp_path: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    good = write(tmp_path, 1)
    damage(write(tmp_path, 2))
    assert snapshots.newest_intact(tmp_path) == (good, [complaint])


def test_training_that_went_back_replaces_the_damaged_future(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    truncate(write(tmp_path, 5))
    write(tmp_path, 3)
    assert names(tmp_path) == ["step-00000002", "step-00000003"]
    truncate(tmp_path / "step-00000003")
    version = write(tmp_path, 3)  # the same step again
    assert snapshots.newest_intact(tmp_path) == (version, [])


def test_a_writer_that_fails_leaves_no_trace(tmp_path: Path) -> None:
    good = write(tmp_path, 1)

    def fill(folder: Path) -> None:
        (folder / "a.bin").write_bytes(b"half")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        snapshots.write(tmp_path, 2, fill, keep=1)
    assert names(tmp_path) == [good.name]
    assert snapshots.newest_intact(tmp_path) == (good, [])


@pytest.mark.parametrize("keep", range(1, 7))
def test_as_many_are_kept_as_were_asked_for(tmp_path: Path, keep: int) -> None:
    for step in range(1, 11):
        write(tmp_path, step, keep)
        wanted = range(max(1, step - keep + 1), step + 1)
        assert [snapshots.step_of(one) for one in snapshots.versions(tmp_path)] == list(wanted)


def test_to_look_disturbs_no_writer(tmp_path: Path) -> None:
    """Others read a run's newest version while the run writes the next."""
    write(tmp_path, 1)

    def fill(folder: Path) -> None:
        (folder / "a.bin").write_bytes(b"first")
        version, damage = snapshots.newest_intact(tmp_path)
        assert (version, damage) == (tmp_path / "step-00000001", [])
        (folder / "b.bin").write_bytes(b"second")

    version = snapshots.write(tmp_path, 2, fill, 1)
    assert snapshots.newest_intact(tmp_path) == (version, [])


def test_a_version_that_is_dropped_meanwhile_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, dropped = write(tmp_path, 1), write(tmp_path, 2)
    hashed = snapshots._sha256

    def drop_it(path: Path) -> str:
        if path.parent == dropped:
            path.unlink()
        return hashed(path)

    monkeypatch.setattr(snapshots, "_sha256", drop_it)
    version, [problem] = snapshots.newest_intact(tmp_path)
    assert version == good and "step-00000002 cannot be read" in problem


def test_leftovers_of_killed_writers_are_swept_away(tmp_path: Path) -> None:
    write(tmp_path, 1)
    for leftover in (".step-00000002.writing", ".step-00000000.removing"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "a.bin").write_bytes(b"half")
    write(tmp_path, 2)
    assert ".step" not in "".join(names(tmp_path))
    assert "step-00000001" in names(tmp_path)


def test_a_removal_that_is_interrupted_leaves_nothing_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path, ignore_errors: bool) -> None:
        (folder / "a.bin").unlink()
        raise KeyboardInterrupt

    for step in (1, 2):
        write(tmp_path, step)
    monkeypatch.setattr(snapshots.shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 3)
    found = snapshots.versions(tmp_path)
    assert [version.name for version in found] == ["step-00000002", "step-00000003"]
    for version in found:
        snapshots.verify(version)


def test_bytes_are_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def noting(kind: str, real: Callable) -> Callable:
        def call(path: Path, *arguments: object) -> object:
            events.append(f"{kind} {path.name}")
            return real(path, *arguments)

        return call

    monkeypatch.setattr(snapshots, "flush_file", noting("flush", snapshots.flush_file))
    monkeypatch.setattr(snapshots, "flush_folder", noting("flush", snapshots.flush_folder))
    monkeypatch.setattr(Path, "rename", noting("rename", Path.rename))
    write(tmp_path, 1)
    assert events == [
        "flush a.bin",
        "flush b.bin",
        "flush manifest.json",
        "flush .step-00000001.writing",
        "rename .step-00000001.writing",
        f"flush {tmp_path.name}",
    ]


def test_no_versions(tmp_path: Path) -> None:
    assert snapshots.newest_intact(tmp_path / "nothing") == (None, [])
