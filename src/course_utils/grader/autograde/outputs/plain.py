"""Text from learners made harmless: for a page, a table, a file's name.

What a learner wrote, printed or named may hold anything: markup, control characters, marks that
turn the direction of reading, half of a surrogate pair, ten million characters. It is cut first,
then every character that could mislead is replaced by one that shows what it was.
"""

import hashlib
import re
from html import escape as escape_html

# Marks that change the direction of what follows, also outside of the learner's text (Unicode's
# annex 9), and spaces without a width.
_UNSEEN = (
    "\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)
_SHOWN = {ord(mark): f"⟨U+{ord(mark):04X}⟩" for mark in _UNSEEN}
_SHOWN |= {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"}
_SHOWN |= dict.fromkeys(range(127, 160), "�")
_SURROGATES = re.compile("[\ud800-\udfff]")
_TROUBLE = re.compile("[" + re.escape("".join(map(chr, _SHOWN))) + "\ud800-\udfff]")

_CODE, _WEIGHT = re.compile(r"`([^`\n]+)`"), re.compile(r"\*\*([^*\n]+)\*\*")

# A spreadsheet takes a field that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NAME = re.compile(r"\w[\w.@+-]{0,59}")  # at most 240 bytes
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # on Windows


def plain(text: str, limit: int = 2000) -> str:
    """At most `limit` characters of a text, with line ends and tabs but nothing else unseen."""
    if len(text) > limit:
        text = f"{text[:limit]} … ({len(text):,} characters)"
    text = text.replace("\r\n", "\n")
    if _TROUBLE.search(text):
        text = _SURROGATES.sub("\ufffd", text).translate(_SHOWN)
    return text


def line(text: str, limit: int = 300) -> str:
    """`plain`, on one line, and cut without a word."""
    short = text if len(text) <= limit else text[:limit] + " …"
    return " ".join(plain(short, limit + 2).split())


def html(text: str, limit: int = 2000) -> str:
    """A text for a page: nothing in it is markup."""
    return escape_html(plain(text, limit), quote=True)


def sentence(text: str) -> str:
    """One of the course's own sentences for a page: `code` and **weight** are shown as such."""
    return _WEIGHT.sub(r"<b>\1</b>", _CODE.sub(r"<code>\1</code>", html(text)))


def field(text: str) -> str:
    """A text for a field of a table that a spreadsheet opens.

    OWASP, "CSV Injection": an apostrophe in front, and the program shows the text.
    """
    text = line(text)
    return "'" + text if text.startswith(_FORMULA) else text


def name(text: str) -> str:
    """A name for a file or folder that lies where it is put, for a student or lesson.

    An ordinary name stays what it is. Any other becomes what is ordinary in it, and a piece of its
    hash, so that two names stay two.
    """
    ordinary = _NAME.fullmatch(text) and not text.endswith(".") and not _RESERVED.fullmatch(text)
    if ordinary:
        return text
    kept = re.sub(r"[^A-Za-z0-9_]+", "-", text[:200])[:40].strip("-")
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{kept or 'name'}-{mark}"
