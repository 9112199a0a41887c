"""tools/setup.py with a uv that installs nothing but two folders: every state, every failure."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from course_utils.base.paths import course_root

TOOLS = course_root() / "tools"
sys.path.insert(0, str(TOOLS))
import setup  # noqa: E402  (tools/setup.py)

# Fails with the text of the file FAIL when a command holds the word before the colon.
FAKE_UV = f"""#!{sys.executable}
import pathlib, subprocess, sys
words, here = sys.argv[1:], pathlib.Path({{folder!r}})
with (here / "calls").open("a") as calls:
    print(*words, file=calls)
fail = here / "FAIL"
if fail.exists() and fail.read_text().partition(":")[0] in words:
    print(fail.read_text().partition(":")[2], file=sys.stderr)
    sys.exit(2)
if words[0] == "cache":
    print(here)
elif words[0] == "venv":
    subprocess.check_call([{sys.executable!r}, "-m", "venv", "--without-pip", "--clear", words[-1]])
else:
    python = pathlib.Path(words[words.index("--python") + 1])
    [site] = python.parent.parent.glob("lib/python*/site-packages")
    name = "course_utils" if "-e" in words else "torch"
    (site / name).mkdir(exist_ok=True)
    (site / name / "__init__.py").touch()
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A checkout without .venv, and a uv on PATH."""
    bin_, root = tmp_path / "bin", tmp_path / "course"
    bin_.mkdir()
    root.mkdir()
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "requirements.lock").write_text("torch==1 --hash=sha256:00\n")
    uv = bin_ / "uv"
    uv.write_text(FAKE_UV.format(folder=str(tmp_path)))
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}{os.environ['PATH']}")

    def calls() -> list[str]:
        file = tmp_path / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.write_text("")
        return [line.split()[0] for line in lines if not line.startswith("cache")]

    place = setup.Place(root)
    return SimpleNamespace(place=place, calls=calls, fail=tmp_path / "FAIL", uv=uv, root=root)


def state(world: SimpleNamespace) -> str:
    return setup.examine(world.place)[0]


def test_from_nothing_and_then_ready(world: SimpleNamespace, capsys) -> None:
    assert state(world) == "missing"
    setup.set_up(world.place)
    assert world.calls() == ["venv", "pip", "pip"]
    assert state(world) == "ready"
    assert "The environment is ready." in capsys.readouterr().err
    setup.set_up(world.place)
    assert world.calls() == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock"])
def test_an_edit_installs_again_in_place(world: SimpleNamespace, name: str) -> None:
    setup.set_up(world.place)
    world.calls()
    (world.root / name).write_text("something else\n")
    assert state(world) == "stale"
    setup.set_up(world.place)
    assert world.calls() == ["pip", "pip"]
    assert state(world) == "ready"


def break_(world: SimpleNamespace, how: str) -> None:
    venv, stamp = world.place.venv, world.place.stamp
    [site] = venv.glob("lib/python*/site-packages")
    if how == "python gone":
        for path in (venv / "bin").glob("python*"):
            path.unlink()
    elif how == "a package gone":
        shutil.rmtree(site / "torch")
    elif how == "all packages gone":
        shutil.rmtree(site)
    elif how == "stamp damaged":
        stamp.write_text('{"fingerprint": ')
    elif how == "stamp of something else":
        stamp.write_text("[]")
    elif how == "interrupted":
        world.place.write_stamp({})
    elif how == "moved":
        stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"venv": "/elsewhere/.venv"}))
    elif how == "another Python":
        stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"python": [3, 99]}))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("python gone", "its Python no longer runs"),
        ("a package gone", "torch is gone"),
        ("all packages gone", "course_utils is gone"),
        ("stamp damaged", "its set-up was interrupted"),
        ("stamp of something else", "its set-up was interrupted"),
        ("interrupted", "its set-up was interrupted"),
        ("moved", "it was made in another folder, /elsewhere/.venv"),
        ("another Python", "it was made with Python 3.99"),
    ],
)
def test_what_is_broken_is_made_anew(world, capsys, how: str, says: str) -> None:
    setup.set_up(world.place)
    break_(world, how)
    world.calls()
    setup.set_up(world.place, sys.executable)
    assert f"Setting up .venv ({says})" in capsys.readouterr().err
    assert world.calls() == ["venv", "pip", "pip"]
    assert state(world) == "ready"


def test_one_made_by_hand_is_completed_not_thrown_away(world: SimpleNamespace) -> None:
    subprocess.check_call([sys.executable, "-m", "venv", "--without-pip", str(world.place.venv)])
    (world.place.venv / "mine").touch()
    assert state(world) == "stale"
    setup.set_up(world.place)
    assert world.calls() == ["pip", "pip"]
    assert (world.place.venv / "mine").exists()


FAILURES = [
    ("pip:error: Failed to fetch: `x`\n dns error", "The package index cannot be reached"),
    ("pip:error: No space left on device (os error 28)", "The disk filled up"),
    (
        "pip:Hash mismatch for `torch==1`\nExpected: a\nComputed: b",
        "not the file that requirements",
    ),
    ("pip:error: something new", "could not be installed:\n  error: something new"),
    ("venv:uv will not clear a directory that is not a virtual environment", "Move it away"),
]


@pytest.mark.parametrize(("failure", "says"), FAILURES, ids=[says for _, says in FAILURES])
def test_a_failure_is_explained_logged_and_finished_later(world, failure: str, says: str) -> None:
    world.fail.write_text(failure)
    with pytest.raises(setup.SetupError) as caught:
        setup.set_up(world.place)
    assert says in str(caught.value)
    assert "setup.log" in str(caught.value)
    assert failure.partition(":")[2].splitlines()[0] in world.place.log.read_text()
    assert state(world) != "ready"
    world.fail.unlink()
    setup.set_up(world.place)
    assert state(world) == "ready"


def test_an_update_without_a_network_leaves_the_old_one_usable(world, capsys) -> None:
    setup.set_up(world.place)
    (world.root / "requirements.lock").write_text("torch==2 --hash=sha256:11\n")
    world.fail.write_text("pip:error: Failed to fetch: dns error")
    with pytest.raises(setup.SetupError):
        setup.set_up(world.place)
    assert "The environment from before is still there" in capsys.readouterr().err
    assert state(world) == "stale"  # and not broken


def test_too_little_disk_is_said_before_anything_is_made(world, monkeypatch) -> None:
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: SimpleNamespace(free=3e9))
    with pytest.raises(setup.SetupError, match=r"needs 10 GB of free disk in .*; there are 3.0 GB"):
        setup.set_up(world.place)
    assert not world.place.venv.exists()
    monkeypatch.undo()
    monkeypatch.setenv("PATH", f"{world.uv.parent}{os.pathsep}{os.environ['PATH']}")
    setup.set_up(world.place)
    # What another clone has downloaded is linked, and needs next to nothing.
    shutil.rmtree(world.place.venv)
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: SimpleNamespace(free=3e9))
    setup.set_up(world.place)
    assert state(world) == "ready"


def test_two_at_once_make_one_environment(world: SimpleNamespace) -> None:
    code = f"import sys; sys.path.insert(0, {str(TOOLS)!r}); import setup, pathlib; "
    code += f"setup.set_up(setup.Place(pathlib.Path({str(world.root)!r})))"
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert world.calls() == ["venv", "pip", "pip"]


@pytest.mark.parametrize(
    ("answer", "says"), [("3 9", "is Python 3.9."), ("", "is Python none.")], ids=["old", "none"]
)
def test_the_chosen_python_must_do(world, tmp_path: Path, answer: str, says: str) -> None:
    python = tmp_path / "mine"
    python.write_text(f"#!/bin/sh\necho {answer}\n")
    python.chmod(0o755)
    with pytest.raises(setup.SetupError, match=rf"needs Python 3.11 or newer; {python} {says}"):
        setup.set_up(world.place, str(python))
    assert world.calls() == []


def test_without_uv_an_old_python_says_so(world, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(setup.sys, "version_info", (3, 7, 1))
    with pytest.raises(setup.SetupError, match=r"needs Python 3\.11 or newer"):
        setup.set_up(world.place)


def test_without_uv_and_without_venv_it_says_what_to_install(world, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(setup.sys, "executable", shutil.which("false", path="/bin:/usr/bin"))
    with pytest.raises(setup.SetupError, match="sudo apt install python3-venv"):
        setup.set_up(world.place)


def test_an_old_python_can_read_it() -> None:
    ast.parse((TOOLS / "setup.py").read_text(), feature_version=(3, 6))


def test_tools_stay_small() -> None:
    assert sum(len(path.read_text().splitlines()) for path in TOOLS.glob("*.py")) <= 250
