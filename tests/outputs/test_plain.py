"""Hostile text becomes harmless text, and stays recognisable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.grader.autograde.outputs import plain

anything = st.text(st.characters(codec=None))  # lone surrogates and NULs too


@given(anything)
def test_whatever_it_is_it_can_be_written_and_cannot_steer(text):
    shown = plain.html(text)
    shown.encode("utf-8")
    for bad in "<>\"'\0\r\x1b\u202e\u2066\u200b\x85":
        assert bad not in shown


def test_ordinary_text_stays_what_it_is():
    text = "x @ w + b → ŷ\n\tnaïve  日本語 👩‍🔬"
    assert plain.plain(text) == text


def test_what_was_hidden_is_shown():
    assert plain.plain("a\u202eb\0c\ud800") == "a⟨U+202E⟩b␀c\ufffd"


def test_sentences_show_code_as_code_and_nothing_else():
    assert plain.sentence("use `a < b`, **not** <b>") == (
        "use <code>a &lt; b</code>, <b>not</b> &lt;b&gt;"
    )


def test_ten_million_characters_become_two_thousand():
    assert len(plain.html("x" * 10_000_000)) < 2100
    assert "10,000,000" in plain.html("x" * 10_000_000)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1"])
def test_no_field_is_a_formula(text):
    assert plain.field(text)[0] not in "=+-@\t\r"


@pytest.mark.parametrize("text", ["ada", "Zoë", "s.o.meone", "ada@x.org", "_", "02_mnist_cnn"])
def test_ordinary_names_stay(text):
    assert plain.name(text) == text


@given(anything, anything)
def test_every_name_is_one_folder_of_its_own(one, other):
    name = plain.name(one)
    assert name not in ("", ".", "..") and not set(name) & set("/\\\0:\n")
    assert len(name.encode()) < 250 and not name.startswith((".", "-"))
    assert (name == plain.name(other)) == (one == other)


@pytest.mark.parametrize(
    "text", ["..", "../../etc", "/etc", "a/b", "con", "COM1.x", "x.", "-rf", "é" * 200]
)
def test_names_that_mean_something_else_are_changed(text):
    assert plain.name(text) != text
