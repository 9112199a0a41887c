"""The catalogue: what the course ships is right, and what is wrong with another is said."""

import hashlib
from pathlib import Path

import pytest

from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root
from course_utils.data import catalog
from course_utils.data.sources import KINDS

# Published with torchvision and, for the unpacked files, in many training frameworks.
RAW_MD5 = {
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
}


def test_shipped_catalogue_has_both_image_sets_with_every_particular() -> None:
    sets = catalog.load_catalog()
    assert {"mnist", "fashion_mnist"} <= set(sets)
    for dataset in sets.values():
        assert dataset.title and dataset.about and dataset.licence and dataset.citation
        assert dataset.sources or dataset.hub
        for entry in dataset.files:
            assert entry.bytes > 0
            assert len(bytes.fromhex(entry.sha256)) == 32
        readme = course_root() / "data" / dataset.name / "README.md"
        assert dataset.licence in readme.read_text(), f"{readme} names another licence"


def test_fashion_mnist_can_be_had_over_the_network_without_the_hub() -> None:
    kinds = [source.kind for source in catalog.load_catalog()["fashion_mnist"].sources]
    assert kinds[0] == "url"
    assert "huggingface-images" in kinds


@pytest.mark.parametrize("name", ["mnist"])
def test_bundled_files_unpack_to_the_canonical_bytes(name: str) -> None:
    import gzip

    for raw, md5 in RAW_MD5[name].items():
        packed = course_root() / "data" / name / f"{raw}.gz"
        assert hashlib.md5(gzip.decompress(packed.read_bytes())).hexdigest() == md5


@pytest.mark.parametrize(
    ("asked", "suggested"),
    [("fashion-mnist", "fashion_mnist"), ("MNIST", "mnist"), ("mnits", "mnist")],
)
def test_unknown_name_suggests_the_nearest(asked: str, suggested: str) -> None:
    with pytest.raises(CourseError, match=f"did you mean {suggested}[?]"):
        catalog.look_up(asked)


def test_name_like_nothing_lists_what_there_is() -> None:
    with pytest.raises(CourseError, match="there are mnist, fashion_mnist"):
        catalog.look_up("zebra")


GOOD = """
[one]
title = "One"
about = "A set."
licence = "CC0"
citation = "nobody"
files = [{ name = "a.txt", bytes = 1, sha256 = "00" }]
sources = [{ kind = "url", base = "http://127.0.0.1/" }]
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('licence = "CC0"', "", "licence"),
        ('files = [{ name = "a.txt", bytes = 1, sha256 = "00" }]', "", "files"),
        ('sha256 = "00"', 'sha_256 = "00"', "sha_256"),
        ('kind = "url"', 'kind = "ftp"', "'ftp' is none of bundled, url"),
        ('base = "http', 'bass = "http', "bass"),
        ('name = "a.txt"', 'name = "../a.txt"', "plain file name"),
        ("[one]", "[one", "no valid TOML"),
    ],
)
def test_mistake_in_a_catalogue_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(GOOD)
    assert catalog.load_catalog(path)["one"].bytes == 1
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(CourseError, match=says):
        catalog.load_catalog(path)


def test_missing_catalogue_says_how_to_get_it_back(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match="git checkout -- data"):
        catalog.load_catalog(tmp_path / "catalog.toml")


def test_every_kind_of_source_is_explained_in_the_catalogue() -> None:
    text = (course_root() / "data" / "catalog.toml").read_text()
    for kind in KINDS:
        assert f"#   {kind} " in text
