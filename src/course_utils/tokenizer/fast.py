"""The same tokenizer at full speed: Hugging Face's `tokenizers`, written in Rust.

`FastBPE` has the interface of `bpe.BPE` and, given the same merges, gives the same ids; a property
test holds both to that. What it saves is a `tokenizer.json` that transformers reads.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from course_utils.base.errors import CourseError
from course_utils.tokenizer.bpe import PIECES, Merge


def byte_alphabet() -> list[str]:
    """One printable character for each byte, GPT-2's table: `tokenizer.json` holds text, not bytes.

    Printable Latin-1 bytes stand for themselves; the others get the code points from 256 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    table = {byte: chr(byte) for byte in printable}
    table |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    return [table[byte] for byte in range(256)]


_CHARACTER = byte_alphabet()
_BYTE = {character: byte for byte, character in enumerate(_CHARACTER)}


def _as_text(token: bytes) -> str:
    return "".join(_CHARACTER[byte] for byte in token)


class FastBPE:
    """A trained tokenizer.

    Args:
        tokenizer: from `train`, `from_merges` or `load`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def from_merges(cls, merges: Sequence[Merge], special: Iterable[str] = ()) -> "FastBPE":
        """The tokenizer that `bpe.BPE(merges, special)` is."""
        vocab = {character: byte for byte, character in enumerate(_CHARACTER)}
        for number, (first, second) in enumerate(merges, start=256):
            vocab.setdefault(_as_text(first + second), number)
        pairs = [(_as_text(first), _as_text(second)) for first, second in merges]
        tokenizer = _around(models.BPE(vocab=vocab, merges=pairs))
        tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
        return cls(tokenizer)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, special: Sequence[str] = ()) -> "FastBPE":
        """Learn a vocabulary of `vocab_size`, special tokens included.

        Raises:
            CourseError: when not even the bytes and special tokens fit.
        """
        if vocab_size < 256 + len(special):
            raise CourseError(
                f"A byte-level vocabulary holds 256 bytes and {len(special)} special tokens; "
                f"{vocab_size} is too small."
            )
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - len(special),
            initial_alphabet=_CHARACTER,
            show_progress=False,
        )
        tokenizer = _around(models.BPE())
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
        return cls(tokenizer)

    @classmethod
    def load(cls, path: Path) -> "FastBPE":
        """Read a `tokenizer.json`.

        Raises:
            CourseError: when there is none, or it cannot be read.
        """
        if not path.is_file():
            raise CourseError(f"There is no tokenizer at {path}.")
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exceptions
            raise CourseError(f"{path} is not a readable tokenizer: {error}") from None

    def save(self, path: Path) -> None:
        """Write a `tokenizer.json`, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        self.tokenizer.save(str(temporary))
        temporary.replace(path)

    @property
    def fingerprint(self) -> str:
        """What tells this tokenizer from any other."""
        return sha256(self.tokenizer.to_str().encode()).hexdigest()[:16]

    @property
    def vocab_size(self) -> int:
        """One more than the greatest id."""
        return max(self.tokenizer.get_vocab().values()) + 1

    @property
    def special(self) -> dict[str, int]:
        """The special tokens' ids."""
        added = self.tokenizer.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items()}

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of a text.

        Args:
            special: whether special tokens are recognised in it. What somebody typed is encoded
                without, so that nobody can type a special token.
        """
        self.tokenizer.encode_special_tokens = not special
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of many texts, on all cores; special tokens are not recognised in them."""
        self.tokenizer.encode_special_tokens = True
        encoded = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [one.ids for one in encoded]

    def decode(self, ids: Iterable[int]) -> str:
        """The text; bytes that are no valid UTF-8 become U+FFFD."""
        return self.tokenizer.decode(list(map(int, ids)), skip_special_tokens=False)

    def token_bytes(self, number: int) -> bytes:
        """The bytes one id stands for (a special token's name, encoded)."""
        text = self.tokenizer.id_to_token(number)
        if text is None:
            raise CourseError(f"{number} is no token; ids go up to {self.vocab_size - 1}.")
        if text in self.special:
            return text.encode()
        return bytes(_BYTE[character] for character in text)


def _around(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = cut_into_pieces()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def cut_into_pieces() -> pre_tokenizers.PreTokenizer:
    """What cuts a text as `bpe.PIECES` does; merges stay inside a piece."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(onigmo(PIECES)), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def onigmo(pattern: str) -> str:
    r"""Python writes code points as \uXXXX, the regular expressions of `tokenizers` as \x{…}."""
    import re

    return re.sub(r"\\[uU]([0-9A-F]{8}|[0-9A-F]{4})", r"\\x{\1}", pattern)
