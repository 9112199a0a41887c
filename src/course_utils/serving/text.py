"""Tokens to text as it grows: whole characters only, and nothing of a stop string.

A character may be spread over tokens, and so may a stop string; where the borders between tokens
lie must not show. What could still become one of the two is held back until it is decided.
"""

import codecs
from collections.abc import Callable, Sequence


class GrowingText:
    """The text of one answer.

    Args:
        bytes_of: the bytes of a token.
        stop: strings that end the answer and are not part of it. The one that is complete first
            counts; of several that are complete at once, the longest.

    Attributes:
        stopped: whether one of them has occurred.
    """

    def __init__(self, bytes_of: Callable[[int], bytes], stop: Sequence[str] = ()) -> None:
        self._bytes_of, self._stop = bytes_of, tuple(stop)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """What may be shown now that this token has come."""
        return self._shown(self._decode(self._bytes_of(token)))

    def end(self) -> str:
        """What was held back, when no more tokens come; a half character becomes U+FFFD."""
        return self._shown(self._decode(b"", final=True)) + self._held

    def _shown(self, new: str) -> str:
        text = self._held + new
        found = [(at + len(s), at) for s in self._stop if (at := text.find(s)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        waiting = max((_begun(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - waiting :]
        return text[: len(text) - waiting]


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of the text may be the beginning of a stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
