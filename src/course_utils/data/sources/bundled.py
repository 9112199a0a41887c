"""Files that are part of this repository, under `data/<name>/`."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from course_utils.base.paths import course_root
from course_utils.data.files import FileEntry
from course_utils.data.sources.base import SourceError


@dataclass(frozen=True)
class Bundled:
    """The data set's own folder in the checkout. Intact files are used where they lie."""

    kind: ClassVar[str] = "bundled"
    needs_network: ClassVar[bool] = False

    dataset: str

    @property
    def folder(self) -> Path:
        return course_root() / "data" / self.dataset

    @property
    def place(self) -> str:
        return f"data/{self.dataset}"

    def fetch(self, entry: FileEntry, scratch: Path) -> Path:
        original = self.folder / entry.name
        if not original.is_file():
            raise SourceError("missing")
        return Path(shutil.copyfile(original, scratch / entry.name))
