"""The result card: HTML for notebooks, the same as text for terminals.

Colours come from JupyterLab's theme variables with fall-backs, so the card is readable in light
and dark themes, in nbconvert pages and in plain Jupyter. Everything a learner's code produced is
escaped: a tensor's repr or an exception's message must not become markup.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import torch

from course_utils.exercises.exercise import Exercise
from course_utils.exercises.judge import Outcome

_SIGN = {"passed": "✓", "not_run": "–", "not_attempted": "○"}
_GREEN, _AMBER, _GREY = "#2e9e5b", "#d98324", "#8a8f98"


@dataclass(frozen=True)
class Result:
    """A checked exercise: a card to read, and its score as a float to whoever grades.

    nbgrader takes the score from the cell's plain output, so `repr` is that number and nothing
    else; a notebook shows the card, `print` the same as text.
    """

    exercise: Exercise
    outcomes: tuple[Outcome, ...]
    score: float
    seed: int
    says: str = ""
    hint: str = ""
    note: str = ""

    @property
    def passed(self) -> bool:
        return all(outcome.passed for outcome in self.outcomes)

    @property
    def attempted(self) -> bool:
        return self.outcomes[0].status != "not_attempted"

    def __float__(self) -> float:
        return self.score

    def __repr__(self) -> str:
        return str(self.score)

    def __str__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        return html(self)


def text(result: Result) -> str:
    """The card as a few lines of plain text."""
    exercise = result.exercise
    lines = [f"{exercise.title} ({exercise.id}): {_points(result)}"]
    for outcome, details in _shown(result):
        lines.append(f"  {_SIGN.get(outcome.status, '✗')} {outcome.title}")
        lines += [f"      {line}" for line in details]
    lines += [f"  {line}" for line in (result.says, result.hint and f"Hint: {result.hint}") if line]
    if result.note:
        lines.append(f"  {result.note}")
    return "\n".join(lines)


def html(result: Result) -> str:
    """The card as one self-contained HTML fragment."""
    exercise = result.exercise
    colour = _GREEN if result.passed else _AMBER if result.attempted else _GREY
    rows = "".join(_row(outcome, details) for outcome, details in _shown(result))
    extras = "".join(
        f'<div style="margin-top:.5em;padding:.5em .7em;border-radius:4px;'
        f'background:var(--jp-layout-color2,rgba(128,128,128,.14))"><b>{label}</b> '
        f"{escape(words)}</div>"
        for label, words in (
            ("What happened:", result.says),
            ("Hint:", result.hint),
            ("Note:", result.note),
        )
        if words
    )
    return (
        f'<div style="border-left:5px solid {colour};padding:.5em .9em;max-width:62em;'
        f'color:var(--jp-content-font-color1,inherit);font-size:14px;line-height:1.5">'
        f"<div><b>{escape(exercise.title)}</b> <code>{escape(exercise.id)}</code>"
        f'<span style="float:right;color:{colour};font-weight:600">{_points(result)}</span></div>'
        f'<table style="border:0;border-collapse:collapse;margin:.3em 0 0">{rows}</table>'
        f"{extras}</div>"
    )


def _points(result: Result) -> str:
    if not result.attempted:
        return f"not written yet · {result.exercise.points} points to win"
    return f"{result.score:g} of {result.exercise.points} points"


def _shown(result: Result) -> Iterator[tuple[Outcome, list[str]]]:
    """The checks with their details: an untouched exercise gets one line, and what has been said
    once is not said again."""
    said: list[list[str]] = []
    for outcome in result.outcomes if result.attempted else result.outcomes[:1]:
        details = _details(outcome)
        yield outcome, ["the same"] if details and details in said else details
        said.append(details)


def _row(outcome: Outcome, lines: list[str]) -> str:
    sign = _SIGN.get(outcome.status, "✗")
    colour = {"✓": _GREEN, "✗": _AMBER}.get(sign, _GREY)
    details = "".join(
        f'<div style="white-space:pre-wrap;font-size:12.5px;opacity:.9;'
        f'font-family:var(--jp-code-font-family-default,monospace)">{escape(line)}</div>'
        for line in lines
    )
    cell = "border:0;padding:.15em .5em .15em 0;text-align:left;vertical-align:top"
    return (
        f'<tr style="background:none"><td style="{cell};color:{colour};font-weight:700">{sign}</td>'
        f'<td style="{cell}">{escape(outcome.title)}{details}</td></tr>'
    )


def _details(outcome: Outcome) -> list[str]:
    if outcome.passed or outcome.status == "not_run":
        return []
    lines = [
        line for line in (outcome.message, outcome.where and f"in your {outcome.where}") if line
    ]
    return lines + difference(outcome.expected, outcome.actual)


def difference(expected: Any, actual: Any) -> list[str]:
    """Expected against actual in at most three short lines."""
    if expected is None and actual is None:
        return []
    if not (isinstance(expected, torch.Tensor) and isinstance(actual, torch.Tensor)):
        return [f"expected  {brief(expected)}", f"got       {brief(actual)}"]
    if expected.shape != actual.shape or expected.dtype != actual.dtype or not expected.numel():
        return [f"expected  {brief(expected)}", f"got       {brief(actual)}"]
    gap = (actual.double() - expected.double()).abs().nan_to_num(float("inf"), float("inf"))
    differ = gap > 1e-4 * expected.double().abs().nan_to_num(0.0) + 1e-6
    where = int(gap.flatten().argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(where), expected.shape))
    place = f"at index {index}" if index else "as a scalar"
    return [
        f"expected  {brief(expected)}",
        f"got       {brief(actual)}",
        f"{int(differ.sum())} of {gap.numel()} values differ; most {place}: "
        f"expected {_number(expected.flatten()[where])}, got {_number(actual.flatten()[where])}",
    ]


def brief(value: Any, limit: int = 6) -> str:
    """A value in one line: a tensor's shape, dtype and first numbers; anything else its repr."""
    if isinstance(value, torch.Tensor):
        if value.ndim == 0:
            return f"{_number(value)}  ({_dtype(value)} scalar)"
        numbers = ", ".join(_number(number) for number in value.flatten()[:limit])
        more = ", …" if value.numel() > limit else ""
        return f"[{numbers}{more}]  (shape {tuple(value.shape)}, {_dtype(value)})"
    said = repr(_beginning(value, iter(range(100))))
    return said if len(said) <= 100 else said[:97] + "…"


def _beginning(value: Any, left: Iterator[int]) -> Any:
    """A container with its first items, those inside them included, until `left` ends.

    A hundred items have more than a hundred characters, and a million tensors take minutes.
    """
    if type(value) in (list, tuple, set, frozenset) or type(value).__repr__ is tuple.__repr__:
        kind = tuple if isinstance(value, tuple) else type(value)
        return kind([_beginning(item, left) for item, _ in zip(value, left, strict=False)])
    if type(value) in (dict, OrderedDict, Counter):
        pairs = zip(value.items(), left, strict=False)
        return type(value)({_beginning(k, left): _beginning(v, left) for (k, v), _ in pairs})
    return value


def _number(value: torch.Tensor) -> str:
    number = value.item()
    return f"{number:.4g}" if isinstance(number, float) else str(number)


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
