"""Tokens on disk: whole, the same every time, and whole again after a kill at any moment."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from course_utils.base.errors import CourseError
from course_utils.data import corpus as module
from course_utils.data.corpus import (
    Corpus,
    Encoded,
    Split,
    build_corpus,
    is_held_out,
    open_corpus,
    sections,
)

TEXTS = [f"document {i}: " + "x" * (i % 7) for i in range(300)]


def encode(piece: Sequence[str]) -> list[Encoded]:
    """Bytes, and a 0 at the end."""
    return [Encoded([*text.encode(), 0]) for text in piece]


def masked(piece: Sequence[str]) -> list[Encoded]:
    return [Encoded(list(t.encode()), [c.isdigit() for c in t]) for t in piece]


def build(folder: Path, texts: Sequence[str] = TEXTS, held_out: float = 0.1) -> Corpus:
    return build_corpus(folder, iter(texts), encode, vocab=256, held_out=held_out)


def texts_of(split: Split) -> list[str]:
    return [
        bytes(split.tokens[a:b].tolist()).decode().rstrip("\0")
        for a, b in zip(split.starts[:-1], split.starts[1:], strict=True)
    ]


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}


def test_every_document_is_there_once_and_on_the_side_its_text_says(tmp_path: Path) -> None:
    corpus = build(tmp_path / "c")
    held_out = [text for text in TEXTS if is_held_out(text, 0.1)]
    assert 10 < len(held_out) < 60
    assert texts_of(corpus.validation) == held_out
    assert texts_of(corpus.train) == [text for text in TEXTS if text not in held_out]
    assert corpus.train.tokens.dtype == np.uint16
    assert isinstance(corpus.train.tokens, np.memmap)


def test_a_document_that_occurs_twice_is_never_on_both_sides(tmp_path: Path) -> None:
    corpus = build(tmp_path / "c", TEXTS * 3)
    assert not set(texts_of(corpus.train)) & set(texts_of(corpus.validation))


def test_a_large_vocabulary_takes_four_bytes(tmp_path: Path) -> None:
    def large(piece: Sequence[str]) -> list[Encoded]:
        return [Encoded([70_000, len(text)]) for text in piece]

    corpus = build_corpus(tmp_path / "c", iter(TEXTS), large, vocab=70_001, held_out=0.1)
    assert corpus.train.tokens.dtype == np.uint32
    assert corpus.train.tokens[0] == 70_000


def test_a_mask_is_kept_beside_the_tokens(tmp_path: Path) -> None:
    corpus = build_corpus(tmp_path / "c", iter(TEXTS), masked, vocab=256, held_out=0.1, masked=True)
    for split in (corpus.train, corpus.validation):
        assert split.learn is not None
        digits = [chr(t).isdigit() for t in split.tokens.tolist()]
        assert split.learn.tolist() == digits


def test_it_is_made_once_and_then_opened(tmp_path: Path) -> None:
    build(tmp_path / "c")

    def refuses():
        raise AssertionError("read again")
        yield

    again = build_corpus(tmp_path / "c", refuses(), encode, vocab=256, held_out=0.1)
    assert len(texts_of(again.train)) > 200


def test_its_fingerprint_is_that_of_its_contents(tmp_path: Path) -> None:
    known = build(tmp_path / "a").fingerprint
    assert build(tmp_path / "b").fingerprint == known == open_corpus(tmp_path / "a").fingerprint
    assert build(tmp_path / "c", [*TEXTS[:-1], TEXTS[-1] + "!"]).fingerprint != known
    assert build(tmp_path / "d", TEXTS[::-1]).fingerprint != known  # other rows
    assert build(tmp_path / "e", held_out=0.2).fingerprint != known
    path = tmp_path / "a" / "corpus.json"
    older = json.loads(path.read_text())
    del older["fingerprint"]
    path.write_text(json.dumps(older))
    assert build(tmp_path / "a").fingerprint == known == open_corpus(tmp_path / "a").fingerprint


def test_too_few_documents_for_chance_still_leave_one_to_measure_on(tmp_path: Path) -> None:
    texts = [t for t in TEXTS if not is_held_out(t, 0.1)][:3]
    corpus = build(tmp_path / "c", texts)
    assert texts_of(corpus.train) == texts[:2]
    assert texts_of(corpus.validation) == texts[2:]
    for i, few in enumerate((texts[:1], [])):
        with pytest.raises(CourseError, match="at least two documents"):
            build(tmp_path / f"few-{i}", few)


# Builds a corpus in pieces of 16, and takes the machine away in the middle of the given write.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
import test_corpus
from course_utils.data import corpus

corpus.PIECE = 16
left = int(sys.argv[2])
for name in ("fsync", "replace", "truncate"):
    def hook(*arguments, original=getattr(os, name), **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)
    setattr(os, name, hook)
test_corpus.build(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("moment", [3, 9, 20, 41, 64])
def test_killed_at_any_moment_a_second_attempt_makes_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    monkeypatch.setattr(module, "PIECE", 16)
    build(tmp_path / "whole")
    code = KILLED.format(here=str(Path(__file__).parent))
    command = [sys.executable, "-c", code, str(tmp_path / "c"), str(moment)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "c" / "corpus.json").exists()
    with pytest.raises(CourseError, match="no whole corpus"):
        open_corpus(tmp_path / "c")
    build(tmp_path / "c")
    assert content(tmp_path / "c") == content(tmp_path / "whole")


def test_a_second_attempt_goes_on_instead_of_beginning_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 16)
    seen: list[str] = []

    def counting(piece: Sequence[str]) -> list[Encoded]:
        if len(seen) >= 64 and "again" not in seen:
            raise KeyboardInterrupt
        seen.extend(piece)
        return encode(piece)

    with pytest.raises(KeyboardInterrupt):
        build_corpus(tmp_path / "c", iter(TEXTS), counting, vocab=256, held_out=0.1)
    seen.append("again")
    build_corpus(tmp_path / "c", iter(TEXTS), counting, vocab=256, held_out=0.1)
    assert sorted(t for t in seen if t != "again") == sorted(TEXTS)


@pytest.mark.parametrize("damage", ["short", "json", "lost"])
def test_a_damaged_corpus_is_not_used(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "c"
    build(folder)
    if damage == "short":
        os.truncate(folder / "train.tokens", 100)
    elif damage == "json":
        (folder / "corpus.json").write_text('{"dtype": ')
    else:
        (folder / "validation.starts").unlink()
    with pytest.raises(CourseError, match=r"damaged|no whole corpus"):
        open_corpus(folder)


def test_a_full_disk_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CourseError, match=r"No space left.*COURSE_DATA_DIR"):
        build(tmp_path / "c")


@pytest.mark.parametrize("longest", [1, 5, 60, 10_000])
def test_sections_are_the_text_and_end_with_lines_where_they_can(longest: int) -> None:
    text = "\n".join("word " * (i % 9) for i in range(60)) + "\nlast"
    found = sections(text, longest)
    assert "".join(found) == text
    assert all(0 < len(part) <= longest for part in found)
    if longest == 60:
        assert all(part.endswith("\n") for part in found[:-1])


def test_what_the_source_said_is_kept(tmp_path: Path) -> None:
    account = module.Account(good=3, malformed=[("a line 2", "no JSON")])
    build_corpus(
        tmp_path / "c", iter(TEXTS), encode, vocab=256, held_out=0.1, account=account,
        about={"data": "tales"},
    )  # fmt: skip
    about = json.loads((tmp_path / "c" / "corpus.json").read_text())
    assert about["malformed"] == [["a line 2", "no JSON"]]
    assert about["data"] == "tales"
