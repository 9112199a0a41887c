"""The IDX format: what is written is read, and anything else is named."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from course_utils.data import idx


@settings(max_examples=40)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=40)))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    path = idx.write(array, tmp_path_factory.mktemp("idx") / "a.gz")
    back = idx.read(path)
    assert back.dtype == np.uint8
    assert back.flags.writeable
    assert np.array_equal(back, array)


def test_layout_is_that_of_mnist(tmp_path: Path) -> None:
    """Type 8 and three axes make the magic number 2051 that every MNIST reader looks for."""
    path = idx.write(np.zeros((2, 3, 4), np.uint8), tmp_path / "a.gz")
    raw = gzip.decompress(path.read_bytes())
    assert int.from_bytes(raw[:4], "big") == 2051
    assert raw[4:16] == bytes([0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4])
    assert len(raw) == 16 + 24


def test_large_array_spans_many_pieces(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (700, 28, 28), dtype=np.uint8)
    assert np.array_equal(idx.read(idx.write(array, tmp_path / "a.gz")), array)


def header(*shape: int) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


WHOLE = header(5) + b"12345"


def packed(content: bytes) -> bytes:
    """gzip without the current second in its header: the same bytes every time."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (WHOLE, "not a gzip file"),
        (packed(WHOLE)[:-6], "ends too early"),
        (packed(WHOLE)[:-8] + bytes(8), "not a gzip file .*incorrect data check"),
        (packed(b"P5 28 28"), "starts with 50 35 20 32, not with an IDX header"),
        (packed(b""), "starts with nothing"),
        (packed(bytes([0, 0, 13, 1]) + WHOLE[4:]), "starts with 00 00 0d 01"),
        (packed(header(5)[:6]), "ends inside its header"),
        (packed(WHOLE[:-1]), "has 4 values instead of 5"),
        (packed(WHOLE + b"6"), "more values than 5"),
        (packed(header(60000, 60000, 60000)), "cannot be"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    with pytest.raises(idx.IdxError, match=says):
        idx.read(path)


@given(st.data())
def test_no_truncation_goes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = packed(header(300) + bytes(range(100)) * 3)
    path = tmp_path_factory.mktemp("idx") / "a.gz"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(idx.IdxError):
        idx.read(path)
