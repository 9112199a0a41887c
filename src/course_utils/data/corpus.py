"""Tokens on disk: a data set tokenized once, then mapped into memory and read at random.

    corpus/
      train.tokens      the ids of all documents, one after another (uint16, or uint32 from 65,536)
      train.starts      where each document begins, and where the last one ends (int64)
      train.learn       for chats, the loss mask: 1 for each token in the loss (uint8)
      validation.*      the same for the validation set
      corpus.json       what it is, and its fingerprint; written last, so it means a whole corpus

The writer never holds the whole corpus in memory: it writes pieces, and after a crash it resumes at
the last complete piece. Whether a document is held out depends only on its text, so a document that
occurs twice is never in both sets.

This module has more than 300 lines because the writer and the reader share one file format.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt
from tqdm import tqdm

from course_utils.base.errors import CourseError
from course_utils.base.progress_bar import on_terminal
from course_utils.data.files import install, sha256_of
from course_utils.data.records import Account
from course_utils.data.store import only_one

SPLITS = ("train", "validation")
PIECE = 512  # documents tokenized at once, on all cores, and written together


@dataclass(frozen=True)
class Encoded:
    """One document's ids, and for chats the loss mask."""

    ids: Sequence[int]
    learn: Sequence[bool] | None = None


Encode = Callable[[Sequence[Any]], list[Encoded]]


@dataclass(frozen=True)
class Split:
    """One side of a corpus; the arrays lie on the disk until they are read.

    Attributes:
        tokens: The ids of all documents, one after another.
        starts: Document i is `tokens[starts[i] : starts[i + 1]]`.
        learn: The loss mask; None means that every token counts.
    """

    tokens: UInt[np.ndarray, "n_tokens"]
    starts: Int64[np.ndarray, "n_documents_plus_1"]
    learn: Bool[np.ndarray, "n_tokens"] | None = None

    @property
    def lengths(self) -> Int64[np.ndarray, "n_documents"]:
        """Tokens of each document."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Corpus:
    """A tokenized data set.

    Attributes:
        folder: Where it lies.
        train, validation: Its two sides.
        about: What corpus.json says: its source, its counts, what was malformed.
    """

    folder: Path
    train: Split
    validation: Split
    about: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """What tells its contents from any other's."""
        return self.about["fingerprint"]


def open_corpus(folder: Path) -> Corpus:
    """Map a corpus into memory.

    Raises:
        CourseError: when there is none, or its files are not as long as it says.
    """
    try:
        about = json.loads((folder / "corpus.json").read_text("utf-8"))
        train, validation = (_open_split(folder, name, about) for name in SPLITS)
    except FileNotFoundError:
        raise CourseError(f"There is no whole corpus in {folder}.") from None
    except (OSError, ValueError, KeyError) as error:
        raise CourseError(
            f"The corpus in {folder} is damaged ({error}). "
            "Delete that folder and run again to rebuild it."
        ) from None
    return Corpus(folder, train, validation, about)


def _open_split(folder: Path, name: str, about: dict[str, Any]) -> Split:
    counts = about["splits"][name]

    def mapped(kind: str, dtype: Any, length: int) -> np.ndarray:
        path = folder / f"{name}.{kind}"
        if path.stat().st_size != length * np.dtype(dtype).itemsize:
            raise ValueError(f"{path.name} has {path.stat().st_size} bytes")
        return np.memmap(path, dtype, "r") if length else np.zeros(0, dtype)

    return Split(
        mapped("tokens", about["dtype"], counts["tokens"]),
        np.asarray(mapped("starts", np.int64, counts["documents"] + 1)),
        mapped("learn", np.bool_, counts["tokens"]) if about["masked"] else None,
    )


def build_corpus(
    folder: Path,
    documents: Iterator[Any],
    encode: Encode,
    *,
    vocab: int,
    held_out: float,
    masked: bool = False,
    side_by: Callable[[Any], Any] = lambda document: document,
    account: Account | None = None,
    about: dict[str, Any] | None = None,
) -> Corpus:
    """Tokenize documents into a corpus, or open the one that is there already.

    Args:
        folder: Of this corpus alone; its name should say the source and the tokenizer.
        documents: In an order that is the same every time: a second attempt skips what the first
            one has written.
        encode: Many documents at once to their ids.
        vocab: One more than the greatest id.
        held_out: The share of the documents in the validation set; at least one document.
        masked: Whether `encode` returns loss masks.
        side_by: Returns the content that decides whether a document is held out; by default all of
            it.
        account: Counts the source's records; corpus.json stores the counts.
        about: Further entries of corpus.json.

    Raises:
        CourseError: when there are fewer than two documents, or the disk is full.
    """
    with only_one(folder, f"corpus {folder.name}"):
        try:
            if (folder / "corpus.json").is_file():
                _add_fingerprint(open_corpus(folder))
            else:
                writer = _Writer(folder, vocab, masked)
                _write_all(
                    writer, documents, encode, lambda doc: is_held_out(side_by(doc), held_out)
                )
                told = {"malformed": account.malformed, "records": account.good} if account else {}
                writer.finish((about or {}) | told)
        except OSError as error:
            raise CourseError(
                f"Could not write {folder}: {error.strerror or error}. Make room, or set "
                "COURSE_DATA_DIR to another disk, and run the same command again: it will resume."
            ) from None
    return open_corpus(folder)


def _write_all(
    writer: "_Writer",
    documents: Iterator[Any],
    encode: Encode,
    held_out: Callable[[Any], bool],
) -> None:
    rest = islice(documents, writer.read, None)
    bar = tqdm(desc="tokenizing", unit=" documents", disable=not on_terminal(), initial=writer.read)
    with bar:
        while piece := list(islice(rest, PIECE)):
            writer.append(list(map(held_out, piece)), encode(piece))
            bar.update(len(piece))


class _Writer:
    """Writes a corpus piece by piece; what is complete up to where is in `progress.json`."""

    def __init__(self, folder: Path, vocab: int, masked: bool) -> None:
        self.folder, self.masked = folder, masked
        self.dtype = np.dtype("uint16" if vocab <= 1 << 16 else "uint32")
        self.kinds = _kinds(masked)
        self.read = 0
        self.counts = {name: {"documents": 0, "tokens": 0} for name in SPLITS}
        self._go_on()

    def append(self, held_out: Sequence[bool], encoded: Sequence[Encoded]) -> None:
        """Add documents to the ends of the files of their sides, and note that they are there."""
        for name in SPLITS:
            mine = [
                one
                for one, out in zip(encoded, held_out, strict=True)
                if out == (name == "validation")
            ]
            self._write(name, mine)
        self.read += len(encoded)
        self._note()

    def finish(self, about: dict[str, Any]) -> None:
        """Write corpus.json, after which the corpus is whole."""
        if not self.counts["validation"]["documents"]:
            self._hold_out_the_last()
        if not all(counts["documents"] for counts in self.counts.values()):
            raise CourseError(
                "A corpus needs at least two documents: one to train on, one to validate on."
            )
        described = about | {
            "dtype": self.dtype.name,
            "masked": self.masked,
            "splits": self.counts,
            "fingerprint": _fingerprint(self.folder, self.kinds),
        }
        _write_json(self.folder / "corpus.json", described)
        (self.folder / "progress.json").unlink()

    def _write(self, name: str, encoded: Sequence[Encoded]) -> None:
        if not encoded:
            return
        counts = self.counts[name]
        ends = counts["tokens"] + np.cumsum([len(one.ids) for one in encoded])
        arrays = {
            "tokens": np.concatenate([np.asarray(one.ids, self.dtype) for one in encoded]),
            "starts": ends.astype(np.int64),
        }
        if self.masked:
            arrays["learn"] = np.concatenate([np.asarray(one.learn, np.bool_) for one in encoded])
        for kind, array in arrays.items():
            with (self.folder / f"{name}.{kind}").open("ab") as file:
                array.tofile(file)
                file.flush()
                os.fsync(file.fileno())
        counts["documents"] += len(encoded)
        counts["tokens"] = int(ends[-1])

    def _go_on(self) -> None:
        """Cut the files back to the last piece that is known to be complete."""
        try:
            noted = json.loads((self.folder / "progress.json").read_text("utf-8"))
            self.read, self.counts = noted["read"], noted["counts"]
        except (OSError, ValueError, KeyError):
            self._note()
        for name in SPLITS:
            for kind in self.kinds:
                path = self.folder / f"{name}.{kind}"
                path.touch()
                os.truncate(path, self._bytes(name, kind))
            if not self.counts[name]["documents"]:
                np.zeros(1, np.int64).tofile(self.folder / f"{name}.starts")

    def _bytes(self, name: str, kind: str) -> int:
        counts = self.counts[name]
        if kind == "starts":
            return 8 * (counts["documents"] + 1) if counts["documents"] else 0
        return counts["tokens"] * (self.dtype.itemsize if kind == "tokens" else 1)

    def _note(self) -> None:
        _write_json(self.folder / "progress.json", {"read": self.read, "counts": self.counts})

    def _hold_out_the_last(self) -> None:
        """Too few documents for chance to pick one: the last one is held out."""
        train = self.counts["train"]
        if train["documents"] < 2:
            return
        starts = np.fromfile(self.folder / "train.starts", np.int64)
        ids = np.fromfile(self.folder / "train.tokens", self.dtype)[starts[-2] :]
        learn = None
        if self.masked:
            learn = np.fromfile(self.folder / "train.learn", np.bool_)[starts[-2] :].tolist()
        self._write("validation", [Encoded(ids.tolist(), learn)])
        train["documents"] -= 1
        train["tokens"] = int(starts[-2])
        for kind in self.kinds:
            os.truncate(self.folder / f"train.{kind}", self._bytes("train", kind))


def is_held_out(document: Any, share: float) -> bool:
    """Whether a document belongs to the held-out side: a matter of its content alone."""
    text = document if isinstance(document, str) else json.dumps(document, sort_keys=True)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def sections(text: str, longest: int = 8000) -> list[str]:
    """A long text in sections of at most `longest` characters, cut at the ends of lines.

    A book is one document, and it would be held out as a whole or not at all.
    """
    found, start = [], 0
    while len(text) - start > longest:
        end = text.rfind("\n", start, start + longest) + 1
        end = end if end > start else start + longest
        found.append(text[start:end])
        start = end
    return [*found, text[start:]]


def _kinds(masked: bool) -> tuple[str, ...]:
    return ("tokens", "starts", "learn") if masked else ("tokens", "starts")


def _fingerprint(folder: Path, kinds: Sequence[str]) -> str:
    """Of all that a corpus holds; read once, when it is written, as it may be many gigabytes."""
    hashes = [sha256_of(folder / f"{name}.{kind}") for name in SPLITS for kind in kinds]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16]


def _add_fingerprint(corpus: Corpus) -> None:
    """For a corpus that was written before they were kept."""
    if "fingerprint" not in corpus.about:
        found = _fingerprint(corpus.folder, _kinds(corpus.about["masked"]))
        _write_json(corpus.folder / "corpus.json", corpus.about | {"fingerprint": found})


def delete_corpus(folder: Path) -> None:
    """Remove a corpus and all that belongs to it."""
    shutil.rmtree(folder, ignore_errors=True)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    draft = path.with_name(f".{path.name}.writing")
    draft.write_text(json.dumps(content, indent=1, ensure_ascii=False), "utf-8")
    install(draft, path)
