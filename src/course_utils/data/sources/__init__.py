"""Where data comes from. Each kind of source is one small class; `KINDS` names them all."""

from course_utils.data.sources.base import Source, SourceError, SourceUnreachable, offline
from course_utils.data.sources.bundled import Bundled
from course_utils.data.sources.hub import HuggingFace, HuggingFaceImages
from course_utils.data.sources.pip import Pip
from course_utils.data.sources.url import ModelScope, Url

KINDS: dict[str, type[Source]] = {
    source.kind: source
    for source in (Bundled, Url, HuggingFace, HuggingFaceImages, ModelScope, Pip)
}

__all__ = ["KINDS", "Bundled", "Source", "SourceError", "SourceUnreachable", "offline"]
