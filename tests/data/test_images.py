"""Image sets as tensors and as torchvision's data sets: the same pixels, both ways."""

import gzip
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from standins import Course
from test_catalog import RAW_MD5

from course_utils.base.errors import CourseError
from course_utils.data import idx, images, store


def test_mnist_is_whole_and_in_its_published_order() -> None:
    mnist = images.load_images("mnist")
    assert mnist.train_images.shape == (60_000, 28, 28)
    assert mnist.test_images.shape == (10_000, 28, 28)
    assert mnist.train_images.dtype == mnist.test_images.dtype == torch.uint8
    assert mnist.train_labels.dtype == mnist.test_labels.dtype == torch.int64
    assert mnist.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert torch.bincount(mnist.test_labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009
    ]  # fmt: skip
    assert mnist.classes == tuple("0123456789")
    assert repr(mnist) == (
        "ImageSet(mnist: 60,000 training and 10,000 test images of 28×28, 10 classes)"
    )


def test_torchvision_reads_the_same_pixels_and_labels() -> None:
    mnist = images.load_images("mnist")
    train = images.torchvision_dataset("mnist", train=True)
    test = images.torchvision_dataset("mnist", train=False, transform=np.asarray)
    assert type(train).__module__.startswith("torchvision.")
    assert torch.equal(train.data, mnist.train_images)
    assert torch.equal(train.targets, mnist.train_labels)
    assert torch.equal(test.data, mnist.test_images)
    assert torch.equal(test.targets, mnist.test_labels)
    image, label = test[7]
    assert np.array_equal(image, mnist.test_images[7].numpy())
    assert label == mnist.test_labels[7]


def test_unpacked_files_are_the_canonical_ones_and_are_repaired() -> None:
    raw = Path(images.torchvision_dataset("mnist", train=True).raw_folder)
    labels = raw / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x0b")
    images.torchvision_dataset("mnist", train=True)
    for name, md5 in RAW_MD5["mnist"].items():
        assert hashlib.md5((raw / name).read_bytes()).hexdigest() == md5
    assert not list(raw.glob("*.part"))


def test_tensors_may_be_written_to() -> None:
    """Nothing warns, nothing is shared: a second load is not touched by changes to the first."""
    first = images.load_images("mnist")
    first.test_images.zero_()
    assert images.load_images("mnist").test_images.any()


# -- sets of the test's own ------------------------------------------------------------------------


def image_files(folder: Path, n: int = 20) -> dict[str, bytes]:
    """A small image set in MNIST's four files; the labels are 0, 1, 2, 0, 1, 2, …"""
    rng = np.random.default_rng(0)
    files = {}
    for split in ("train", "t10k"):
        pixels = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 3).astype(np.uint8)
        for name, array in {"images-idx3": pixels, "labels-idx1": labels}.items():
            files[f"{split}-{name}-ubyte.gz"] = idx.write(array, folder / "idx.gz").read_bytes()
    return files


def bundle(course: Course, name: str, files: dict[str, bytes]) -> Path:
    """Bundle a set whose catalogue entry pins exactly `files`, right or wrong."""
    course.add(name, files, {"kind": "bundled"})
    course.tables[name]["classes"] = ["zero", "one", "two"]
    course.write()
    folder = course.root / "data" / name
    folder.mkdir()
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


def test_fashion_mnist_is_read_by_its_own_torchvision_class(course: Course, tmp_path: Path) -> None:
    bundle(course, "fashion_mnist", image_files(tmp_path))
    loaded = images.load_images("fashion_mnist")
    test = images.torchvision_dataset("fashion_mnist", train=False)
    assert type(test).__name__ == "FashionMNIST"
    assert torch.equal(test.data, loaded.test_images)
    assert torch.equal(test.targets, loaded.test_labels)


TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        (TRAIN_IMAGES, gzip.compress(b"not IDX at all"), "starts with 6e 6f 74 20, not with an"),
        (TRAIN_IMAGES, gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2, 1, 1])), "1 axes instead of 3"),
        (TRAIN_LABELS, gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2, 1, 1])), "20 train images but"),
        (
            TRAIN_LABELS,
            gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 20]) + bytes([3] * 20)),
            "label is 3, but there are 3 classes",
        ),
    ],
    ids=["header", "axes", "count", "label"],
)
def test_catalogued_nonsense_is_refused_with_the_command(
    course: Course, tmp_path: Path, file: str, content: bytes, says: str
) -> None:
    """The hashes are right, so only the reader can notice."""
    bundle(course, "mnist", image_files(tmp_path) | {file: content})
    with pytest.raises(CourseError, match=says) as raised:
        images.load_images("mnist")
    assert "course data get mnist" in str(raised.value)


def test_damaged_file_is_never_read(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bundle(course, "mnist", image_files(tmp_path))
    damaged = bytearray((folder / TRAIN_IMAGES).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (folder / TRAIN_IMAGES).write_bytes(damaged)
    read: list[Path] = []
    monkeypatch.setattr(idx, "read", read.append)
    for use in (images.load_images, lambda name: images.torchvision_dataset(name, train=True)):
        with pytest.raises(CourseError, match="course data get mnist"):
            use("mnist")
    assert not read


def test_torchvision_does_not_know_every_set(course: Course) -> None:
    with pytest.raises(CourseError, match="torchvision reads mnist and fashion_mnist, not 'other'"):
        images.torchvision_dataset("other", train=True)


def test_cache_that_cannot_be_written_still_loads_bundled_tensors(
    course: Course, tmp_path: Path
) -> None:
    bundle(course, "mnist", image_files(tmp_path))
    course.cache.write_text("a file stands where the cache should be")
    assert len(images.load_images("mnist").train_images) == 20
    with pytest.raises(CourseError, match=r"Cannot write to .*COURSE_DATA_DIR"):
        images.torchvision_dataset("mnist", train=True)


def test_finding_data_imports_no_torch() -> None:
    code = "import sys; from course_utils.data import store; store.find('mnist'); store.status(); "
    code += "print([name for name in ('torch', 'numpy', 'huggingface_hub') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr
    assert store.find("mnist")
