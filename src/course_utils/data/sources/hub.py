"""The Hugging Face hub: plain files, and image sets stored there as parquet.

`HF_ENDPOINT` (a mirror) and `HF_TOKEN` are honoured. The revision is pinned, and the store checks
every file's hash anyway, so a mirror need not be trusted.
"""

import errno
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from course_utils.base.progress_bar import Bar
from course_utils.data.files import FileEntry
from course_utils.data.sources.base import SourceError, SourceUnreachable


@dataclass(frozen=True)
class HuggingFace:
    """Files of one repository on the hub at one revision (a commit, so that it never moves)."""

    kind: ClassVar[str] = "huggingface"
    needs_network: ClassVar[bool] = True

    repo: str
    revision: str
    repo_type: str = "dataset"
    paths: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.repo}@{self.revision[:12]}"

    def fetch(self, entry: FileEntry, scratch: Path) -> Path:
        path = self.paths.get(entry.name, entry.name)
        return hub_file(self.repo, path, self.revision, self.repo_type, scratch)


@dataclass(frozen=True)
class HuggingFaceImages:
    """An image set that the hub keeps as parquet, turned back into the IDX files it was made from.

    The pixels are stored as PNG, which loses nothing, and in the original order, so that the IDX
    file comes out as it was; only its gzip packing differs, which `content_sha256` allows for.

    Attributes:
        images: for each IDX file of images, the parquet file whose column `image` holds them.
        labels: for each IDX file of labels, the parquet file whose column `label` holds them.
    """

    kind: ClassVar[str] = "huggingface-images"
    needs_network: ClassVar[bool] = True

    repo: str
    revision: str
    images: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.repo}@{self.revision[:12]}"

    def fetch(self, entry: FileEntry, scratch: Path) -> Path:
        from course_utils.data import idx  # numpy, pyarrow and Pillow: only where they are needed

        path = self.images.get(entry.name) or self.labels.get(entry.name)
        if path is None:
            raise SourceError(f"the catalogue names no parquet file for {entry.name}")
        parquet = hub_file(self.repo, path, self.revision, "dataset", scratch)
        read = idx.parquet_images if entry.name in self.images else idx.parquet_labels
        try:
            array = read(parquet)
        except idx.IdxError as error:
            raise SourceError(f"{path}: {error}") from None
        return idx.write(array, scratch / f"{entry.name}.part")


def hub_file(repo: str, path: str, revision: str, repo_type: str, scratch: Path) -> Path:
    """Download one file of a hub repository into `scratch`; an earlier attempt is continued.

    Raises:
        SourceError: the repository, revision or file is not there.
        SourceUnreachable: the hub does not answer, or is switched off by `HF_HUB_OFFLINE`.
        OSError: the disk is full or not writable.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        with _quiet():
            return Path(
                hf_hub_download(
                    repo,
                    path,
                    repo_type=repo_type,
                    revision=revision,
                    local_dir=scratch,
                    # Read now: the library itself looks at the variable only when it is imported.
                    endpoint=os.environ.get("HF_ENDPOINT"),
                    tqdm_class=Bar,
                )
            )
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise SourceError(f"{path}: HTTP {status}") from None
    except Exception as error:
        # The client's other exceptions have changed with every major version, and whatever it
        # says, the next source is to be tried; only a full or locked disk stops all of them.
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise
        raise SourceUnreachable(f"{path}: {_first_line(error)}") from None


_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def _first_line(error: BaseException) -> str:
    """What really happened: the client wraps a refused connection in a paragraph of advice."""
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    # The client warns on stderr (no token, little disk), where a graded notebook cell must be mute.
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
