"""Build a tokenizer and a corpus from the name of a data set, and keep them in the data cache.

    tokenizer_for("wiki", 2048)          <data cache>/tokenizers/wiki-2048/tokenizer.json
    text_corpus("wiki", tokenizer)       <data cache>/corpora/wiki-1a2b3c4d/
    chat_corpus(conversations, …)        the same, with a loss mask

Commas separate several sets, and `identity*20` repeats a set twenty times.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from course_utils.base.errors import CourseError
from course_utils.base.paths import data_dir
from course_utils.data.chat import END_OF_TEXT, SPECIAL, Messages, encode_chats, in_conversations
from course_utils.data.chat_sets import stream_chats
from course_utils.data.corpus import Corpus, Encoded, build_corpus, is_held_out, sections
from course_utils.data.records import Account
from course_utils.data.store import only_one
from course_utils.data.tasks import VerifiableTask, additions
from course_utils.data.text import own_files, stream_documents
from course_utils.tokenizer.fast import FastBPE

T = TypeVar("T")

# The maximum number of documents to train a tokenizer on: more hardly change the merges.
TOKENIZER_DOCUMENTS = 20_000


def tokenizer_for(data: str, vocab: int, held_out: float = 0.05) -> FastBPE:
    """A tokenizer trained on a text set, with the special tokens of chats; from the cache if there.

    Like the model, the tokenizer is trained only on the training set.

    Raises:
        CourseError: for an unknown set, or a vocabulary too small for bytes and special tokens.
    """
    path = tokenizer_path(data, vocab)
    with only_one(path.parent, f"tokenizer {path.parent.name}"):
        if not path.is_file():
            texts = islice(_sections(data, Account()), TOKENIZER_DOCUMENTS)
            learned = (text for text in texts if not is_held_out(text, held_out))
            FastBPE.train(learned, vocab, SPECIAL).save(path)
    return FastBPE.load(path)


def tokenizer_path(data: str, vocab: int) -> Path:
    """The tokenizer's path in the data cache, for a text set and a vocabulary size.

    The user's own files can change under the same name, so the path also depends on their state.
    """
    stamps = _stamps(data)
    state = f"-{_digest(stamps)}" if stamps else ""
    return data_dir() / "tokenizers" / f"{_slug(data)}-{vocab}{state}" / "tokenizer.json"


def text_corpus(
    data: str,
    tokenizer: FastBPE,
    *,
    held_out: float = 0.05,
    max_documents: int | None = None,
    say: Callable[[str], None] = print,
) -> Corpus:
    """The documents of one or several text sets, tokenized; each ends in `<|endoftext|>`.

    Args:
        data: Names, paths or `hf:owner/name`, separated by commas.
        held_out: The share of the documents in the validation set. Long documents are divided into
            sections first.
        max_documents: Stop after this many sections; for very large sets.
        say: Prints a message when records are malformed.

    Raises:
        CourseError: for an unknown set, or one without text.
    """
    end = tokenizer.special[END_OF_TEXT]
    account = Account()
    texts = islice(_sections(data, account), max_documents)

    def encode(piece: Any) -> list[Encoded]:
        return [Encoded([*ids, end]) for ids in tokenizer.encode_batch(piece)]

    key = [_identity(data), tokenizer.fingerprint, held_out, max_documents]
    corpus = build_corpus(
        _folder(data, key),
        texts,
        encode,
        vocab=tokenizer.vocab_size,
        held_out=held_out,
        account=account,
        about={"data": data},
    )
    _tell_malformed(corpus, data, say)
    return corpus


def chat_corpus(
    data: str,
    tokenizer: FastBPE,
    *,
    context: int,
    sums: int = 0,
    tasks: Sequence[VerifiableTask] = (),
    turns: int = 1,
    fill: Mapping[str, str] | None = None,
    held_out: float = 0.05,
    max_chats: int | None = None,
    say: Callable[[str], None] = print,
) -> Corpus:
    """Conversations of one or several sets, and generated additions, tokenized and masked.

    Args:
        data: Names, paths or `hf:owner/name`, with commas between; empty for sums alone.
        context: Longer conversations are truncated to this many tokens.
        sums: How many additions from the training set to mix in (see `data.tasks`).
        tasks: Other tasks to mix in.
        turns: Join up to this many single exchanges into one conversation.
        fill: The values of `{{name}}` and `{{author}}` in the identity set.
        max_chats: Read at most this many conversations from each set.

    Raises:
        CourseError: for an unknown set, or one without conversations.
    """
    account = Account()

    def read(name: str) -> Iterator[Messages]:
        return islice(stream_chats(name, account, fill), max_chats)

    given = [task.messages for task in (*additions(sums, "train", seed=0), *tasks)]
    chats = in_conversations(
        chain(given, _each(data, read)), turns, lambda chat: is_held_out(chat[:2], held_out)
    )
    key = [_identity(data), tokenizer.fingerprint, held_out, max_chats, context, sums, turns]
    key += [dict(fill or {}), _digest([task.messages for task in tasks])]
    corpus = build_corpus(
        _folder(f"chat-{data}", key),
        chats,
        lambda piece: encode_chats(tokenizer, piece, context),
        vocab=tokenizer.vocab_size,
        held_out=held_out,
        masked=True,
        side_by=lambda chat: chat[:2],
        account=account,
        about={"data": data, "sums": sums},
    )
    _tell_malformed(corpus, data, say)
    return corpus


def _sections(data: str, account: Account) -> Iterator[str]:
    def read(name: str) -> Iterator[str]:
        return (part for text in stream_documents(name, account) for part in sections(text))

    return _each(data, read)


def _each(data: str, read: Callable[[str], Iterator[T]]) -> Iterator[T]:
    """What `read` gives for each set of a list such as `identity*20,chitchat`."""
    for name, times in _entries(data):
        for _ in range(times):
            yield from read(name)


def _entries(data: str) -> list[tuple[str, int]]:
    """The sets of such a list by name, and how many times each is to be taken."""
    found = []
    for entry in filter(None, (part.strip() for part in data.split(","))):
        name, _, times = entry.partition("*")
        if times and not times.isdigit():
            raise CourseError(
                f"{entry!r}: write the number of repetitions after *, as in {name}*20."
            )
        found.append((name, int(times or 1)))
    return found


def _identity(data: str) -> list[Any]:
    """What tells one state of the data from another: names, and the stamps of own files."""
    return [data, _stamps(data)]


def _stamps(data: str) -> list[list[Any]]:
    """Place, size and time of each own file: the same name may mean another one by now."""
    files = [file.resolve() for name, _ in _entries(data) for file in own_files(name)]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _folder(data: str, key: list[Any]) -> Path:
    return data_dir() / "corpora" / f"{_slug(data)}-{_digest(key)}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def _slug(data: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", data).strip("-.")[:60] or "none"


def _tell_malformed(corpus: Corpus, data: str, say: Callable[[str], None]) -> None:
    malformed = [tuple(entry) for entry in corpus.about["malformed"]]
    if malformed:
        say(f"{data}: {Account(corpus.about['records'], malformed)}.")
