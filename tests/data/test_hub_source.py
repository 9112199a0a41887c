"""The Hugging Face hub and ModelScope: the real client against a stand-in for the hub."""

import gzip
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet
from standins import COMMIT, Course, FileServer

from course_utils.base.errors import CourseError
from course_utils.data import idx, store

TEXT = bytes(range(256)) * 1000
REPO = "someone/stories"
PLACE = f"datasets/{REPO}/resolve/{COMMIT}"


def hub_source(**more: Any) -> dict[str, Any]:
    return {"kind": "huggingface", "repo": REPO, "revision": COMMIT, **more}


def test_file_comes_from_the_endpoint_at_the_pinned_revision(
    course: Course,
    hub: FileServer,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TQDM_POSITION", "-1")  # forces the client's own progress bars on
    hub.files[f"{PLACE}/data/stories.txt"] = TEXT
    course.add(
        "stories", {"stories.txt": TEXT}, hub_source(paths={"stories.txt": "data/stories.txt"})
    )
    folder = store.find("stories")
    assert (folder / "stories.txt").read_bytes() == TEXT
    assert sorted(p.name for p in folder.iterdir() if p.name != ".lock") == ["stories.txt"]
    assert hub.hits == {f"{PLACE}/data/stories.txt": 1}
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_model_repository(course: Course, hub: FileServer) -> None:
    hub.files[f"{REPO}/resolve/{COMMIT}/model.gguf"] = TEXT
    course.add("model", {"model.gguf": TEXT}, hub_source(repo_type="model"))
    assert (store.find("model") / "model.gguf").read_bytes() == TEXT


def test_file_that_the_repository_lacks(course: Course, hub: FileServer) -> None:
    course.add("stories", {"stories.txt": TEXT}, hub_source())
    with pytest.raises(CourseError, match=f"huggingface {REPO}@{COMMIT[:12]}: .*HTTP 404"):
        store.find("stories")


def test_wrong_bytes_from_the_hub_are_refused(course: Course, hub: FileServer) -> None:
    hub.files[f"{PLACE}/stories.txt"] = TEXT[::-1]
    course.add("stories", {"stories.txt": TEXT}, hub_source())
    with pytest.raises(CourseError, match=r"sha256 .* instead of"):
        store.find("stories")
    hub.files[f"{PLACE}/stories.txt"] = TEXT
    assert (store.find("stories") / "stories.txt").read_bytes() == TEXT


def test_hub_that_does_not_answer(
    course: Course, hub: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the client waits between its attempts
    course.add("stories", {"a.txt": TEXT, "b.txt": TEXT}, hub_source())
    with pytest.raises(CourseError) as raised:
        store.find("stories")
    assert str(raised.value).count("huggingface someone") == 1
    assert "Connection refused" in str(raised.value)
    assert "course data get stories" in str(raised.value)


# -- image sets that the hub keeps as parquet ------------------------------------------------------

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 10, 50, dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def as_parquet(images: np.ndarray, labels: np.ndarray) -> bytes:
    """The hub's own layout: an image column of {bytes, path}, an integer label column."""
    cells = [{"bytes": png(image), "path": None} for image in images]
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"image": cells, "label": labels.astype("int64")}), buffer)
    return buffer.getvalue()


def packed_idx(array: np.ndarray, folder: Path) -> bytes:
    """As the original would be: the same content, packed by another program."""
    raw = gzip.decompress(idx.write(array, folder / "idx.gz").read_bytes())
    return gzip.compress(raw, 1)


@pytest.fixture
def shapes(course: Course, hub: FileServer, tmp_path: Path) -> Course:
    source = {
        "kind": "huggingface-images",
        "repo": REPO,
        "revision": COMMIT,
        "images": {"images.gz": "train.parquet"},
        "labels": {"labels.gz": "train.parquet"},
    }
    files = {
        "images.gz": packed_idx(IMAGES, tmp_path),
        "labels.gz": packed_idx(LABELS, tmp_path),
    }
    course.add("shapes", files, source)
    return course


def test_parquet_becomes_the_idx_files_it_was_made_from(shapes: Course, hub: FileServer) -> None:
    hub.files[f"{PLACE}/train.parquet"] = as_parquet(IMAGES, LABELS)
    folder = store.find("shapes")
    assert np.array_equal(idx.read(folder / "images.gz"), IMAGES)
    assert np.array_equal(idx.read(folder / "labels.gz"), LABELS)
    assert hub.hits[f"{PLACE}/train.parquet"] == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (as_parquet(IMAGES[::-1], LABELS), "images.gz: .* instead of"),
        (as_parquet(np.stack([IMAGES] * 3, -1), LABELS), "its images are RGB, not grey"),
        (as_parquet(IMAGES, LABELS)[:-100], "no parquet column 'image'"),
        (b"<html>a proxy's page</html>", "no parquet column 'image'"),
    ],
    ids=["order", "colour", "truncated", "html"],
)
def test_parquet_that_is_not_the_set(
    shapes: Course, hub: FileServer, content: bytes, says: str
) -> None:
    hub.files[f"{PLACE}/train.parquet"] = content
    with pytest.raises(CourseError, match=says):
        store.find("shapes")
    assert not (shapes.cache / "shapes" / "images.gz").exists()
    hub.files[f"{PLACE}/train.parquet"] = as_parquet(IMAGES, LABELS)
    assert np.array_equal(idx.read(store.find("shapes") / "images.gz"), IMAGES)


# -- ModelScope ------------------------------------------------------------------------------------


def test_modelscope(course: Course, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_DOMAIN", server.url.rstrip("/"))
    server.files[f"datasets/{REPO}/resolve/v1/data/stories.txt"] = TEXT
    source = {"kind": "modelscope", "repo": REPO, "revision": "v1"}
    course.add(
        "stories", {"stories.txt": TEXT}, source | {"paths": {"stories.txt": "data/stories.txt"}}
    )
    assert (store.find("stories") / "stories.txt").read_bytes() == TEXT
