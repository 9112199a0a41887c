"""What is shown is the text, escaped, whatever it contains."""

import html
import json
import re
from itertools import pairwise

import pytest

from course_utils.pictures import tokens as token_pictures
from course_utils.tokenizer.bpe import merge_pair, train_bpe

EVIL = "</script><b>&\"'</b> 你 FALLBACK @DATA@ \n"


@pytest.fixture
def shown(monkeypatch):
    pages = []
    monkeypatch.setattr(token_pictures, "display", lambda page: pages.append(page.data))
    return pages


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", page))


def test_coloured_tokens_are_the_text_and_no_markup(shown):
    tokens = [EVIL[:9].encode(), EVIL[9:].encode()]
    token_pictures.coloured({"<i>": tokens})
    assert not any(markup in shown[0] for markup in ('<b>&"', "</script>", "<i>"))
    assert EVIL[9:].replace("\n", "⏎") in text_of(shown[0])
    assert "2 tokens" in shown[0]


def test_bytes_that_are_no_character_are_shown_as_bytes(shown):
    first, rest = "你".encode()[:1], "你".encode()[1:]
    token_pictures.coloured({"cut": [first, rest]})
    assert "e4" in text_of(shown[0]) and "bd·a0" in text_of(shown[0])


def test_a_table_of_characters_has_every_byte(shown):
    token_pictures.characters_and_bytes("é<")
    assert all(f">{value}</td>" in shown[0] for value in ("U+00E9", "195", "169", "U+003C", "60"))
    assert "&lt;" in shown[0]


def test_the_stepper_goes_from_bytes_to_tokens_and_loses_nothing(shown):
    merges = train_bpe([EVIL * 5], 20)
    token_pictures.merge_stepper(EVIL, merges, merge_pair)
    page = shown[0]
    script = page[page.index("<script>") :]
    assert script.count("</script>") == 1, "the text ends the script"
    data = json.loads(re.search(r"const data = (\{.*\});", script)[1])
    assert bytes(data["bytes"]).decode() == EVIL
    steps = data["steps"]
    assert len(steps[0]["ends"]) == len(EVIL.encode())
    for before, after in pairwise(steps):
        assert after["merge"] > before["merge"]
        assert set(after["ends"]) < set(before["ends"])
    assert f'value="{len(steps) - 1}"' in page
    assert "@FALLBACK@" not in page
