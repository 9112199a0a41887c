"""The pages for students and for the class: nothing in them runs, lies outside, or gives away."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from course_utils.exercises.exercise import find_exercise
from course_utils.grader.autograde.outputs import plain, write_all
from course_utils.grader.autograde.outputs import statistics as stats
from course_utils.grader.autograde.outputs.class_report import report
from course_utils.grader.autograde.outputs.feedback_page import feedback
from course_utils.grader.autograde.outputs.pictures import histogram
from course_utils.grader.autograde.outputs.similarity import Group
from course_utils.grader.autograde.records import (
    CheckGrade,
    ExerciseGrade,
    SubmissionGrade,
    WrittenAnswer,
)

HOSTILE = (
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>\"'><svg onload=alert(1)>",
    "\u202e\u2066gnp\0\x1b[31m\ud800",
    "x" * 10_000_000,
    "../../../../tmp/somewhere-else",
    '=HYPERLINK("http://example.org","click")',
)
ALLOWED = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "h3",
        "p",
        "b",
        "a",
        "code",
        "pre",
        "bdi",
        "div",
        "span",
        "section",
        "ul",
        "li",
        "details",
        "summary",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "svg",
        "rect",
        "line",
        "circle",
        "text",
        "wbr",
    ]
)


class Tags(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs


def assert_harmless(page: str) -> None:
    tags = Tags(page)
    assert tags.names <= ALLOWED, tags.names - ALLOWED
    names = {name for name, _ in tags.attributes}
    assert not {name for name in names if name.startswith("on")} and "style" not in names
    links = [value or "" for name, value in tags.attributes if name in ("href", "src")]
    assert all(re.fullmatch(r"feedback/[^/]+/[^/]+\.html", link) for link in links), links
    assert not set(page) & set("\0\x1b\u202e\u2066")
    policy = dict(tags.attributes)["content"]  # the last one is not the policy
    policy = re.search(r'Security-Policy" content="([^"]*)"', page)[1].replace("&#x27;", "'")
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ") and f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy and "viewport" in page


def hostile_record(text: str) -> SubmissionGrade:
    check = CheckGrade(
        name=text, title=text, status="error", message=text, where=text, expected=text, actual=text
    )
    exercise = ExerciseGrade(
        exercise=text, title=text, status="crashed", score=0.0, max_score=3.0, checks=(check,),
        misconception=text, hint=text, problem=text, output=text, source=text,
    )  # fmt: skip
    known = replace(exercise, exercise="start.accuracy")
    return SubmissionGrade(
        student=text, lesson="00_start_here", status="graded", problem=text, notes=(text,),
        exercises=(exercise, known), sandbox=text, timestamp=text,
        answers=(WrittenAnswer(question=text, text=text, max_score=1.0),),
    )  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_page_is_harmless_and_small(text):
    record = hostile_record(text)
    for page in (feedback(record), report([record], [], {}), feedback(unreadable(text))):
        assert_harmless(page)
        page.encode("utf-8")
        assert len(page) < 100_000


def unreadable(text: str) -> SubmissionGrade:
    return SubmissionGrade(student=text, lesson=text, status="unreadable", problem=text)


def test_hostile_submissions_stay_in_the_folder(out):
    records = [hostile_record(text) for text in HOSTILE] + [unreadable(text) for text in HOSTILE]
    write_all(out, records)
    inside = {path for path in out.parent.rglob("*") if path.is_file()}
    assert all(out in path.resolve().parents for path in inside)
    assert {path.name for path in out.iterdir()} == {
        "autograded", "canvas.csv", "feedback", "gradebook.db", "grades.csv", "moodle.csv",
        "report.html",
    }  # fmt: skip
    pages = [path for path in inside if path.suffix == ".html"]
    assert len(pages) == 1 + 2 * len(HOSTILE)
    for page in pages:
        assert_harmless(page.read_text("utf-8"))
    assert max(path.stat().st_size for path in inside) < 3_000_000


def test_feedback_says_what_the_card_says(records):
    record = next(r for r in records for e in r.exercises if e.misconception)
    exercise = next(e for e in record.exercises if e.misconception)
    page = feedback(replace(record, exercises=(exercise,)))
    from html import escape

    for words in (exercise.title, exercise.checks[0].title):
        assert escape(words) in page
    for words in (exercise.misconception, exercise.hint):
        assert plain.sentence(words) in page
    wrong = next(check for check in exercise.checks if check.status != "passed")
    assert escape(wrong.message) in page
    assert page.count(">✓<") == sum(check.status == "passed" for check in exercise.checks)


def test_feedback_gives_nothing_away(records):
    for record in records:
        page = feedback(record)
        assert record.key not in page
        for exercise in record.exercises:
            if exercise.status != "passed":
                body = find_exercise(exercise.exercise).source.strip().split("\n")[-1].strip()
                assert body not in page


def test_an_unfinished_crash_is_told_as_such(records):
    crashed = replace(records[0].exercises[0], status="crashed", problem="its process was killed")
    page = feedback(replace(records[0], exercises=(crashed,)))
    assert "stopped unexpectedly" in page and "before the score counts" in page


def test_the_report_names_what_an_instructor_needs(records):
    crashed = replace(records[0].exercises[0], status="timeout", problem="an endless loop")
    class_ = [replace(records[0], exercises=(crashed,), seconds=99.0), *records[1:]]
    one, other = records[0].student, records[2].student
    group = Group(records[0].lesson, (one, other), ("start.accuracy",), 31, 0.83)
    page = report(class_, [group], {id(record): "feedback/a/b.html" for record in class_})
    assert_harmless(page)
    for words in (class_[1].sandbox, "an endless loop", "99.00", "83%", "31"):
        assert words in page
    most = stats.misconceptions(class_)[0]
    assert most.says.split("'")[0][:20] in page
    assert page.index("Look at these first") < page.index("Points") < page.index("misconceptions")


def graded(student: str, **shares: float) -> SubmissionGrade:
    exercises = tuple(
        ExerciseGrade(
            exercise=f"x.{name}", title="", status="partial", score=4 * share, max_score=4.0
        )
        for name, share in shares.items()
    )
    return SubmissionGrade(student=student, lesson="l", status="graded", exercises=exercises)


def test_difficulty_and_discrimination():
    """`a` and `b` go together, `c` goes the other way, `d` is the same for all."""
    class_ = [
        graded(f"s{n}", a=n / 9, b=(n / 9) ** 2, c=1 - n / 9, d=0.5, e=n / 9) for n in range(10)
    ]
    a, b, c, d, _ = stats.by_exercise(class_)
    assert a.difficulty == pytest.approx(0.5) and d.difficulty == 0.5
    assert a.discrimination > 0.6 and b.discrimination > 0.3 and c.discrimination < -0.9
    assert d.discrimination is None and stats.by_exercise(class_[:7])[0].discrimination is None


def test_a_flag_says_what_ended_it_and_not_what_was_merely_wrong():
    checks = tuple(
        CheckGrade(name=status, title=status, status=status, message=f"it was {status}")
        for status in ("wrong", "crashed")
    )
    exercise = ExerciseGrade(
        exercise="x.y", title="", status="crashed", score=0.0, max_score=1.0, checks=checks
    )
    record = SubmissionGrade(student="s", lesson="l", status="graded", exercises=(exercise,))
    assert [flag.why for flag in stats.flags([record])] == ["it was crashed"]


def test_histogram_ends():
    assert histogram([0.0, 0.0999, 0.1, 0.3, 0.7, 1.0], 10) == [2, 1, 0, 1, 0, 0, 0, 1, 0, 1]


def test_equal_records_give_equal_files(records, out, tmp_path):
    write_all(out, records)

    def files(folder):
        return {
            path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "gradebook.db"
        }

    before = files(out)
    write_all(out, records[::-1])
    assert files(out) == before, "a file was written again, or came out otherwise"


def test_a_disk_that_is_full_leaves_what_was_there(records, out, monkeypatch):
    from course_utils.base.errors import CourseError

    write_all(out, records)
    before = (out / "report.html").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CourseError, match="No space left"):
        write_all(out, [replace(record, seconds=5.0) for record in records])
    assert (out / "report.html").read_bytes() == before
