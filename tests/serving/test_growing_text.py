"""What of an answer may be shown when: whole characters, and nothing of a stop string."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from course_utils.serving.text import GrowingText

LETTERS = st.text("abé你🙂", max_size=30)


def pieces_of(text: bytes, cuts: list[int], stop: list[str]) -> tuple[list[str], GrowingText]:
    """A text cut into tokens at these places, and what was shown after each of them."""
    borders = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    tokens = [text[a:b] for a, b in pairwise(borders)]
    growing, shown = GrowingText(lambda index: tokens[index], stop), []
    for index in range(len(tokens)):
        shown.append(growing.add(index))
        if growing.stopped:
            return shown, growing
    return [*shown, growing.end()], growing


def first_complete(text: str, stops: list[str]) -> str:
    """The text before the stop string that is complete first, found letter by letter."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))]
    return text


@given(LETTERS, st.lists(st.integers(0, 200)))
def test_characters_come_whole_however_they_are_cut(text, cuts):
    shown, _ = pieces_of(text.encode(), cuts, [])
    assert "".join(shown) == text
    assert not any("\ufffd" in piece for piece in shown)


@given(
    LETTERS,
    st.lists(st.integers(0, 200)),
    st.lists(st.text("abé你", min_size=1, max_size=4), max_size=4),
)
def test_borders_between_tokens_do_not_show_in_where_a_stop_string_ends_it(text, cuts, stops):
    shown, growing = pieces_of(text.encode(), cuts, stops)
    assert "".join(shown) == first_complete(text, stops)
    assert growing.stopped == (first_complete(text, stops) != text)


@given(st.binary(max_size=30), st.lists(st.integers(0, 200)))
def test_bytes_that_are_no_text_are_replaced_as_everywhere(data, cuts):
    shown, _ = pieces_of(data, cuts, [])
    assert "".join(shown) == data.decode("utf-8", "replace")


def test_text_is_held_back_only_as_long_as_it_may_be_a_stop_string():
    growing = GrowingText(lambda token: bytes([token]), ["END", "\n\n"])
    assert [growing.add(ord(letter)) for letter in "xENyEN"] == ["x", "", "", "ENy", "", ""]
    assert growing.end() == "EN"


def test_half_a_character_at_the_end_becomes_one_replacement():
    growing = GrowingText(lambda token: bytes([token]))
    assert [growing.add(byte) for byte in "你".encode()[:2]] == ["", ""]
    assert growing.end() == "\ufffd"
