"""The IDX format of MNIST: a big-endian header (type, number of axes, their lengths), then bytes.

Described on the MNIST page of LeCun, Cortes and Burges. Only unsigned bytes (type 8) occur here.
"""

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_UNSIGNED_BYTE = 8
_MOST_AXES = 4
_MOST_VALUES = 1 << 32
_CHUNK = 1 << 16
_GZIP_WINDOW = 31  # zlib: a 32 KiB window, with gzip's header and checksum around the stream


class IdxError(ValueError):
    """The bytes are no such array; the message says what was found."""


def read(path: Path) -> NDArray[np.uint8]:
    """The array in a gzip-packed IDX file, unpacked straight into its final block of memory.

    Raises:
        IdxError: broken gzip, a header that is not IDX, or too few or too many values.
        OSError: the file cannot be read.
    """
    inflate = zlib.decompressobj(_GZIP_WINDOW)
    try:
        with path.open("rb") as file:
            piece = inflate.decompress(file.read(_CHUNK))
            shape, start = _header(piece)
            array = np.empty(shape, np.uint8)
            values, filled, piece = array.reshape(-1), 0, piece[start:]
            while True:
                if filled + len(piece) > len(values):
                    raise IdxError(f"has more values than {_times(shape)}, as its header says")
                values[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
                filled += len(piece)
                if not (packed := file.read(_CHUNK)):
                    break
                piece = inflate.decompress(packed)
    except zlib.error as error:
        raise IdxError(f"not a gzip file ({error})") from None
    if not inflate.eof:
        raise IdxError("its gzip stream ends too early")
    if filled < len(values):
        raise IdxError(f"has {filled:,} values instead of {_times(shape)}, as its header says")
    return array


def _header(raw: bytes) -> tuple[tuple[int, ...], int]:
    """The array's shape, and where its values start."""
    if len(raw) < 4 or raw[:3] != bytes([0, 0, _UNSIGNED_BYTE]) or not 0 < raw[3] <= _MOST_AXES:
        raise IdxError(f"starts with {raw[:4].hex(' ') or 'nothing'}, not with an IDX header")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise IdxError("ends inside its header")
    shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
    if math.prod(shape) > _MOST_VALUES:
        raise IdxError(f"its header says {_times(shape)} values, which cannot be")
    return shape, start


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def write(array: NDArray[np.uint8], path: Path) -> Path:
    """Write `array` as a gzip-packed IDX file; the same array gives the same bytes.

    Returns:
        `path`.
    """
    header = struct.pack(f">2x2B{array.ndim}I", _UNSIGNED_BYTE, array.ndim, *array.shape)
    with path.open("wb") as out, gzip.GzipFile("", "wb", fileobj=out, mtime=0) as packed:
        packed.write(header)
        packed.write(np.ascontiguousarray(array).data)
    return path


def parquet_images(path: Path) -> NDArray[np.uint8]:
    """The grey images in a parquet file's column `image`, as (images, height, width).

    Raises:
        IdxError: no such column, or images that are not grey and of one size.
    """
    from PIL import Image, UnidentifiedImageError

    cells = _column(path, "image")
    try:
        pictures = [Image.open(io.BytesIO(cell["bytes"])) for cell in cells]
        pixels = np.stack([np.asarray(picture) for picture in pictures])
    except (UnidentifiedImageError, OSError, ValueError, TypeError, KeyError) as error:
        raise IdxError(f"its images cannot be read ({error})") from None
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise IdxError(f"its images are {pictures[0].mode}, not grey")
    return pixels


def parquet_labels(path: Path) -> NDArray[np.uint8]:
    """The class numbers in a parquet file's column `label`.

    Raises:
        IdxError: no such column, or numbers outside 0 to 255.
    """
    try:
        return np.array(_column(path, "label"), dtype=np.uint8)
    except (OverflowError, ValueError, TypeError) as error:
        raise IdxError(f"its labels cannot be read ({error})") from None


def _column(path: Path, name: str) -> list:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.read_table(path, columns=[name]).column(name).to_pylist()
    except (pyarrow.ArrowException, KeyError, OSError) as error:
        raise IdxError(f"no parquet column {name!r} ({str(error).splitlines()[0]})") from None
