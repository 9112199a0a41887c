"""The class report's pictures, as SVG inside the page: nothing to load, sharp at any size."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from course_utils.grader.autograde.outputs import plain
from course_utils.grader.autograde.outputs.page import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    RED,
)
from course_utils.grader.autograde.outputs.statistics import ExerciseStatistics
from course_utils.grader.autograde.records import FLAGGED

# The bars of an exercise from left to right: what it says, its colour, the statuses it counts.
PARTS: tuple[tuple[str, str, frozenset[str]], ...] = (
    ("passed", GREEN, frozenset({"passed"})),
    ("partial", ORANGE, frozenset({"partial"})),
    ("failed", RED, frozenset({"failed"})),
    ("not attempted or missing", "#c4cbd2", frozenset({"not_attempted", "missing"})),
    ("to be looked at", PURPLE, FLAGGED),
)
_FONT = 'font-family="system-ui, sans-serif"'


def svg(width: float, height: float, says: str, body: str) -> str:
    """A picture with a sentence for those who cannot see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{plain.html(says)}" '
        f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" {_FONT}>'
        f"{body}</svg>"
    )


def _text(
    x: float, y: float, says: str, size: int = 11, anchor: str = "start", colour: str = INK
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">'
        f"{plain.html(says, 80)}</text>"
    )


def _bar(x: float, y: float, width: float, height: float, colour: str, says: str = "") -> str:
    title = f"<title>{plain.html(says)}</title>" if says else ""
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" '
        f'fill="{colour}">{title}</rect>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = GREY) -> str:
    return (
        f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" stroke="{colour}" '
        'stroke-width="1"/>'
    )


def distributions(shares: Mapping[str, Sequence[float]], bins: int = 10) -> str:
    """One histogram for each lesson, side by side, all with the same axes."""
    columns, wide, high = 3, 300, 130
    counts = {lesson: histogram(values, bins) for lesson, values in shares.items()}
    most = max((max(count) for count in counts.values()), default=1) or 1
    rows = -(-len(counts) // columns)
    parts = []
    for index, (lesson, count) in enumerate(sorted(counts.items())):
        left, top = (index % columns) * wide, (index // columns) * high
        base, width = top + high - 28, (wide - 40) / bins
        values = shares[lesson]
        mean = sum(values) / len(values)
        parts.append(_text(left + 6, top + 14, lesson, 12))
        parts.append(
            _text(left + wide - 34, top + 14, f"{len(values)} · mean {mean:.0%}", 10, "end", GREY)
        )
        for place, number in enumerate(count):
            height = (high - 52) * number / most
            says = f"{place / bins:.0%} to {(place + 1) / bins:.0%}: {number}"
            x = left + 6 + place * width
            parts.append(_bar(x + 0.5, base - height, width - 1, height, BLUE, says))
        parts.append(_line(left + 6, base, left + 6 + bins * width, base))
        at = left + 6 + mean * bins * width
        parts.append(_line(at, base, at, base + 5, RED))
        for where, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
            x = left + 6 + where * bins * width
            parts.append(_text(x, base + 15, f"{where:.0%}", 9, anchor, GREY))
    says = "How the points are distributed, lesson by lesson"
    return svg(min(len(counts), columns) * wide, max(rows, 1) * high, says, "".join(parts))


def histogram(values: Sequence[float], bins: int) -> list[int]:
    """How many values from 0 to 1 lie in each of `bins` equal parts; 1 is in the last."""
    counts = [0] * bins
    for value in values:
        counts[min(max(int(value * bins + 1e-9), 0), bins - 1)] += 1
    return counts


def outcomes(statuses: Counter[str], width: int = 190) -> str:
    """One exercise's bar: which part of the class ended how."""
    total = statuses.total() or 1
    x, parts, said = 0.0, [], []
    for label, colour, which in PARTS:
        number = sum(statuses[status] for status in which)
        if number:
            wide = width * number / total
            parts.append(_bar(x, 2, wide, 14, colour, f"{label}: {number}"))
            said.append(f"{label} {number}")
            x += wide
    return svg(width, 18, ", ".join(said), "".join(parts))


def legend() -> str:
    """What the colours of `outcomes` mean."""
    x, parts = 0.0, []
    for label, colour, _ in PARTS:
        parts.append(_bar(x, 4, 11, 11, colour) + _text(x + 16, 14, label, 12))
        x += 30 + 6.6 * len(label)
    return svg(x, 20, "The colours of the bars", "".join(parts))


def amount(share: float, width: int = 120) -> str:
    """A bar for a table: `share` of the longest one."""
    return svg(width, 14, f"{share:.0%} of the longest", _bar(0, 3, width * share, 9, BLUE))


def difficulty_map(exercises: Sequence[ExerciseStatistics], suspicious: float) -> str:
    """Every exercise by difficulty and discrimination; those below `suspicious` have names."""
    left, top, wide, high = 40, 26, 560, 230

    def place(difficulty: float, discrimination: float) -> tuple[float, float]:
        return left + wide * difficulty, top + high * (1 - max(discrimination, -0.4)) / 1.4

    parts = [_text(left, 12, "discrimination", 11)]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, _ = place(tick, 0)
        parts.append(_line(x, top, x, top + high, PALE))
        parts.append(_text(x, top + high + 16, f"{tick:.0%}", 10, "middle", GREY))
    for tick in (-0.4, 0.0, 0.5, 1.0):
        _, y = place(0, tick)
        parts.append(_line(left, y, left + wide, y, GREY if tick == 0 else PALE))
        parts.append(_text(left - 6, y + 4, f"{tick:g}", 10, "end", GREY))
    names, taken = [], []
    for one in sorted(exercises, key=lambda one: one.exercise):
        if one.discrimination is None:
            continue
        x, y = place(one.difficulty, one.discrimination)
        odd = one.discrimination < suspicious
        says = f"{one.exercise}: difficulty {one.difficulty:.2f}, {one.discrimination:.2f}"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{RED if odd else BLUE}" '
            f'fill-opacity="0.75"><title>{plain.html(says)}</title></circle>'
        )
        taken.append((x - 6, y - 6, x + 6, y + 6))
        if odd:
            names.append((x, y, one.exercise))
    parts += _names_beside(names, taken, left + wide + 20)
    parts.append(_text(left + wide / 2, top + high + 34, "mean share of the points", 11, "middle"))
    says = "Difficulty and discrimination of every exercise"
    return svg(left + wide + 20, top + high + 44, says, "".join(parts))


Box = tuple[float, float, float, float]  # left, top, right, bottom


def _names_beside(
    names: Sequence[tuple[float, float, str]], taken: list[Box], right_end: float
) -> Iterator[str]:
    """Names next to their points, where they cover nothing; a name without room is left out."""
    for x, y, name in names:
        long = 6.2 * len(name)
        for dx, dy, anchor in (
            (9, 4, "start"),
            (-9, 4, "end"),
            (0, 18, "middle"),
            (0, -10, "middle"),
        ):
            start = x + dx - long * {"start": 0, "middle": 0.5, "end": 1}[anchor]
            box = (start, y + dy - 10, start + long, y + dy + 3)
            apart = all(
                box[2] < b[0] or b[2] < box[0] or box[3] < b[1] or b[3] < box[1] for b in taken
            )
            if apart and start >= 0 and box[2] <= right_end:
                taken.append(box)
                yield _text(x + dx, y + dy, name, 10, anchor)
                break
