"""report.html: the class on one page, the things that need a person first."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from course_utils.grader.autograde.outputs import pictures, plain
from course_utils.grader.autograde.outputs import statistics as stats
from course_utils.grader.autograde.outputs.feedback_page import WORDS
from course_utils.grader.autograde.outputs.page import page, table
from course_utils.grader.autograde.outputs.similarity import Group
from course_utils.grader.autograde.records import SubmissionGrade

# An exercise below this tells strong from weak students badly (Ebel's rule of thumb).
SUSPICIOUS = 0.2
_MOST_ROWS = 60


def report(
    records: Sequence[SubmissionGrade], groups: Sequence[Group], links: Mapping[int, str]
) -> str:
    """The page.

    Args:
        records: of the whole class.
        groups: solutions that look alike.
        links: where a record's feedback lies, by the record's `id()`.
    """
    body = (
        *_head(records),
        *_flagged(records, links),
        *_distribution(records),
        *_exercises(records),
        *_misconceptions(records),
        *_slowest(records, links),
        *_similar(groups, records, links),
    )
    return page("The class", "\n".join(body))


def _who(record: SubmissionGrade, links: Mapping[int, str]) -> str:
    said = f"<bdi>{plain.html(record.student, 60)}</bdi>"
    link = links.get(id(record))
    return f'<a href="{plain.html(link)}">{said}</a>' if link else said


def _code(name: str) -> str:
    """An exercise's name, which a narrow table may break where it has a joint."""
    return "<code>" + plain.html(name, 60).replace(".", ".<wbr>").replace("_", "_<wbr>") + "</code>"


def _cut(rows: Sequence[tuple[str, ...]]) -> str:
    more = len(rows) - _MOST_ROWS
    return f'<p class="quiet small">and {more} more, in grades.csv</p>' if more > 0 else ""


def _head(records: Sequence[SubmissionGrade]) -> Iterator[str]:
    students = len({record.student for record in records})
    lessons = len({record.lesson for record in records})
    graded = [r for r in records if r.status == "graded" and r.max_score]
    mean = sum(r.score / r.max_score for r in graded) / len(graded) if graded else 0.0
    yield "<h1>The class</h1>"
    figures = (
        (len(records), "submissions"),
        (students, "students"),
        (lessons, "lessons"),
        (f"{mean:.0%}", "mean share of the points"),
        (len(stats.flags(records)), "to be looked at"),
    )
    items = "".join(f"<li><b>{number}</b>{words}</li>" for number, words in figures)
    yield f'<ul class="figures">{items}</ul>'
    levels = sorted({record.sandbox for record in records if record.sandbox})
    said = "; ".join(plain.html(level, 200) for level in levels) or "none, nothing was run"
    yield f"<p><b>Sandbox in force:</b> {said}</p>"


def _flagged(records: Sequence[SubmissionGrade], links: Mapping[int, str]) -> Iterator[str]:
    flags = stats.flags(records)
    yield "<h2>Look at these first</h2>"
    if not flags:
        yield "<p>Nothing crashed, and everything could be read.</p>"
        return
    yield (
        "<p>A crash is no zero. These scores stand as they are until somebody has looked; in "
        "formgrader they need a manual grade. The other rows name what the notebook defines, "
        "what was graded instead, and the error that the grader met.</p>"
    )
    rows = [
        (
            _who(flag.record, links),
            plain.html(flag.record.lesson, 60),
            _code(flag.exercise.exercise) if flag.exercise else "–",
            WORDS[flag.exercise.status] if flag.exercise else "unreadable",
            f'<span class="long">{plain.html(plain.line(flag.why, 160))}</span>',
        )
        for flag in flags
    ]
    yield table(("student", "lesson", "exercise", "what", "why"), rows[:_MOST_ROWS]) + _cut(rows)


def _distribution(records: Sequence[SubmissionGrade]) -> Iterator[str]:
    shares = stats.shares(records)
    if shares:
        yield "<h2>Points</h2>"
        yield (
            "<p>Share of a lesson's points, questions that are marked by hand not included. The "
            "red mark is the mean.</p>"
        )
        yield f'<div class="scroll">{pictures.distributions(shares)}</div>'


def _exercises(records: Sequence[SubmissionGrade]) -> Iterator[str]:
    exercises = stats.by_exercise(records)
    if not exercises:
        return
    yield "<h2>Exercises</h2>"
    yield pictures.legend()
    yield table(
        ("lesson", "exercise", "outcomes", ">n", ">difficulty", ">discrimination"),
        [
            (
                "" if before and before.lesson == one.lesson else plain.html(one.lesson, 60),
                _code(one.exercise),
                pictures.outcomes(one.statuses),
                str(one.submissions),
                f"{one.difficulty:.2f}",
                "–" if one.discrimination is None else f"{one.discrimination:.2f}",
            )
            for before, one in pairwise([None, *exercises])
            if one is not None
        ],
    )
    yield (
        '<p class="quiet small">Difficulty is the mean share of the points: 0.90 is easy, 0.30 '
        "hard. Discrimination is the correlation with the student's share on all other exercises, "
        f"and needs {stats.FEWEST} students; below {SUSPICIOUS:g} an exercise hardly tells who has "
        "understood: read its text and its checks again.</p>"
    )
    if sum(one.discrimination is not None for one in exercises) > 1:
        yield f'<div class="scroll">{pictures.difficulty_map(exercises, SUSPICIOUS)}</div>'


def _misconceptions(records: Sequence[SubmissionGrade]) -> Iterator[str]:
    found = stats.misconceptions(records)
    yield "<h2>The most common misconceptions</h2>"
    if not found:
        yield "<p>No known mistake was recognised.</p>"
        return
    most = found[0].count
    rows = [
        (
            _code(one.exercise),
            str(one.count),
            pictures.amount(one.count / most),
            plain.sentence(one.says),
        )
        for one in found[:15]
    ]
    yield table(("exercise", ">times", "", "what happened"), rows)
    if len(found) > 15:
        rest = sum(one.count for one in found[15:])
        yield f'<p class="quiet small">{len(found) - 15} others were made {rest} times.</p>'


def _slowest(records: Sequence[SubmissionGrade], links: Mapping[int, str]) -> Iterator[str]:
    yield "<h2>Slowest</h2>"
    rows = [
        (_who(one, links), plain.html(one.lesson, 60), f"{one.seconds:.2f}")
        for one in stats.slowest(records)
    ]
    yield table(("student", "lesson", ">seconds"), rows)


def _similar(
    groups: Sequence[Group], records: Sequence[SubmissionGrade], links: Mapping[int, str]
) -> Iterator[str]:
    yield "<h2>Solutions that look alike</h2>"
    yield (
        "<p>Compared without names, layout and comments. What the stub, the library's solution, "
        "a known mistake or a tenth of the class has does not count. It is a reason to read them "
        "side by side, not a finding: people learn together, and from the same pages.</p>"
    )
    if not groups:
        yield "<p>None.</p>"
        return
    of = {(record.student, record.lesson): record for record in records}
    rows = [
        (
            plain.html(group.lesson, 60),
            ", ".join(_who(of[student, group.lesson], links) for student in group.students),
            ", ".join(map(_code, group.exercises)),
            f"{group.alike:.0%}",
            str(group.shared),
        )
        for group in groups
    ]
    columns = ("lesson", "students", "exercises", ">alike", ">rare pieces shared")
    yield table(columns, rows[:_MOST_ROWS]) + _cut(rows)
