"""Lesson 04, the tokenizer: counting pairs, merging, encoding, the class, bits per byte."""

import math
from collections import Counter
from typing import Any

import torch

from course_utils.exercises import CheckFailure, Exercise, Mutant, assert_close, assert_equal
from course_utils.models.metrics import bits_per_byte
from course_utils.tokenizer.bpe import BPE, Merge, Token, apply_merges, merge_pair, train_bpe


def draw(rng: torch.Generator, n: int) -> int:
    """A random number below n."""
    return int(torch.randint(n, (), generator=rng))


def letters(text: str) -> tuple[Token, ...]:
    return tuple(letter.encode() for letter in text)


def random_word(rng: torch.Generator, alphabet: str, length: int) -> tuple[Token, ...]:
    return letters("".join(alphabet[draw(rng, len(alphabet))] for _ in range(length)))


# --- tokenizer.count_pairs ------------------------------------------------------------------------


def same_pairs(got: Any, words: dict[tuple[Token, ...], int], message: str) -> None:
    """Compared with a count position by position."""
    if type(got) is not Counter:
        raise CheckFailure(f"Return a collections.Counter, not {type(got).__name__}")
    expected: Counter[Merge] = Counter()
    for tokens, n in words.items():
        for place in range(len(tokens) - 1):
            expected[tokens[place], tokens[place + 1]] += n
    # Only what differs is shown: the rest of a long table would hide it.
    differ = [pair for pair in {**expected, **got} if got[pair] != expected[pair]]
    if differ:
        raise CheckFailure(
            message, {pair: expected[pair] for pair in differ}, {pair: got[pair] for pair in differ}
        )


def one_word(student: Any, rng: torch.Generator) -> None:
    """Counts the pairs of neighbors in one word, each pair as a tuple of two tokens"""
    words = {tuple(letters("abcdefgh")[i] for i in torch.randperm(8, generator=rng)): 1}
    same_pairs(student(words), words, "A word of eight different letters has seven pairs")


def words_have_weights(student: Any, rng: torch.Generator) -> None:
    """A word that occurs n times counts n times"""
    words = {random_word(rng, "abcd", 5): 2 + draw(rng, 50) for _ in range(6)}
    same_pairs(student(words), words, "Some words occur many times")


def repeated_pairs(student: Any, rng: torch.Generator) -> None:
    """A pair that occurs twice in a word counts twice, also where the two overlap"""
    words = {letters("ab" * (2 + draw(rng, 3))): 3, letters("z" * (3 + draw(rng, 3))): 1}
    same_pairs(student(words), words, "Words like abab and zzz")


def never_across_words(student: Any, rng: torch.Generator) -> None:
    """No pair reaches into the next word; a word of one token has none; `words` stays as it was"""
    words = {
        letters("ab"): 2,
        letters("c"): 5,
        random_word(rng, "de", 4): 1,
        (b"th", b"e", b"re"): 4,
    }
    before = dict(words)
    same_pairs(student(words), words, "Four short words, one of them a single token")
    assert_equal(words, before, "You changed the words that you were given")


COUNT_PAIRS = Exercise(
    id="tokenizer.count_pairs",
    reference="course_utils.tokenizer.bpe:count_pairs",
    title="Count the pairs",
    points=4,
    minutes=8,
    difficulty=1,
    checks=(one_word, words_have_weights, repeated_pairs, never_across_words),
    mutants=(
        Mutant(
            says="You counted different words, not their occurrences: a word that occurs 300 times "
            "adds 300 to each of its pairs.",
            why="Counting usually means adding one.",
            replace=("pairs[pair] += count", "pairs[pair] += 1"),
        ),
        Mutant(
            says="You set a pair's number where you should add to it. Another word, or another "
            "position in the same word, then overwrites the earlier count.",
            why="It is right for the first word that has the pair.",
            replace=("pairs[pair] += count", "pairs[pair] = count"),
        ),
        Mutant(
            says="A pair that occurs twice in a word counted once. Iterate over the positions, "
            "not over the set of different pairs.",
            why="`pair in word` asks only whether it occurs.",
            replace=("in pairwise(tokens):", "in set(pairwise(tokens)):"),
        ),
        Mutant(
            says="You cut the word into pairs side by side: positions 0–1, 2–3, … Neighbors "
            "overlap: 0–1, 1–2, 2–3, …",
            why="A step of two looks natural for pairs.",
            replace=("in pairwise(tokens):", "in zip(tokens[::2], tokens[1::2]):"),
        ),
        Mutant(
            says="The last pair of each word is missing: a word of n tokens has n − 1 pairs.",
            why="To avoid an index beyond the end, the loop stops one too early.",
            replace=("in pairwise(tokens):", "in pairwise(tokens[:-1]):"),
        ),
        Mutant(
            says="You counted pairs made of the end of one word and the beginning of the next. "
            "Merges stay within words, and so does the counting.",
            why="In the text the words do follow each other; in this dictionary they do not.",
            replace=(
                "    for tokens, count in words.items():\n",
                "    last: tuple = ()\n    for tokens, count in words.items():\n"
                "        tokens, last = (*last, *tokens), tokens[-1:]\n",
            ),
        ),
        Mutant(
            says="Your keys are joined tokens. Keep the two apart, as a tuple: (b'a', b'bc') and "
            "(b'ab', b'c') are different pairs that give the same bytes.",
            why="The joined token is what the merge will make.",
            replace=("pairs[pair] += count", 'pairs[b"".join(pair)] += count'),
        ),
    ),
    hints=(
        "Two loops, one inside the other: over the words, and over the neighbors in a word.",
        "itertools.pairwise('abc') gives ('a', 'b') and ('b', 'c'). A Counter answers 0 for what "
        "it has not seen, so you can add to it at once.",
        "for tokens, count in words.items(): for pair in pairwise(tokens): pairs[pair] += count",
    ),
)

# --- tokenizer.merge_pair -------------------------------------------------------------------------


def joined_everywhere(student: Any, rng: torch.Generator) -> None:
    """Joins the pair wherever it occurs, and returns a tuple"""
    start = random_word(rng, "xyz", draw(rng, 3))
    tokens = (*start, *letters("an"), *random_word(rng, "xyz", 2), *letters("anan"), b"x")
    expected = merge_pair(tokens, (b"a", b"n"))
    assert_equal(student(tokens, (b"a", b"n")), expected, "Joining a and n")


def each_token_once(student: Any, rng: torch.Generator) -> None:
    """Goes from left to right, and uses each token once: a a a becomes aa a"""
    for length in (3, 4, 5 + draw(rng, 4)):
        expected = (b"aa",) * (length // 2) + (b"a",) * (length % 2)
        got = student((b"a",) * length, (b"a", b"a"))
        assert_equal(got, expected, f"{length} times a, joining a and a")


def only_this_pair(student: Any, rng: torch.Generator) -> None:
    """Leaves everything else alone: the reverse order, and other cuts of the same bytes"""
    # abc can be cut as a|bc or ab|c; ba is not ab. The last two tokens are the pair itself.
    tokens = (b"a", b"bc", b"c", b"ab", *random_word(rng, "xy", 2), b"abc", b"ab", b"c")
    expected = (*tokens[:7], b"abc")
    assert_equal(student(tokens, (b"ab", b"c")), expected, "Joining ab and c, in this order")


def at_the_ends(student: Any, rng: torch.Generator) -> None:
    """Works at the first and the last position, on single tokens and on an empty word"""
    middle = random_word(rng, "xyz", 3)
    cases = (
        ((b"a", b"b", *middle), (b"ab", *middle)),
        ((*middle, b"a", b"b"), (*middle, b"ab")),
        ((b"a", b"b"), (b"ab",)),
        ((*middle, b"b", b"a"), (*middle, b"b", b"a")),
        ((b"a",), (b"a",)),
        ((), ()),
    )
    for tokens, expected in cases:
        assert_equal(student(tokens, (b"a", b"b")), expected, f"Joining a and b in {tokens}")


def random_words(student: Any, rng: torch.Generator) -> None:
    """Fifty random words, and not a byte is lost"""
    for _ in range(50):
        tokens = (*random_word(rng, "ab", 2 + draw(rng, 10)), b"a", b"b")
        first, second = random_word(rng, "ab", 2)
        expected = merge_pair(tokens, (first, second))
        assert_equal(student(tokens, (first, second)), expected, f"Joining {first} and {second}")


def _first_only(tokens: tuple[Token, ...], pair: Merge) -> tuple[Token, ...]:
    for place in range(len(tokens) - 1):
        if tokens[place : place + 2] == pair:
            return (*tokens[:place], pair[0] + pair[1], *tokens[place + 2 :])
    return tokens


def _from_the_right(tokens: tuple[Token, ...], pair: Merge) -> tuple[Token, ...]:
    merged: list[Token] = []
    position = len(tokens)
    while position > 0:
        if position > 1 and tokens[position - 2 : position] == pair:
            merged.append(pair[0] + pair[1])
            position -= 2
        else:
            merged.append(tokens[position - 1])
            position -= 1
    return tuple(merged[::-1])


MERGE_PAIR = Exercise(
    id="tokenizer.merge_pair",
    reference="course_utils.tokenizer.bpe:merge_pair",
    title="Merge a pair",
    points=5,
    minutes=12,
    difficulty=2,
    checks=(joined_everywhere, each_token_once, only_this_pair, at_the_ends, random_words),
    mutants=(
        Mutant(
            says="After a merge you advance by one position, so the second token of the pair is "
            "used again. Skip both tokens: advance by two.",
            why="A `for` loop over the positions always advances by one.",
            replace=("position += 2", "position += 1"),
        ),
        Mutant(
            says="You joined the first occurrence only. Continue to the end of the word.",
            why="`index` and `find` give one position, and a `return` ends the loop.",
            function=_first_only,
        ),
        Mutant(
            says="You joined from right to left. In a a a the left two are to be joined; both "
            "tokenizers have to agree on this.",
            why="Going backwards keeps the indices valid while a list gets shorter.",
            function=_from_the_right,
        ),
        Mutant(
            says="You return a list. Words are keys of a dictionary, so they must be tuples.",
            why="The result grows step by step, which needs a list.",
            replace=("return tuple(merged)", "return merged"),
        ),
        Mutant(
            says="The last token is lost when it is not part of a pair. The loop has to reach it, "
            "without looking beyond the end.",
            why="The last token has no right neighbor, so the loop stops before it.",
            replace=("while position < len(tokens):", "while position < len(tokens) - 1:"),
        ),
        Mutant(
            says="You also joined the pair in reverse order. (b'a', b'b') makes ab, never ba.",
            why="A pair sounds like a set of two.",
            replace=("== pair:", "in (pair, pair[::-1]):"),
        ),
        Mutant(
            says="You compared joined bytes: a + bc gives the same as ab + c, but only one of them "
            "is the pair. Compare the two tokens.",
            why="The bytes are visible; the borders between tokens are not.",
            replace=(
                "tokens[position : position + 2] == pair",
                'b"".join(tokens[position : position + 2]) == pair[0] + pair[1]',
            ),
        ),
        Mutant(
            says="You put the pair into the result as a tuple. A token is bytes: join the two "
            "with +.",
            why="`pair` is a variable already, and prints much the same.",
            replace=("merged.append(pair[0] + pair[1])", "merged.append(pair)"),
        ),
    ),
    hints=(
        "A `for` loop cannot skip. Keep the position in a variable, and advance it by one or by "
        "two.",
        "Slices never run over the end: tokens[i : i + 2] is just shorter there, and unequal to "
        "any pair.",
        "while position < len(tokens): if tokens[position : position + 2] == pair, append "
        "pair[0] + pair[1] and add 2; else append tokens[position] and add 1.",
    ),
)

# --- tokenizer.apply_merges -----------------------------------------------------------------------


def ranks(*merges: str) -> dict[Merge, int]:
    """`ranks("b c", "a b")`: the merges in the order in which they were learned."""
    pairs = [merge.split() for merge in merges]
    return {(a.encode(), b.encode()): number for number, (a, b) in enumerate(pairs)}


def single_bytes(student: Any, rng: torch.Generator) -> None:
    """Without any merge there is one token for each byte, also in Chinese"""
    piece = "".join("aé你🙂"[draw(rng, 4)] for _ in range(4)).encode() + b"\xe4"
    expected = tuple(piece[i : i + 1] for i in range(len(piece)))
    assert_equal(student(piece, {}), expected, f"The bytes {piece.hex(' ')}")
    assert_equal(student(b"", {}), (), "An empty piece")


def earliest_first(student: Any, rng: torch.Generator) -> None:
    """Takes the merge that was learned first, wherever it stands and however long it is"""
    cases = (
        (b"abc", ranks("b c", "a b"), (b"a", b"bc")),
        (b"abc", ranks("a b", "b c", "a bc"), (b"ab", b"c")),
        (b"abcd", ranks("b c", "a b", "c d", "ab cd"), (b"a", b"bc", b"d")),
    )
    order = [cases[index] for index in torch.randperm(len(cases), generator=rng).tolist()]
    got = [student(piece, rank) for piece, rank, _ in order]
    told = "; ".join(
        f"{piece.decode()}, with {', '.join((a + b).decode() for a, b in rank)} learned in turn"
        for piece, rank, _ in order
    )
    assert_equal(got, [expected for *_, expected in order], told)


def merges_of_merges(student: Any, rng: torch.Generator) -> None:
    """Merges the results of merges too, until no pair is known"""
    rank = ranks("a n", "an an", "b anan", "n a")
    tail = random_word(rng, "xyz", 2)
    got = student(b"banana" + b"".join(tail), rank)
    assert_equal(got, (b"banan", b"a", *tail), "banana, with an, anan, banan and na learned")


def earlier_merges_again(student: Any, rng: torch.Generator) -> None:
    """Looks again after every merge: a late merge may create the pair of an early one"""
    # The token abc can come from a + bc, learned early, or from ab + c, learned late.
    rank = ranks("b c", "a bc", "abc d", "a b", "ab c")
    del rank[b"b", b"c"]
    tail = random_word(rng, "xyz", 2)
    got = student(b"abcd" + b"".join(tail), rank)
    expected = (b"abcd", *tail)
    assert_equal(got, expected, "Only the last merges, ab and abc, make abc; then abc + d fits")


def like_the_library(student: Any, rng: torch.Generator) -> None:
    """Random words, with merges learned from random text"""
    text = " ".join(b"".join(random_word(rng, "abc", 6)).decode() for _ in range(60))
    rank = {pair: number for number, pair in enumerate(train_bpe([text], 25))}
    for _ in range(20):
        piece = b"".join(random_word(rng, "abc", 4 + draw(rng, 8)))
        assert_equal(student(piece, rank), apply_merges(piece, rank), f"The piece {piece.decode()}")


def _once_in_order(piece: bytes, rank: dict[Merge, int]) -> tuple[Token, ...]:
    tokens = tuple(bytes([byte]) for byte in piece)
    for pair in sorted(rank, key=rank.__getitem__):
        tokens = merge_pair(tokens, pair)
    return tokens


def _longest_known(piece: bytes, rank: dict[Merge, int]) -> tuple[Token, ...]:
    known, tokens = {first + second for first, second in rank}, []
    while piece:
        length = max((n for n in range(1, len(piece) + 1) if piece[:n] in known), default=1)
        tokens.append(piece[:length])
        piece = piece[length:]
    return tuple(tokens)


APPLY_MERGES = Exercise(
    id="tokenizer.apply_merges",
    reference="course_utils.tokenizer.bpe:apply_merges",
    title="Encode a piece",
    points=5,
    minutes=15,
    difficulty=2,
    checks=(single_bytes, earliest_first, merges_of_merges, earlier_merges_again, like_the_library),
    mutants=(
        Mutant(
            says="You took the first pair that you know, from the left. The order of learning "
            "decides: of all pairs take the one with the smallest rank.",
            why="Reading goes from left to right.",
            replace=(
                "min(pairs, key=lambda pair: rank.get(pair, len(rank)))",
                "next((pair for pair in pairs if pair in rank), (b'', b''))",
            ),
        ),
        Mutant(
            says="You took the merge that was learned last. Rank 0 is the first, so the smallest "
            "rank wins.",
            why="A high rank sounds important.",
            replace=(
                "min(pairs, key=lambda pair: rank.get(pair, len(rank)))",
                "max(pairs, key=lambda pair: rank.get(pair, -1))",
            ),
        ),
        Mutant(
            says="A pair that was never learned counts as rank 0 for you, and wins. It has to lose "
            "against every learned one.",
            why="0 is the usual default of `get`.",
            replace=("rank.get(pair, len(rank))", "rank.get(pair, 0)"),
        ),
        Mutant(
            says="You merged one pair and stopped. Look again, until no pair of neighbors has "
            "been learned.",
            why="One merge is one call, and the loop around it is easily forgotten.",
            replace=("while len(tokens) > 1:", "for _ in range(min(1, len(tokens) - 1)):"),
        ),
        Mutant(
            says="You started from characters. Start from bytes: a character outside ASCII is "
            "several of them, and a piece of bytes need not be whole characters.",
            why="For English the two are the same.",
            replace=(
                "tuple(bytes([byte]) for byte in piece)",
                "tuple(letter.encode() for letter in piece.decode(errors='replace'))",
            ),
        ),
        Mutant(
            says="You went through all merges once, in their order. A token can come from two "
            "merges; when the later one makes it, a merge that you have passed may fit. (Besides, "
            "you try thousands of merges on every word.)",
            why="It repeats what training did, and it is right nearly always.",
            function=_once_in_order,
        ),
        Mutant(
            says="You took the longest known token from the left. That is another algorithm "
            "(WordPiece's); BPE replays its merges in the order of learning.",
            why="The longest match seems to compress best.",
            function=_longest_known,
        ),
    ),
    hints=(
        "Look at all pairs of neighbors. Which of them was learned earliest? Join it, and repeat.",
        "min(pairwise(tokens), key=…) finds it; give pairs that were never learned a rank that is "
        "larger than any real one. Stop when even the best was never learned.",
        "while len(tokens) > 1: earliest = min(pairwise(tokens), key=lambda pair: rank.get(pair, "
        "len(rank))); if it is not in rank, break; tokens = merge_pair(tokens, earliest).",
    ),
)

# --- tokenizer.bpe --------------------------------------------------------------------------------

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|im_start|><")  # the third begins like the first
CHARACTERS = ("a", "b", "the", " the", " ", "  ", "é", "你", "好", "🙂", "1", "2", "!", "\n", "<|")


def random_text(rng: torch.Generator, parts: int = 12) -> str:
    return "".join(CHARACTERS[draw(rng, len(CHARACTERS))] for _ in range(parts))


def some_merges() -> list[Merge]:
    """Learned from text, so that most but not all characters are whole tokens."""
    return train_bpe(["the the  the 你你 éé abab \n\n!! 🙂"], 12)


def piece_by_piece(student: Any, rng: torch.Generator) -> None:
    """Encodes text piece by piece: no merge reaches from one piece into the next"""
    merges = [(b"1", b"2"), (b"a", b" "), (b"!", b"a"), *some_merges()]  # the first three never fit
    text = "12 a b!a" + random_text(rng)
    expected = BPE(merges).encode(text)
    assert_equal(student(merges).encode(text), expected, f"The ids of {text!r}")


def special_tokens(student: Any, rng: torch.Generator) -> None:
    """Gives each special token its one id, and splits text that only resembles one"""
    merges, text = some_merges(), random_text(rng, 5)
    text = f"<|im_start|>{text}<|im_end|><|im_start|>< |im_end|><|im_start|><|im_end|"
    expected = BPE(merges, SPECIAL).encode(text)
    assert_equal(student(merges, SPECIAL).encode(text), expected, f"The ids of {text!r}")


def gives_text_back(student: Any, rng: torch.Generator) -> None:
    """Decodes to the same text, with characters that are spread over several tokens"""
    text = random_text(rng, 20) + "好🙂"
    ids = BPE(some_merges()).encode(text)
    assert_equal(student(some_merges()).decode(ids), text, "Encoded and decoded again")


def gives_special_back(student: Any, rng: torch.Generator) -> None:
    """Decodes special tokens to their names"""
    text = f"<|im_start|>{random_text(rng, 5)}<|im_end|>\n"
    ids = BPE(some_merges(), SPECIAL).encode(text)
    got = student(some_merges(), SPECIAL).decode(ids)
    assert_equal(got, text, "With two special tokens, encoded and decoded again")


def cut_characters(student: Any, rng: torch.Generator) -> None:
    """Shows � where a character was cut in two, and continues"""
    for text in (random_text(rng, 4) + "好", random_text(rng, 4) + "🙂"):
        ids = BPE([]).encode(text)
        for kept in (ids[:-1], [*ids[:-1], ord("a")]):
            expected = bytes(kept).decode(errors="replace")
            assert_equal(student([]).decode(kept), expected, f"The bytes {bytes(kept).hex(' ')}")


DECODE = """        parts = (
            self._names[i].encode() if i in self._names else self.tokens[i] for i in map(int, ids)
        )
        return b"".join(parts).decode("utf-8", errors="replace")
"""

BPE_CLASS = Exercise(
    id="tokenizer.bpe",
    reference="course_utils.tokenizer.bpe:BPE",
    title="The tokenizer",
    points=5,
    minutes=20,
    difficulty=2,
    holes=("encode", "decode"),
    checks=(piece_by_piece, special_tokens, gives_text_back, gives_special_back, cut_characters),
    mutants=(
        Mutant(
            says="You encoded the text in one go. Then merges can reach from one piece into the "
            "next. Split it with split_into_pieces first.",
            why="apply_merges takes any bytes, and most merges cannot cross a border anyway.",
            replace=("for piece in split_into_pieces(part):", "for piece in [part]:"),
        ),
        Mutant(
            says="Special tokens were encoded like any other text. A part that is in self.special "
            "gets its one id from there.",
            why="They look like text, and decode to the same text.",
            replace=("if part in self.special:", "if not part:"),
        ),
        Mutant(
            says="You appended a list of ids to a list. Use += (or extend) to add several.",
            why="append is the usual way to add to a list.",
            replace=(
                "ids += self._encode_piece(piece)",
                "ids.append(self._encode_piece(piece))",
            ),
        ),
        Mutant(
            says="You decoded each token on its own. A character can be spread over several "
            "tokens, none of which is valid UTF-8 alone. Join the bytes first, then decode once.",
            why="It works for every text that is ASCII.",
            replace=(
                'b"".join(parts).decode("utf-8", errors="replace")',
                '"".join(part.decode("utf-8", errors="replace") for part in parts)',
            ),
        ),
        Mutant(
            says="Special tokens have no entry in self.tokens. Their names are in self._names.",
            why="All other ids are an index into self.tokens.",
            replace=(
                "self._names[i].encode() if i in self._names else self.tokens[i]",
                "self.tokens[i]",
            ),
        ),
        Mutant(
            says="Special tokens vanish when you decode. Here they are part of the text.",
            why="A chat program does not show them; but it decides that itself.",
            replace=(
                "self._names[i].encode() if i in self._names else self.tokens[i] "
                "for i in map(int, ids)",
                "self.tokens[i] for i in map(int, ids) if i not in self._names",
            ),
        ),
        Mutant(
            says="Bytes that are no whole character raise an error. A model can produce any "
            'tokens, so decode with errors="replace".',
            why="Strict is Python's default, and every encoded text passes.",
            replace=('"utf-8", errors="replace")', '"utf-8")'),
        ),
        Mutant(
            says="Bytes that are no whole character vanish. Show that something is missing: "
            'errors="replace" puts � there.',
            why="The result looks cleaner.",
            replace=('"utf-8", errors="replace")', '"utf-8", errors="ignore")'),
        ),
    ),
    hints=(
        "encode: go through self._around_special(text). Each part is either a special token or "
        "ordinary text.",
        "decode: collect the bytes of all ids first, and turn them into text once, at the end.",
        "encode: if part in self.special, append self.special[part]; else add "
        "self._encode_piece(piece) for each piece in split_into_pieces(part). decode: "
        'b"".join(…).decode(errors="replace").',
    ),
)

# --- tokenizer.bits_per_byte ----------------------------------------------------------------------


def knows_nothing(student: Any, rng: torch.Generator) -> None:
    """A model that finds all 256 bytes equally likely needs 8 bits for each"""
    n = 20 + draw(rng, 20)
    losses = torch.full((n,), math.log(256))
    tokens = torch.randint(256, (n,), generator=rng)
    got = student(losses, tokens, torch.ones(256, dtype=torch.int64))
    assert_close(got, 8.0, "The loss of every byte is ln 256", rtol=1e-5)


def longer_tokens(student: Any, rng: torch.Generator) -> None:
    """Divides by the bytes of the text, which its tokens share unequally"""
    token_bytes = torch.randint(1, 9, (50,), generator=rng)
    tokens = torch.randint(50, (30,), generator=rng)
    losses = 5 * torch.rand(30, generator=rng)
    expected = sum(losses.tolist()) / math.log(2) / sum(token_bytes[tokens].tolist())
    got = student(losses, tokens, token_bytes)
    assert_close(got, expected, "Thirty tokens of 1 to 8 bytes", rtol=1e-5)


def any_cut(student: Any, rng: torch.Generator) -> None:
    """Is the same however the text is cut: a token's loss is that of its two halves together"""
    whole = 4 + 4 * torch.rand(10, generator=rng)
    share = torch.rand(10, generator=rng)
    halves = torch.stack((whole * share, whole * (1 - share)), dim=1).flatten()
    expected = bits_per_byte(whole, torch.zeros(10, dtype=torch.int64), torch.tensor([6, 2, 4]))
    first = student(whole, torch.zeros(10, dtype=torch.int64), torch.tensor([6, 2, 4]))
    second = student(halves, torch.tensor([1, 2] * 10), torch.tensor([6, 2, 4]))
    assert_close(first, expected, "Ten tokens of six bytes", rtol=1e-5)
    assert_close(second, expected, "The same text in tokens of two and four bytes", rtol=1e-5)


def special_are_no_text(student: Any, rng: torch.Generator) -> None:
    """Special tokens count neither in the losses nor in the bytes"""
    token_bytes = torch.tensor([1, 3, 0, 2, 0])
    tokens = torch.cat((torch.randint(5, (20,), generator=rng), torch.tensor([2, 4, 1])))
    losses = 1 + torch.rand(23, generator=rng)
    expected = bits_per_byte(losses, tokens, token_bytes)
    got = student(losses, tokens, token_bytes)
    assert_close(got, expected, "With special tokens, which have 0 bytes", rtol=1e-5)


BITS_PER_BYTE = Exercise(
    id="tokenizer.bits_per_byte",
    reference="course_utils.models.metrics:bits_per_byte",
    title="Bits per byte",
    points=4,
    minutes=10,
    difficulty=2,
    checks=(knows_nothing, longer_tokens, any_cut, special_are_no_text),
    mutants=(
        Mutant(
            says="Your result is in nats. One bit is ln 2 = 0.69 nats, so divide by ln 2.",
            why="PyTorch's cross-entropy is in nats, and nobody writes the unit.",
            replace=("nats / math.log(2) / n_bytes", "nats / n_bytes"),
        ),
        Mutant(
            says="You multiplied with ln 2. A nat is more than a bit (1.44 of them), so the "
            "number must get larger: divide.",
            why="Multiplication and division are easily confused when units are converted.",
            replace=("nats / math.log(2) / n_bytes", "nats * math.log(2) / n_bytes"),
        ),
        Mutant(
            says="You divided by the number of tokens: that is bits per token, which nobody can "
            "compare. Divide by the bytes that they stand for.",
            why="Until now, `loss` was always a mean over tokens.",
            replace=("/ n_bytes.sum().item()", "/ (n_bytes > 0).sum().item()"),
        ),
        Mutant(
            says="You averaged each token's own bits per byte. Then a token of one byte weighs as "
            "much as one of eight. Add up the losses, add up the bytes, divide once.",
            why="A mean of ratios looks like a ratio.",
            replace=(
                "nats / math.log(2) / n_bytes.sum().item()",
                "(losses / n_bytes)[n_bytes > 0].mean().item() / math.log(2)",
            ),
        ),
        Mutant(
            says="You left the special tokens in the sum of losses. They have no bytes, so the "
            "model would be blamed for text that is not there.",
            why="With 0 bytes they drop out of the denominator by themselves, but not out of the "
            "sum.",
            replace=("losses[n_bytes > 0].sum()", "losses.sum()"),
        ),
        Mutant(
            says="You divided by the bytes of the whole vocabulary. Count those of the text: "
            "token_bytes[tokens].",
            why="token_bytes is already there, and can be summed.",
            replace=("/ n_bytes.sum().item()", "/ token_bytes.sum().item()"),
        ),
        Mutant(
            says="Return a plain float: .item() on the sum.",
            why="A tensor with one number prints like a number.",
            replace=("losses[n_bytes > 0].sum().item()", "losses[n_bytes > 0].sum()"),
        ),
    ),
    hints=(
        "You need two sums and one division. How many bytes does each token of the text have?",
        "token_bytes[tokens] looks up all of them at once; where it is 0 there is a special token.",
        "nats = losses[n_bytes > 0].sum().item(); return nats / math.log(2) / n_bytes.sum().item()",
    ),
)

EXERCISES = (COUNT_PAIRS, MERGE_PAIR, APPLY_MERGES, BPE_CLASS, BITS_PER_BYTE)
