"""The model that is talked to, in a terminal or over HTTP: by name, made ready to write."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch

from course_utils.base.errors import CourseError
from course_utils.data.chat import END, END_OF_TEXT, SPECIAL
from course_utils.generation.fused import FusedGPT
from course_utils.tokenizer.fast import FastBPE
from course_utils.training.lab.language_run import is_chat_model, load_language_model


@dataclass(frozen=True)
class Speaker:
    """A model that writes, and how to talk to it.

    Args:
        name: what clients call it.
        chats: whether it was trained for conversations; otherwise it goes on with a text.
    """

    name: str
    model: FusedGPT
    tokenizer: FastBPE
    chats: bool

    @property
    def ends(self) -> frozenset[int]:
        """Tokens with which it ends what it says; they are not part of the text."""
        special = self.tokenizer.special
        return frozenset(special[name] for name in (END, END_OF_TEXT) if name in special)

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest token: a text of n bytes is n / longest_token tokens or more."""
        # A vocabulary of bytes has a character for each; added tokens stand for themselves.
        learned = self.tokenizer.tokenizer.get_vocab(with_added_tokens=False)
        return max(map(len, [*learned, *map(str.encode, self.tokenizer.special)]))

    def bytes_of(self) -> Callable[[int], bytes]:
        """The bytes of a token, looked up once each.

        Raises:
            CourseError: when the tokenizer is not one of bytes, so that a token has none.
        """
        trial = "Aé 你\n"
        try:
            ids = self.tokenizer.encode(trial, special=False)
            whole = b"".join(map(self.tokenizer.token_bytes, ids))
        except KeyError:
            whole = b""
        if whole != trial.encode():
            raise CourseError(f"{self.name} has no byte-level tokenizer, which serving needs.")
        return cache(self.tokenizer.token_bytes)


def load_speaker(
    run: str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    name: str | None = None,
) -> Speaker:
    """The model of a run, of an exported folder, or a pretrained one: see `load_language_model`.

    Args:
        dtype: to write in; the weights' own by default.
        name: what to call it; by default the run's own.

    Raises:
        CourseError: when there is no such model.
    """
    trained, tokenizer = load_language_model(run)
    chats = is_chat_model(run) and all(word in tokenizer.special for word in SPECIAL)
    called = name or (run if run.startswith("hf:") else Path(run).name)
    return Speaker(called, FusedGPT(trained.to(device), dtype), tokenizer, chats)
