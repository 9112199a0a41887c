"""Byte-level byte-pair encoding, from scratch.

Training starts from the 256 bytes and joins, again and again, the pair of neighbouring tokens that
occurs most often. Encoding replays these merges in the order in which they were learned. Every
string has an encoding, since every string is bytes, and decoding gives it back exactly.

Papers: Sennrich et al. (2016), "Neural Machine Translation of Rare Words with Subword Units";
Radford et al. (2019), "Language Models are Unsupervised Multitask Learners" (bytes, and no merges
across word boundaries).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import pairwise

Token = bytes
Merge = tuple[bytes, bytes]

# Merges never cross these pieces, so that "dog", "dog." and "dog!" share a token. A word takes the
# space before it along; every digit stands alone, which makes numbers readable to a small model;
# Chinese and full-width punctuation ends a piece. Spelled out as ranges, because what counts as a
# letter depends on the Unicode version of the regular-expression engine.
PIECES = (
    r" ?(?:[A-Za-z']|[\u0080-\u2FFF\u3040-\uFEFF\U00010000-\U0010FFFF])+"
    r"|[0-9]"
    r"| ?(?:[\u3000-\u303F\uFF00-\uFFFF]+|[!-/:-@\[-`{-\x7F\x00-\x08\x0B\x0C\x0E-\x1F]+)"
    r"|[\r\n]+|[ \t]+(?![^ \t\r\n])|[ \t]"
)
_PIECES = re.compile(PIECES)


def split_into_pieces(text: str) -> list[str]:
    """Words with the space before them, single digits, punctuation, blanks; nothing is lost."""
    return _PIECES.findall(text)


def count_pairs(words: dict[tuple[Token, ...], int]) -> Counter[Merge]:
    """How often each pair of neighbouring tokens occurs in a text.

    Args:
        words: the different words of the text, each as its tokens, with the number of times it
            occurs: `{(b"h", b"o"): 3, (b"o", b"h", b"o"): 1}`.

    Returns:
        Occurrences by pair, in this example `Counter({(b"h", b"o"): 4, (b"o", b"h"): 1})`. A word
        that occurs n times counts n times, and a pair that occurs twice in a word counts twice.
        Pairs never reach from one word into the next.
    """
    pairs: Counter[Merge] = Counter()
    for tokens, count in words.items():
        for pair in pairwise(tokens):
            pairs[pair] += count
    return pairs


def merge_pair(tokens: tuple[Token, ...], pair: Merge) -> tuple[Token, ...]:
    """Join every occurrence of a pair into one token, from left to right.

    Args:
        tokens: a word's tokens, `(b"b", b"a", b"n", b"a", b"n")`.
        pair: the two tokens to join wherever they are neighbours, `(b"a", b"n")`.

    Returns:
        The new tokens, here `(b"b", b"an", b"an")`. Each token is used once: in `(b"a", b"a",
        b"a")` the pair `(b"a", b"a")` is joined at the left, and the last `b"a"` stays alone. The
        word itself, byte for byte, is the same, and what a merge makes is not merged again.
    """
    merged: list[Token] = []
    position = 0
    while position < len(tokens):
        if tokens[position : position + 2] == pair:
            merged.append(pair[0] + pair[1])
            position += 2
        else:
            merged.append(tokens[position])
            position += 1
    return tuple(merged)


def train_bpe(texts: Iterable[str], n_merges: int) -> list[Merge]:
    """Learn up to `n_merges` merges, the most frequent pair first.

    Of pairs that occur equally often the greater one (as bytes) wins, so that the result does not
    depend on the order of the texts. Stops early when no pair occurs twice.

    Only words that contain the joined pair change, so only their pairs are counted anew: the cost
    of a merge is that of the words it touches, not that of the whole text.
    """
    counts = Counter(piece.encode() for text in texts for piece in split_into_pieces(text))
    words = [tuple(bytes([byte]) for byte in word) for word in counts]
    weight = list(counts.values())
    pairs: Counter[Merge] = Counter()
    found_in: defaultdict[Merge, set[int]] = defaultdict(set)
    for index, tokens in enumerate(words):
        for pair in pairwise(tokens):
            pairs[pair] += weight[index]
            found_in[pair].add(index)

    # A heap with stale entries: an entry counts only if it still tells its pair's frequency.
    heap = [_Candidate(count, pair) for pair, count in pairs.items()]
    heapify(heap)
    merges: list[Merge] = []
    while heap and len(merges) < n_merges:
        best = heappop(heap)
        if best.count != pairs[best.pair]:
            continue
        if best.count < 2:
            break
        merges.append(best.pair)
        touched: set[Merge] = set()
        for index in found_in.pop(best.pair):
            before, after = words[index], merge_pair(words[index], best.pair)
            for pair in pairwise(before):
                pairs[pair] -= weight[index]
                touched.add(pair)
            for pair in pairwise(after):
                pairs[pair] += weight[index]
                found_in[pair].add(index)
                touched.add(pair)
            words[index] = after
        for pair in touched - {best.pair}:
            heappush(heap, _Candidate(pairs[pair], pair))
    return merges


class _Candidate:
    """A pair in the heap: the most frequent first, of equals the greatest."""

    __slots__ = ("count", "pair")

    def __init__(self, count: int, pair: Merge) -> None:
        self.count, self.pair = count, pair

    def __lt__(self, other: "_Candidate") -> bool:
        return (self.count, self.pair) > (other.count, other.pair)


class BPE:
    """A tokenizer made of its merges.

    Ids 0 to 255 are the bytes, then come the merges in order, then the special tokens, which are
    recognised in the text before anything else and never split.

    Args:
        merges: as `train_bpe` returns them.
        special: for example `("<|im_start|>", "<|im_end|>")`.
    """

    def __init__(self, merges: list[Merge], special: Iterable[str] = ()) -> None:
        self.merges = list(merges)
        self.rank = {pair: index for index, pair in enumerate(self.merges)}
        self.tokens = [bytes([byte]) for byte in range(256)]
        self.tokens += [first + second for first, second in self.merges]
        # Two different merges can give the same bytes; the first of them names the token.
        self.ids: dict[bytes, int] = {}
        for number, token in enumerate(self.tokens):
            self.ids.setdefault(token, number)
        self.special = {name: len(self.tokens) + index for index, name in enumerate(special)}
        self._names = {number: name for name, number in self.special.items()}
        longest_first = sorted(self.special, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._cache: dict[str, list[int]] = {}

    @property
    def vocab_size(self) -> int:
        """Number of ids: bytes, merges and special tokens."""
        return len(self.tokens) + len(self.special)

    def encode(self, text: str) -> list[int]:
        """The ids of a text.

        `_around_special` cuts out the special tokens. What lies between them is split into pieces,
        because merges never reach from one piece into the next, and `_encode_piece` knows the ids
        of a piece.
        """
        ids: list[int] = []
        for part in self._around_special(text):
            if part in self.special:
                ids.append(self.special[part])
            else:
                for piece in split_into_pieces(part):
                    ids += self._encode_piece(piece)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a sequence of ids: `tokens` has the bytes of each, `_names` the special ones.

        A character may be spread over several tokens. Bytes that are no valid UTF-8 even when all
        of them are joined (a character cut off at the end) become U+FFFD, `�`.
        """
        parts = (
            self._names[i].encode() if i in self._names else self.tokens[i] for i in map(int, ids)
        )
        return b"".join(parts).decode("utf-8", errors="replace")

    def _around_special(self, text: str) -> Iterator[str]:
        """The text in parts: special tokens, and what lies between them."""
        start = 0
        for match in self._special.finditer(text):
            if match.start() > start:
                yield text[start : match.start()]
            yield match.group()
            start = match.end()
        if start < len(text):
            yield text[start:]

    def _encode_piece(self, piece: str) -> list[int]:
        """The ids of one piece; a text consists of few different ones, so they are remembered."""
        known = self._cache.get(piece)
        if known is None:
            known = [self.ids[token] for token in apply_merges(piece.encode(), self.rank)]
            self._cache[piece] = known
        return known


def apply_merges(piece: bytes, rank: dict[Merge, int]) -> tuple[Token, ...]:
    """Cut a piece of text into tokens: replay the merges on its bytes.

    Begin with one token for each byte. Of all pairs of neighbours take the one whose merge was
    learned earliest, join all its occurrences, and look again, until no pair of neighbours has
    been learned. (Earliest learned, wherever it stands: not the leftmost, not the longest.)

    Args:
        piece: the bytes of one piece of text; it may be empty.
        rank: for every merge, when it was learned; 0 is the first.

    Returns:
        The tokens; joined together they are the piece again.
    """
    tokens = tuple(bytes([byte]) for byte in piece)
    while len(tokens) > 1:
        pairs = pairwise(tokens)
        earliest = min(pairs, key=lambda pair: rank.get(pair, len(rank)))
        if earliest not in rank:
            break
        tokens = merge_pair(tokens, earliest)
    return tokens
