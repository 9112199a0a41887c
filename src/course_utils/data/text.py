"""Text by name: documents to train a tokenizer and a language model on.

load_documents("shakespeare")       a set of the catalogue, all of it
stream_documents("tinystories")     document by document, from the Hub, at any size
stream_documents("notes/")          your own: a .txt, .json, .jsonl or .parquet file, or a folder
stream_documents("hf:owner/name")   any text set of the Hub
"""

import os
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from course_utils.base.errors import CourseError
from course_utils.data.catalog import HubSet, load_catalog, look_up
from course_utils.data.records import SUFFIXES, Account, read_records
from course_utils.data.sources import offline
from course_utils.data.store import find

Records = Iterator[tuple[str, Any]]

# Where a record keeps its text, by the names in use.
TEXT_FIELDS = ("text", "content", "extract")


def sample_text() -> str:
    """A short story, 30,000 characters of English, that needs no network: for tests, first tries.

    Jules Verne (or his son Michel), "In the Year 2889", 1889, in the public domain. It comes with
    the package reasoning-gym.
    """
    spec = find_spec("reasoning_gym")  # found, not imported: that would take a second
    assert spec is not None and spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    text = (package / "data" / "in_the_year_2889.txt").read_text("utf-8")
    text = text.replace("\r\n", "\n")
    story = text[text.rindex("IN THE YEAR 2889\n") : text.index("End of Project Gutenberg")]
    return story.strip() + "\n"


def load_documents(name: str, account: Account | None = None) -> list[str]:
    """All documents of a set, in memory; arguments as for `stream_documents`."""
    return list(stream_documents(name, account))


def stream_documents(name: str, account: Account | None = None) -> Iterator[str]:
    """The documents of a set, one at a time, in an order that is always the same.

    Args:
        name: A name of the catalogue, a path, `hf:owner/name[:split]` for a set of the Hub, or
            "sample" for the paragraphs of `sample_text`.
        account: Receives the count of good records and the malformed ones.

    Raises:
        CourseError: for an unknown name or path, a set without text, or when nothing is usable.
    """
    account = Account() if account is None else account
    for where, record in stream_records(name, account):
        text = text_of(record)
        if text is None:
            account.refuse(where, f"no text in any of the fields {', '.join(TEXT_FIELDS)}")
        elif not text.strip():
            account.refuse(where, "empty")
        else:
            account.good += 1
            yield text
    if not account.good:
        raise CourseError(f"{name} holds no text. {account}.")


def text_of(record: Any) -> str | None:
    """The text of a record: the record itself, or one of its `TEXT_FIELDS`."""
    if isinstance(record, str):
        return record
    if isinstance(record, dict):
        for field in TEXT_FIELDS:
            if isinstance(record.get(field), str):
                return record[field]
    return None


def stream_records(name: str, account: Account) -> Records:
    """The raw records of a set, by name, path, or `hf:owner/name[:split]`.

    Raises:
        CourseError: for a name that is none of these, or a set of images.
    """
    if name.startswith("hf:"):
        repo, _, split = name.removeprefix("hf:").partition(":")
        return _from_hub(HubSet(repo, split or "train"))
    if name == "sample":
        return iter([("sample", part) for part in sample_text().split("\n\n") if part.strip()])
    if _is_path(name):
        return _from_files(own_files(name), account)
    return _from_catalog(name, account)


def own_files(name: str) -> list[Path]:
    """The files that a path stands for, in the order in which they are read; none for other names.

    Raises:
        CourseError: for a path with nothing to read.
    """
    return _files(Path(name).expanduser()) if _is_path(name) else []


def _is_path(name: str) -> bool:
    if name.startswith("hf:") or name == "sample" or name in load_catalog():
        return False
    return os.sep in name or Path(name).suffix in SUFFIXES or Path(name).exists()


def _from_catalog(name: str, account: Account) -> Records:
    dataset = look_up(name)
    if dataset.hub:
        return _from_hub(dataset.hub)
    if dataset.classes:
        raise CourseError(f"{name} is a set of images, not of text. See: course data list")
    folder = find(name)
    return _from_files((folder / entry.name for entry in dataset.files), account)


def _from_files(files: Iterable[Path], account: Account) -> Records:
    for file in files:
        yield from read_records(file, account)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES) if path.is_dir() else []
    if not found:
        raise CourseError(f"There is no text at {path}: no {', '.join(SUFFIXES)} file.")
    return found


def _from_hub(hub: HubSet) -> Records:
    """A set of the Hub, row by row as it arrives: nothing is downloaded ahead."""
    if offline():
        raise CourseError(f"{hub.repo} is on the Hub and COURSE_OFFLINE forbids the network.")
    from datasets import load_dataset

    files = {"data_files": hub.files} if hub.files else {}
    try:
        rows = load_dataset(
            hub.repo, split=hub.split, revision=hub.revision, streaming=True, **files
        )
        for number, row in enumerate(rows, start=1):
            yield f"{hub.repo} row {number}", row
    # The library, its HTTP client and the readers behind it raise dozens of types.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CourseError(
            f"The Hub did not deliver {hub.repo}: {reason[0]}\n"
            "Check the name and the network (HF_ENDPOINT chooses a mirror), then try again."
        ) from error
