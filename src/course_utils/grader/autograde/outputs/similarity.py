"""Groups of solutions that are more alike than chance: something to look at, never a verdict.

Each solution becomes a set of fingerprints of its tokens (Schleimer, Wilkerson and Aiken,
"Winnowing: Local Algorithms for Document Fingerprinting", SIGMOD 2003). Names that the learner
chose count as one and the same, and comments, docstrings and layout do not count, so that renaming
and reformatting change nothing.

A short exercise has few good solutions, and most of the class writes one of them. So three kinds of
fingerprint are no evidence and are left out: those of the stub, those of the library's own solution
and of its known mistakes, and those that many share. What is left must still be long enough.
"""

import builtins
import io
import keyword
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from zlib import crc32

from course_utils.grader.autograde.records import SubmissionGrade

RUN = 6  # tokens in one fingerprint
WINDOW = 4  # of so many fingerprints in a row one is kept
COMMON = 0.1  # a fingerprint that more than this share of the class has says nothing
AT_LEAST = 4  # but so few may always share it: a group that copied, in a small class
EVIDENCE = 24  # rare fingerprints that two notebooks must share: about 60 tokens
ALIKE = 0.6  # and the share of the rare ones of the smaller of the two

_MOST_CHARACTERS = 20_000
_SKIP = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
_PYTHONS_OWN = frozenset(keyword.kwlist) | frozenset(dir(builtins))
# For what Python cannot read: docstrings and comments, and what is left.
_TEXT = re.compile(r'("""|\'\'\').*?(\1|\Z)|#[^\n]*', re.DOTALL)
_ROUGH = re.compile(r"[A-Za-z_]\w*|\d+\.?\d*|[^\w\s]")

# A solution's place: (exercise, fingerprint).
Print = tuple[str, int]


@dataclass(frozen=True)
class Group:
    """Students whose notebooks of one lesson share more than the class does."""

    lesson: str
    students: tuple[str, ...]
    exercises: tuple[str, ...]  # where
    shared: int  # the fewest rare fingerprints that a linked pair shares
    alike: float  # and the smallest share of the smaller notebook's


def tokens(source: str, given: frozenset[str] = frozenset()) -> list[str]:
    """A program's tokens without layout, comments and docstrings, its own names all alike.

    Args:
        source: it may be wrong Python.
        given: names that were not the learner's to choose (those of the stub).
    """
    given |= _PYTHONS_OWN
    found: list[str] = []
    previous = ""
    for kind, text in _raw_tokens(source[:_MOST_CHARACTERS]):
        if kind == tokenize.STRING and previous in ("", ":") and text.endswith(('"""', "'''")):
            continue
        own = kind == tokenize.NAME and previous != "." and text not in given
        found.append("name" if own else text)
        previous = text
    return found


def _raw_tokens(source: str) -> Iterator[tuple[int, str]]:
    try:
        # All at once: a program that is wrong in its last line must not yield half of its tokens.
        yield from [
            (token.type, token.string)
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type not in _SKIP
        ]
    except (tokenize.TokenError, SyntaxError, ValueError):
        for match in _ROUGH.finditer(_TEXT.sub(" ", source)):
            kind = tokenize.NAME if match[0].isidentifier() else tokenize.OP
            yield kind, match[0]


def runs(source: str, given: frozenset[str] = frozenset()) -> list[int]:
    """The hashes of every run of `RUN` tokens, in their order."""
    words = tokens(source, given)
    return [
        crc32("\0".join(words[start : start + RUN]).encode("utf-8", "replace"))
        for start in range(len(words) - RUN + 1)
    ]


def winnowed(hashes: Sequence[int]) -> frozenset[int]:
    """The smallest hash of every window: runs that two programs share are found in both."""
    if len(hashes) <= WINDOW:
        return frozenset(hashes)
    return frozenset(min(hashes[at : at + WINDOW]) for at in range(len(hashes) - WINDOW + 1))


def groups(
    records: Iterable[SubmissionGrade], known: Callable[[str], Sequence[str]]
) -> list[Group]:
    """The groups of a class, the largest and most alike first.

    Args:
        records: of any lessons.
        known: by exercise, the sources that are no evidence; the stub comes first.
    """
    by_lesson: dict[str, dict[str, frozenset[Print]]] = defaultdict(dict)
    prints_of = _Printer(known)
    for record in records:
        prints = [prints_of(one.exercise, one.source) for one in record.exercises]
        by_lesson[record.lesson][record.student] = frozenset().union(*prints)
    found = [group for lesson, of in by_lesson.items() for group in _of_lesson(lesson, of)]
    return sorted(found, key=lambda g: (-len(g.students), -g.alike, g.lesson, g.students))


class _Printer:
    """The fingerprints of solutions; of equal ones they are made once."""

    def __init__(self, known: Callable[[str], Sequence[str]]) -> None:
        self.known = known
        self.prepared: dict[str, tuple[frozenset[str], frozenset[int]]] = {}
        self.seen: dict[tuple[str, str], frozenset[Print]] = {}

    def __call__(self, exercise: str, source: str) -> frozenset[Print]:
        found = self.seen.get((exercise, source))
        if found is None:
            given, base = self._prepared(exercise)
            own = winnowed(runs(source, given)) - base
            found = self.seen[exercise, source] = frozenset((exercise, value) for value in own)
        return found

    def _prepared(self, exercise: str) -> tuple[frozenset[str], frozenset[int]]:
        """Names that were not the learner's to choose, and the runs that are no evidence."""
        if exercise not in self.prepared:
            known = self.known(exercise)
            stub = _raw_tokens(known[0]) if known else ()
            given = frozenset(text for kind, text in stub if kind == tokenize.NAME)
            base = frozenset(value for source in known for value in runs(source, given))
            self.prepared[exercise] = given, base
        return self.prepared[exercise]


def _of_lesson(lesson: str, prints: Mapping[str, frozenset[Print]]) -> Iterator[Group]:
    counts = Counter(one for own in prints.values() for one in own)
    most = max(AT_LEAST, COMMON * len(prints))
    rare = {
        student: frozenset(one for one in own if counts[one] <= most)
        for student, own in prints.items()
    }
    links: dict[frozenset[str], tuple[int, float]] = {}
    for pair, shared in _shared(rare).items():
        one, other = pair
        alike = shared / min(len(rare[one]), len(rare[other]))
        if shared >= EVIDENCE and alike >= ALIKE:
            links[pair] = shared, alike
    for students in _connected(links):
        inside = [found for pair, found in links.items() if pair <= students]
        common = Counter(one for student in students for one in rare[student])
        where = sorted({exercise for (exercise, _), n in common.items() if n > 1})
        fewest, least = min(n for n, _ in inside), min(alike for _, alike in inside)
        yield Group(lesson, tuple(sorted(students)), tuple(where), fewest, least)


def _shared(rare: Mapping[str, frozenset[Print]]) -> Counter[frozenset[str]]:
    """How many rare fingerprints each pair shares; through an index, not by comparing all pairs."""
    having: dict[Print, list[str]] = defaultdict(list)
    for student, own in rare.items():
        for one in own:
            having[one].append(student)
    pairs: Counter[frozenset[str]] = Counter()
    for students in having.values():
        pairs.update(map(frozenset, combinations(students, 2)))
    return pairs


def _connected(links: Iterable[frozenset[str]]) -> list[frozenset[str]]:
    groups: list[frozenset[str]] = []
    for pair in links:
        touched = [group for group in groups if group & pair]
        groups = [group for group in groups if not group & pair]
        groups.append(frozenset().union(pair, *touched))
    return groups
