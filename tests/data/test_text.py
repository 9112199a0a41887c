"""Text by name, path and Hub: what is read, and what becomes of lines that are no good."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from standins import COMMIT, Course, FileServer

from course_utils.base.errors import CourseError
from course_utils.data import store
from course_utils.data.catalog import load_catalog
from course_utils.data.records import Account, read_records
from course_utils.data.text import load_documents, sample_text, stream_documents

STORIES = ["Once upon a time.", "Es war einmal.", "从前有一座山。"]
REPO = "someone/stories"


def test_the_sample_needs_no_network_and_holds_the_story_alone() -> None:
    text = sample_text()
    assert text.startswith("IN THE YEAR 2889") and text.endswith("Jules Verne.\n")
    assert "Gutenberg" not in text and "\r" not in text
    paragraphs = load_documents("sample")
    assert len(paragraphs) > 50 and " ".join(paragraphs).split() == text.split()


def test_every_format_gives_the_same_documents(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": s}) + "\n\n" for s in STORIES))
    (tmp_path / "b.json").write_text(json.dumps(STORIES))
    (tmp_path / "c.json").write_text(json.dumps({i: {"extract": s} for i, s in enumerate(STORIES)}))
    parquet.write_table(pyarrow.table({"content": STORIES}), tmp_path / "d.parquet")
    for name in ("a.jsonl", "b.json", "c.json", "d.parquet"):
        assert load_documents(str(tmp_path / name)) == STORIES, name
    (tmp_path / "texts").mkdir()
    for i, story in enumerate(STORIES):
        (tmp_path / "texts" / f"{i}.txt").write_text(story, "utf-8")
    assert load_documents(str(tmp_path / "texts")) == STORIES


def test_malformed_lines_cost_themselves_and_are_reported_with_their_numbers(
    tmp_path: Path,
) -> None:
    path = tmp_path / "damaged.jsonl"
    good = json.dumps({"text": "good"}).encode()
    bad = [b'{"text": "cut off', b'{"words": 3}', b"\xff\xfe{", b'{"text": "  "}', b"[1]", b"17"]
    path.write_bytes(b"\n".join([good, *bad, good]) + b"\n")
    account = Account()
    assert list(stream_documents(str(path), account)) == ["good", "good"]
    assert account.good == 2
    assert [where for where, _ in account.malformed] == [
        f"damaged.jsonl line {number}" for number in range(2, 8)
    ]
    told = str(account)
    assert "6 of 8 records are malformed" in told
    assert "line 2 (no JSON" in told and "line 4 (not UTF-8)" in told and "and 1 more" in told


def test_a_file_that_is_not_one_of_ours_or_holds_nothing_says_so(tmp_path: Path) -> None:
    cases = {
        "a.csv": (b"a,b", "none of .txt"),
        "b.json": (b'{"a":', "no valid JSON"),
        "c.json": (b"3", "neither a JSON list nor an object"),
        "d.parquet": (b"PAR", "no parquet file"),
        "e.txt": (b"\xff\xff", "cannot be read"),
        "f.jsonl": (b"\n\n", "holds no text"),
    }
    for name, (content, told) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CourseError, match=told):
            load_documents(str(tmp_path / name))
    with pytest.raises(CourseError, match="no file"):
        list(read_records(tmp_path / "none.txt", Account()))
    with pytest.raises(CourseError, match="no text at"):
        load_documents(str(tmp_path / "missing.txt"))


def test_a_file_larger_than_what_is_read_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    lines = [json.dumps({"text": f"story {i}"}) for i in range(1000)]
    path.write_text("\n".join([*lines, "no JSON at all"]))
    account = Account()
    stream = stream_documents(str(path), account)
    assert [next(stream) for _ in range(10)] == [f"story {i}" for i in range(10)]
    assert account.good == 10 and not account.malformed


def test_a_set_of_the_catalogue_is_fetched_and_read(course: Course) -> None:
    content = json.dumps([{"text": s} for s in STORIES]).encode()
    folder = course.root / "data" / "tales"
    folder.mkdir()
    (folder / "tales.json").write_bytes(content)
    course.add("tales", {"tales.json": content}, {"kind": "bundled"})
    assert load_documents("tales") == STORIES
    with pytest.raises(CourseError, match="did you mean tales"):
        load_documents("tale")


def test_the_catalogue_knows_its_text_sets() -> None:
    catalog = load_catalog()
    for name in ("shakespeare", "wiki", "sanguo", "alpaca_en", "alpaca_zh", "identity", "chitchat"):
        [source] = catalog[name].sources
        assert source.kind == "pip"
    for name in ("tinystories", "minimind_pretrain", "minimind_sft"):
        assert catalog[name].hub is not None
        with pytest.raises(CourseError, match="stays on the Hub"):
            store.fetch(name)
        with pytest.raises(CourseError, match="no files to verify"):
            store.verify(name)
    assert {row.name: row.state for row in store.status()}["tinystories"] == "streamed"
    with pytest.raises(CourseError, match="images"):
        load_documents("mnist")


def test_offline_a_set_of_the_hub_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    with pytest.raises(CourseError, match="COURSE_OFFLINE forbids"):
        load_documents("tinystories")


def streamed(hub: FileServer, tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: the hub's address is read when its client is imported."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url.rstrip("/"),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "no_proxy": "*",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )


def test_a_set_of_the_hub_is_streamed_row_by_row(hub: FileServer, tmp_path: Path) -> None:
    text = b"".join(json.dumps({"text": f"story {i}"}).encode() + b"\n" for i in range(40))
    about = {"id": REPO, "sha": COMMIT, "private": False, "gated": False, "disabled": False}
    about |= {"tags": [], "downloads": 0, "likes": 0, "siblings": [{"rfilename": "train.jsonl"}]}
    tree = [{"type": "file", "path": "train.jsonl", "size": len(text), "oid": "0" * 40}]
    for place in ("", "/revision/main", f"/revision/{COMMIT}"):
        hub.files[f"api/datasets/{REPO}{place}"] = json.dumps(about).encode()
    hub.files[f"api/datasets/{REPO}/tree/{COMMIT}"] = json.dumps(tree).encode()
    hub.files[f"datasets/{REPO}/resolve/{COMMIT}/train.jsonl"] = text
    code = f"""
from course_utils.data.text import load_documents
from course_utils.base.errors import CourseError
found = load_documents("hf:{REPO}")
print(len(found), found[0], found[-1])
try:
    load_documents("hf:someone/nothing")
except CourseError as error:
    print(error)
"""
    done = streamed(hub, tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert "40 story 0 story 39" in done.stdout
    assert "The Hub did not deliver someone/nothing" in done.stdout
    assert hub.hits[f"datasets/{REPO}/resolve/{COMMIT}/train.jsonl"] >= 1
