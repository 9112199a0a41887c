"""Image sets as tensors: all pixels in memory for training, or as torchvision's own data sets.

MNIST is 55 MB of pixels. Held as one uint8 tensor it needs no workers, no decoding and no
per-image Python, which is what makes an epoch take seconds on two cores; `torchvision_dataset`
is the same data behind the interface that every tutorial uses.
"""

import gzip
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from course_utils.base.errors import CourseError
from course_utils.base.paths import data_dir
from course_utils.data import idx
from course_utils.data.catalog import DataSet, look_up
from course_utils.data.files import install, problem_with
from course_utils.data.store import disk_errors, find, only_one

if TYPE_CHECKING:
    from torchvision.datasets import MNIST

_TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}  # class names by set


@dataclass(frozen=True, repr=False)
class ImageSet:
    """A whole image set in memory, as it was published: no scaling, no shuffling.

    Attributes:
        train_images, test_images: grey values, 0 (black) to 255 (white).
        train_labels, test_labels: class numbers, indices into `classes`.
        classes: what each class is called.
    """

    name: str
    train_images: UInt8[Tensor, "n_train height width"]
    train_labels: Int64[Tensor, " n_train"]
    test_images: UInt8[Tensor, "n_test height width"]
    test_labels: Int64[Tensor, " n_test"]
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        n_train, height, width = self.train_images.shape
        return (
            f"ImageSet({self.name}: {n_train:,} training and {len(self.test_images):,} test "
            f"images of {height}×{width}, {len(self.classes)} classes)"
        )


def load_images(name: str) -> ImageSet:
    """Read a whole image set, verified against the catalogue, into four tensors on the CPU.

    Args:
        name: a data set of IDX files, such as `mnist` or `fashion_mnist`.

    Raises:
        CourseError: the set is unknown, cannot be had, or is no image set.
    """
    dataset = look_up(name)
    folder = find(name)
    train_images, train_labels = _split(dataset, folder, "train")
    test_images, test_labels = _split(dataset, folder, "t10k")
    return ImageSet(name, train_images, train_labels, test_images, test_labels, dataset.classes)


def _split(
    dataset: DataSet, folder: Path, split: str
) -> tuple[UInt8[Tensor, "n height width"], Int64[Tensor, " n"]]:
    images = _read(dataset, folder / f"{split}-images-idx3-ubyte.gz", axes=3)
    labels = _read(dataset, folder / f"{split}-labels-idx1-ubyte.gz", axes=1).long()
    if len(images) != len(labels):
        raise CourseError(
            f"{dataset.name}: {len(images):,} {split} images but {len(labels):,} labels. "
            f"Run: {dataset.repair}"
        )
    if len(labels) and int(labels.max()) >= len(dataset.classes):
        raise CourseError(
            f"{dataset.name}: a {split} label is {int(labels.max())}, "
            f"but there are {len(dataset.classes)} classes. Run: {dataset.repair}"
        )
    return images, labels


def _read(dataset: DataSet, path: Path, axes: int) -> UInt8[Tensor, "..."]:
    try:
        array = idx.read(path)
        if array.ndim != axes:
            raise idx.IdxError(f"has {array.ndim} axes instead of {axes}")
    except (idx.IdxError, OSError) as error:
        raise CourseError(f"{path}: {error}. To repair it, run: {dataset.repair}") from None
    return torch.from_numpy(array)


def torchvision_dataset(
    name: str, train: bool, transform: Callable[[Any], Any] | None = None
) -> "MNIST":
    """torchvision's own `MNIST` or `FashionMNIST`, reading the course's verified files.

    torchvision wants the files unpacked under a layout of its own, and looks only at their names.
    They are unpacked into the data cache once, and compared with the catalogue at every call.

    Args:
        name: `mnist` or `fashion_mnist`.
        train: the training images, else the test images.
        transform: applied to each PIL image, as in torchvision.

    Raises:
        CourseError: the set cannot be had, torchvision does not know it, or the cache is full or
            not writable.
    """
    if name not in _TORCHVISION:
        raise CourseError(f"torchvision reads {' and '.join(_TORCHVISION)}, not {name!r}.")
    # torchvision imports all its models, which takes seconds; only this function needs it.
    import torchvision.datasets

    kind = getattr(torchvision.datasets, _TORCHVISION[name])
    root = data_dir() / name / "torchvision"
    _unpack(look_up(name), find(name), root / kind.__name__ / "raw")
    found: MNIST = kind(str(root), train=train, transform=transform)
    return found


def _unpack(dataset: DataSet, packed: Path, raw: Path) -> None:
    contents = {entry: entry.unpacked() for entry in dataset.files}
    if not any(problem_with(raw / content.name, content) for content in contents.values()):
        return
    with disk_errors(dataset, raw), only_one(raw, dataset.name):
        for entry, content in contents.items():
            if problem_with(raw / content.name, content):
                temporary = raw / f"{content.name}.part"
                with gzip.open(packed / entry.name) as source, temporary.open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
                install(temporary, raw / content.name)
