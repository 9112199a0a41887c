"""The catalogue of data sets: `data/catalog.toml`, read and checked."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root
from course_utils.data.files import FileEntry
from course_utils.data.sources import KINDS, Bundled, Source


@dataclass(frozen=True)
class HubSet:
    """A set that stays on the Hugging Face Hub and is streamed from there, row by row.

    Attributes:
        repo: `owner/name`.
        split: which part of it.
        files: a file of the repository, where it has several sets.
        revision: a commit or branch; None for the newest.
    """

    repo: str
    split: str = "train"
    files: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class DataSet:
    """One entry of the catalogue.

    Attributes:
        name: what `find` and `course data get` call it.
        title, about: what it is, in a few words and in a sentence.
        licence, citation: how it may be used, and whom to thank.
        files: everything it consists of, with sizes and hashes.
        sources: where the files come from, best first.
        classes: what the labels 0, 1, … mean, in sets that have classes.
        hub: for a set of any size that is streamed and never stored; it has no files.
    """

    name: str
    title: str
    about: str
    licence: str
    citation: str
    files: tuple[FileEntry, ...]
    sources: tuple[Source, ...]
    classes: tuple[str, ...] = ()
    hub: HubSet | None = None

    @property
    def bytes(self) -> int:
        """The size of all its files as they are stored."""
        return sum(entry.bytes for entry in self.files)

    @property
    def repair(self) -> str:
        """The command that fetches what is missing or damaged."""
        return f"course data get {self.name}"


def load_catalog(path: Path | None = None) -> dict[str, DataSet]:
    """Every data set by name, in the catalogue's order.

    Args:
        path: a catalogue file; by default the course's own.

    Raises:
        CourseError: when the file is missing, is no TOML, or an entry is not complete.
    """
    path = path or course_root() / "data" / "catalog.toml"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(f"There is no {path}. Restore it: git checkout -- data") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CourseError(f"{path} is no valid TOML: {error}") from None
    return {name: _data_set(name, table, path) for name, table in tables.items()}


def look_up(name: str) -> DataSet:
    """The data set called `name`.

    Raises:
        CourseError: when there is none; it suggests the nearest name.
    """
    catalog = load_catalog()
    if name in catalog:
        return catalog[name]
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    close = difflib.get_close_matches(plain, catalog, n=1, cutoff=0.5)
    advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(catalog)}."
    raise CourseError(f"No data set is called {name!r}; {advice} (course data list shows them)")


def _data_set(name: str, table: Any, path: Path) -> DataSet:
    try:
        fields = dict(table)
        classes = tuple(fields.pop("classes", ()))
        if "hub" in fields:
            hub = HubSet(**fields.pop("hub"))
            return DataSet(name=name, files=(), sources=(), classes=classes, hub=hub, **fields)
        files = tuple(_file(entry) for entry in fields.pop("files"))
        sources = tuple(_source(entry, name) for entry in fields.pop("sources"))
        return DataSet(name=name, files=files, sources=sources, classes=classes, **fields)
    except KeyError as error:
        raise CourseError(f"{path.name}: [{name}] lacks {error}") from None
    except (TypeError, ValueError) as error:
        raise CourseError(f"{path.name}: [{name}]: {error}") from None


def _file(table: Mapping[str, Any]) -> FileEntry:
    entry = FileEntry(**table)
    # Names become paths: a catalogue from anywhere must not be able to write outside its folder.
    if entry.name != Path(entry.name).name or entry.name.startswith("."):
        raise ValueError(f"{entry.name!r} is not a plain file name")
    return entry


def _source(table: Mapping[str, Any], dataset: str) -> Source:
    keys = dict(table)
    kind = keys.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"source kind {kind!r} is none of {', '.join(KINDS)}")
    if kind == Bundled.kind:
        keys["dataset"] = dataset
    return KINDS[kind](**keys)
