"""BPE from scratch against a naive one, against `tokenizers`, and against what it promises."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root
from course_utils.tokenizer.bpe import (
    BPE,
    apply_merges,
    count_pairs,
    merge_pair,
    split_into_pieces,
    train_bpe,
)
from course_utils.tokenizer.fast import FastBPE

# Real text with code, prose, numbers and other scripts.
TEXT = Path(__file__).read_text("utf-8") + (course_root() / "LICENSE").read_text("utf-8")
TEXT += "Grüße aus Köln, 你好，世界。今天天气很好！ Привет 🙂👩‍🚀 1234567\r\n\t\tend" * 3
SPECIAL = ("<|im_start|>", "<|im_end|>")
MERGES = train_bpe([TEXT], 600)
SLOW, FAST = BPE(MERGES, SPECIAL), FastBPE.from_merges(MERGES, SPECIAL)

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
tricky = st.lists(
    st.sampled_from(
        [*SPECIAL, "<|im_", " ", "  ", "\n", "\r\n", "\t", "don't", "12", "3.14", "你好", "。", "é",
         "e\u0301", "🙂", "\u200d", "\x00", "\x1f", "\x85", "\u2028", "\u3000", "\uffff", "a", "Z"]
    ),
    max_size=12,
).map("".join)  # fmt: skip


def naive_training(text: str, n_merges: int) -> list:
    """Count everything again after every merge: slow, and obviously right."""
    words = Counter(piece.encode() for piece in split_into_pieces(text))
    split = {tuple(bytes([b]) for b in word): count for word, count in words.items()}
    merges = []
    while len(merges) < n_merges:
        pairs = count_pairs(split)
        best = max(pairs, key=lambda pair: (pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        merged: Counter = Counter()
        for tokens, count in split.items():
            merged[merge_pair(tokens, best)] += count
        split = dict(merged)
    return merges


def test_fast_counting_learns_what_naive_counting_learns():
    assert naive_training(TEXT, 150) == MERGES[:150]


@settings(max_examples=40, deadline=None)
@given(st.text("ab ", max_size=60))
def test_it_does_so_where_pairs_overlap(text):
    assert train_bpe([text], 30) == naive_training(text, 30)


@settings(max_examples=300, deadline=None)
@given(st.one_of(any_text, tricky))
def test_both_tokenizers_encode_any_text_alike_and_give_it_back(text):
    ids = SLOW.encode(text)
    assert ids == FAST.encode(text)
    assert SLOW.decode(ids) == FAST.decode(ids) == text
    assert all(0 <= number < SLOW.vocab_size for number in ids)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, SLOW.vocab_size - 1), max_size=30))
def test_both_decode_any_ids_alike(ids):
    assert SLOW.decode(ids) == FAST.decode(ids)


@settings(max_examples=200, deadline=None)
@given(any_text)
def test_pieces_lose_nothing(text):
    assert "".join(split_into_pieces(text)) == text


def test_digits_stand_alone_and_words_take_their_space_along():
    assert split_into_pieces("In 2026, don't!") == [
        "In",
        " ",
        "2",
        "0",
        "2",
        "6",
        ",",
        " don't",
        "!",
    ]


def test_special_tokens_are_never_split_and_never_made_from_text():
    text = "<|im_start|>user\nhi<|im_end|>"
    ids = SLOW.encode(text)
    assert ids[0] == SLOW.special["<|im_start|>"] == FAST.special["<|im_start|>"]
    assert ids[-1] == SLOW.special["<|im_end|>"]
    assert SLOW.special["<|im_end|>"] not in SLOW.encode("< |im_end|>")


def test_merging_goes_from_left_to_right():
    assert merge_pair((b"a", b"a", b"a"), (b"a", b"a")) == (b"aa", b"a")
    assert apply_merges(b"aaaa", {(b"a", b"a"): 0, (b"aa", b"aa"): 1}) == (b"aaaa",)


def test_training_stops_when_nothing_repeats():
    assert train_bpe(["abc"], 10) == []


def test_the_fast_one_trains_saves_and_loads(tmp_path):
    trained = FastBPE.train([TEXT], 400, SPECIAL)
    assert trained.vocab_size == 400
    trained.save(tmp_path / "tokenizer.json")
    loaded = FastBPE.load(tmp_path / "tokenizer.json")
    assert loaded.encode(TEXT) == trained.encode(TEXT) and loaded.special == trained.special
    assert b"".join(map(loaded.token_bytes, loaded.encode(TEXT))) == TEXT.encode()
    # TEXT holds the names of special tokens: a batch takes them for the text that they are.
    alone = [loaded.encode(text, special=False) for text in (TEXT, "a")]
    assert loaded.encode_batch([TEXT, "a"]) == alone != [loaded.encode(TEXT), alone[1]]


def test_transformers_reads_it(tmp_path):
    from transformers import PreTrainedTokenizerFast

    FAST.save(tmp_path / "tokenizer.json")
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert theirs(TEXT, add_special_tokens=False).input_ids == FAST.encode(TEXT)


def test_bad_input_is_told_in_a_line(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    for path, says in (
        (tmp_path / "none.json", "no tokenizer"),
        (tmp_path / "broken.json", "not a"),
    ):
        with pytest.raises(CourseError, match=says):
            FastBPE.load(path)
    with pytest.raises(CourseError, match="too small"):
        FastBPE.train(["abc"], 100)
