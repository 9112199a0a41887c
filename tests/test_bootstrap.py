"""The set-up of `.venv`, run for real on a tiny project: a real venv, a real `pip install -e`.

The project brings its own build backend, so nothing is fetched. The backend notes each build in
builds.txt, and stops in the middle of one while the named pipes `reached` and `release` exist.
"""

import ast
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent.parent / "tools"
sys.path.insert(0, str(TOOLS))  # the tools are scripts, not a package

import environment  # noqa: E402
import pip_runner  # noqa: E402
import pythons  # noqa: E402

PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "toy"
version = "1"
requires-python = ">=3.11"
optional-dependencies = { dev = [] }
"""

BACKEND = """
import os
import zipfile
from pathlib import Path


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    root = Path.cwd()
    with open("builds.txt", "a") as file:
        file.write("built\\n")
    if (root / "failure.txt").exists():
        raise RuntimeError((root / "failure.txt").read_text())
    if (root / "reached").exists():
        with open("reached", "w") as reached, open("release") as release:
            (root / "reached").unlink()  # holds only one build
            print("here", file=reached, flush=True)
            release.readline()
    name = "toy-1-py3-none-any.whl"
    metadata = "Metadata-Version: 2.1\\nName: toy\\nVersion: 1\\nProvides-Extra: dev\\n"
    if (root / "requires.txt").exists():
        metadata += "Requires-Dist: " + (root / "requires.txt").read_text() + "\\n"
    with zipfile.ZipFile(Path(wheel_directory) / name, "w") as wheel:
        wheel.writestr("toy.pth", str(root / "src"))
        wheel.writestr("toy-1.dist-info/METADATA", metadata)
        wheel.writestr("toy-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n")
        wheel.writestr("toy-1.dist-info/RECORD", "")
    return name
"""

# Runs bootstrap.py of the project in the working directory on a disk that is large enough.
DRIVER = """
import sys
sys.path.insert(0, "tools")
import bootstrap, environment
environment.free_bytes = lambda folder: 10**12
sys.exit(bootstrap.main())
"""


@pytest.fixture(autouse=True)
def pip_and_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    offline_pip(monkeypatch)
    monkeypatch.setattr(environment, "free_bytes", lambda folder: 10**12)


def offline_pip(patch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PIP_") or name == "PYTHON":
            patch.delenv(name)
    patch.setenv("PIP_CONFIG_FILE", os.devnull)
    patch.setenv("PIP_NO_INDEX", "1")


def make_project(root: Path) -> environment.Place:
    (root / "src").mkdir(parents=True)
    (root / "src" / "toy.py").write_text("answer = 42\n")
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "constraints.txt").write_text("# none\n")
    (root / "backend.py").write_text(BACKEND)
    shutil.copytree(TOOLS, root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    return environment.Place(root)


@pytest.fixture
def project(tmp_path: Path) -> environment.Place:
    return make_project(tmp_path / "a project")


@pytest.fixture(scope="module")
def made_by_two(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[environment.Place, list[int], int]:
    """A project that two set-ups made at once, their exit codes, and how often it was built."""
    place = make_project(tmp_path_factory.mktemp("finished") / "a project")
    with pytest.MonkeyPatch.context() as patch:
        offline_pip(patch)
        with HeldBuild(place) as held:
            first = start(place)
            held.wait(first)
            second = start(place)
            await_line(second, "waiting for it")
        for process in (first, second):
            process.communicate()
    return place, [first.returncode, second.returncode], builds(place)


@pytest.fixture
def ready(made_by_two: tuple[environment.Place, list[int], int]) -> Iterator[environment.Place]:
    """A finished project shared by the tests; each leaves it finished."""
    place = made_by_two[0]
    yield place
    for name in ("failure.txt", "requires.txt"):
        (place.root / name).unlink(missing_ok=True)
    environment.set_up(place)


def start(place: environment.Place, **options: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER], cwd=place.root, stderr=subprocess.PIPE, text=True, **options
    )


def await_line(process: subprocess.Popen, text: str) -> None:
    assert process.stderr is not None
    while text not in (line := process.stderr.readline()):
        assert line, f"it ended and never said {text!r}"


def edit(place: environment.Place, name: str = "constraints.txt") -> None:
    """Make the environment stale."""
    with (place.root / name).open("a") as file:
        file.write("# edited\n")


def builds(place: environment.Place) -> int:
    return len((place.root / "builds.txt").read_text().splitlines())


def works(place: environment.Place) -> bool:
    check = "import toy, sys; sys.exit(toy.answer != 42)"
    return subprocess.call([place.python, "-I", "-c", check]) == 0


class HeldBuild:
    """Makes the next build stop half-way until it is released, at the latest at its own end."""

    def __init__(self, place: environment.Place) -> None:
        self.paths = [place.root / "reached", place.root / "release"]
        for path in self.paths:
            os.mkfifo(path)
        # Open for both directions, neither waits for the other side.
        self.reached, self.going = (os.open(path, os.O_RDWR) for path in self.paths)

    def __enter__(self) -> "HeldBuild":
        return self

    def __exit__(self, *failure: object) -> None:
        self.release()
        os.close(self.reached)
        os.close(self.going)

    def wait(self, process: subprocess.Popen) -> None:
        while not select.select([self.reached], [], [], 1)[0]:
            assert process.poll() is None, f"it ended before it built: {process.stderr.read()}"

    def release(self) -> None:
        os.write(self.going, b"go\n")
        for path in self.paths:
            path.unlink(missing_ok=True)


# ---- From nothing, and again -----------------------------------------------------------------


def test_two_at_once_from_nothing_make_one_environment(
    made_by_two: tuple[environment.Place, list[int], int],
) -> None:
    place, exit_codes, built = made_by_two
    assert exit_codes == [0, 0]
    assert built == 1
    assert works(place)
    assert environment.examine(place)[0] == "ready"


def test_a_ready_environment_is_left_alone(
    ready: environment.Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = builds(ready), ready.stamp.stat().st_mtime_ns, ready.log.stat().st_mtime_ns
    monkeypatch.setattr(pip_runner, "run_all", lambda *arguments: pytest.fail("ran pip"))
    ready.lock.unlink()
    monkeypatch.setattr(environment, "free_bytes", lambda folder: 0)  # does not matter now
    environment.set_up(ready)
    assert not ready.lock.exists()  # so nothing was waited for
    assert (builds(ready), ready.stamp.stat().st_mtime_ns, ready.log.stat().st_mtime_ns) == before
    assert capfd.readouterr() == ("", "")


# ---- Broken ----------------------------------------------------------------------------------


def kill_half_way(place: environment.Place, held: HeldBuild, with_pip: bool) -> None:
    """SIGKILL a set-up while pip is at work, without or with that pip."""
    edit(place)
    victim = start(place, start_new_session=True)
    held.wait(victim)
    os.killpg(victim.pid, signal.SIGKILL) if with_pip else victim.kill()
    victim.communicate()


def test_killed_half_way_is_repaired_and_a_linked_folder_stays_a_link(
    ready: environment.Place, tmp_path: Path
) -> None:
    ready.venv.rename(tmp_path / "elsewhere")
    ready.venv.symlink_to(tmp_path / "elsewhere")
    with HeldBuild(ready) as held:
        kill_half_way(ready, held, with_pip=False)
        assert environment.examine(ready) == ("broken", "its set-up was interrupted")
        (ready.venv / "debris").write_text("half a package")
        repair = start(ready)
        await_line(repair, "waiting for it")  # for the pip that is still at work in there
    repair.communicate()
    assert repair.returncode == 0
    assert environment.examine(ready)[0] == "ready"
    assert works(ready)
    assert not (ready.venv / "debris").exists()
    assert ready.venv.is_symlink()
    ready.venv.unlink()
    (tmp_path / "elsewhere").rename(ready.venv)


def test_killed_with_pip_is_recognised(ready: environment.Place) -> None:
    before = environment.read_stamp(ready)
    with HeldBuild(ready) as held:
        kill_half_way(ready, held, with_pip=True)
    assert environment.examine(ready) == ("broken", "its set-up was interrupted")
    assert before is not None
    environment.write_stamp(ready, before)  # nothing was harmed: spare the time of a repair


def test_python_removed_is_recognised(ready: environment.Place) -> None:
    python = ready.python.readlink()
    ready.python.unlink()
    assert environment.examine(ready) == ("broken", "its Python no longer runs")
    ready.python.symlink_to("/nowhere/python3")  # as after an upgrade of the system
    assert environment.examine(ready) == ("broken", "its Python no longer runs")
    ready.python.unlink()
    ready.python.symlink_to(python)
    assert environment.examine(ready)[0] == "ready"


def test_what_counts_as_broken(ready: environment.Place, tmp_path: Path) -> None:
    def state(version: tuple[int, int] | None = None) -> tuple[str, str]:
        return environment.examine(place, version)

    place = environment.Place(tmp_path / "moved")
    shutil.copytree(ready.root, place.root, symlinks=True)
    assert state() == ("broken", f"it was made in another folder, {ready.venv}")

    made = environment.read_stamp(ready)
    assert made is not None
    here = {
        key: str(value).replace(str(ready.root), str(place.root)) for key, value in made.items()
    }
    made = made | {key: here[key] for key in ("venv", "packages")}
    environment.write_stamp(place, made)
    assert state()[0] == "ready"
    assert state(sys.version_info[:2])[0] == "ready"
    assert state((3, 99))[0] == "broken"

    (Path(made["packages"]) / "toy.pth").unlink()
    assert state() == ("broken", "toy.pth is gone")
    for damaged in ('{"venv": ', "[]", "{}"):
        place.stamp.write_text(damaged)
        assert state() == ("broken", "its set-up was interrupted")
    place.stamp.unlink()
    shutil.rmtree(Path(made["packages"]) / "pip")
    assert state() == ("broken", "it has no working Python with pip")
    shutil.rmtree(place.venv)
    assert state()[0] == "missing"
    place.venv.write_text("a file")
    with pytest.raises(pythons.SetupError, match="not a folder"):
        environment.set_up(place)
    assert place.venv.read_text() == "a file"


# ---- Stale -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_an_edit_installs_again_in_place(ready: environment.Place, name: str) -> None:
    before = builds(ready)
    (ready.venv / "mine").write_text("kept")
    edit(ready, name)
    environment.set_up(ready)
    assert builds(ready) == before + 1
    assert (ready.venv / "mine").read_text() == "kept"
    assert environment.examine(ready)[0] == "ready"


def test_an_environment_made_by_hand_is_completed_not_thrown_away(
    ready: environment.Place,
) -> None:
    ready.stamp.unlink()
    (ready.venv / "mine").write_text("kept")
    assert environment.examine(ready) == ("stale", "it was not made by this set-up")
    environment.set_up(ready)
    assert (ready.venv / "mine").read_text() == "kept"
    assert environment.examine(ready)[0] == "ready"


def test_settings_that_send_packages_elsewhere_do_not(
    ready: environment.Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "pip.conf"
    settings.write_text("[install]\nuser = true\ndry-run = true\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    for name in ("target", "prefix", "root"):
        monkeypatch.setenv(f"PIP_{name.upper()}", str(tmp_path / name))
    uninstall(ready)
    environment.set_up(ready)
    assert works(ready)
    assert not any((tmp_path / name).exists() for name in ("target", "root", "prefix"))


def test_packages_that_went_elsewhere_all_the_same_are_noticed(
    ready: environment.Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "pip.conf"
    settings.write_text(f"[install]\ntarget = {tmp_path / 'target'}\n")
    uninstall(ready)
    with monkeypatch.context() as patch:
        patch.setenv("PIP_CONFIG_FILE", str(settings))
        with pytest.raises(pythons.SetupError, match=r"toy is not in .*\n.*target, prefix or root"):
            environment.set_up(ready)
    assert environment.examine(ready)[0] != "ready"


def uninstall(place: environment.Place) -> None:
    pip = [place.python, "-I", "-m", "pip", "uninstall", "--yes", "toy"]
    subprocess.run(pip, check=True, capture_output=True)
    place.stamp.unlink()


# ---- What can go wrong -----------------------------------------------------------------------


def test_a_full_disk_stops_before_anything_is_installed(
    project: environment.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(project.root))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(environment, "free_bytes", lambda folder: 5_300_000_000)
    with pytest.raises(pythons.SetupError) as failure:
        environment.set_up(project)
    assert f"needs 10 GB of free disk in {project.venv} and {project.root}" in str(failure.value)
    assert "there are 5.3 GB" in str(failure.value)
    assert not project.python.exists()
    assert not (project.root / "builds.txt").exists()


def test_a_small_disk_for_temporary_files_is_named(
    project: environment.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == project.root.stat().st_dev:
        pytest.skip("there is no second disk")
    monkeypatch.setenv("TMPDIR", str(other))
    monkeypatch.setattr(tempfile, "tempdir", None)
    room = {project.venv: 8 * 10**9, other: 10**9}
    monkeypatch.setattr(environment, "free_bytes", lambda folder: room[folder])
    with pytest.raises(pythons.SetupError, match=f"needs 3 GB of free disk in {other};"):
        environment.set_up(project)


def test_no_network_is_named_and_the_old_environment_still_works(
    ready: environment.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ready.root / "requires.txt").write_text("nowhere-to-be-found")
    edit(ready)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nothing listens there
    monkeypatch.setenv("PIP_RETRIES", "1")
    before = environment.read_stamp(ready)
    with pytest.raises(pythons.SetupError) as failure:
        environment.set_up(ready)
    assert "package index cannot be reached" in str(failure.value)
    assert "from before is still there" in str(failure.value)
    assert environment.read_stamp(ready) == before
    assert works(ready)


def test_another_failure_of_pip_shows_its_last_lines_and_the_log(
    ready: environment.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ready.root)
    (ready.root / "failure.txt").write_text("the compiler is missing")
    edit(ready)
    process = start(ready)
    _, said = process.communicate()
    assert process.returncode == 1
    assert "could not be installed" in said and "Traceback" not in said.split(":")[0]
    assert "The full log is in .course/setup.log." in said
    assert "the compiler is missing" in ready.log.read_text()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "TMPDIR"),
        ("WARNING: Retrying after connection broken by 'ProxyError'", "cannot be reached"),
        ("error: command 'g++' failed", "command 'g++' failed"),
    ],
)
def test_explanations(line: str, told: str, tmp_path: Path) -> None:
    assert told in pip_runner.explain(["Collecting torch", line], tmp_path / "log")


@pytest.mark.parametrize(
    ("download", "size"),
    [
        ("torch-2.15.0-cp311-cp311-linux.whl (532.1 MB)", 532.1),
        ("x.whl (1.2 GB)", 1200.0),
        ("x.whl (88 kB)", 0.0),
        ("https://host/x.whl", 0.0),
        ("wheel for toy (pyproject.toml): started", 0.0),
    ],
)
def test_size_of_a_download(download: str, size: float) -> None:
    assert pip_runner.megabytes(download) == size


def test_progress_says_what_takes_long_and_not_what_does_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(pip_runner.time, "monotonic", lambda: now)
    progress = pip_runner.Progress()
    for line in (
        "Collecting torch>=2.10 (from toy)",
        "  Downloading torch-2.15.0.whl (532.1 MB)",
        "  Downloading six-1.17.0.whl (11 kB)",
        "  Preparing editable metadata (pyproject.toml): started",
        "Installing collected packages: six, torch",
    ):
        progress.read(line)
    assert capsys.readouterr().err.splitlines() == [
        "  0:00  downloading torch-2.15.0.whl (532.1 MB)",
        "  0:00  installing packages (2)",
    ]
    now = 75.0
    progress.tick()  # after a long silence
    assert capsys.readouterr().err == "  1:15  installing packages (2)\n"


# ---- Which Python ----------------------------------------------------------------------------


def pretend_python(path: Path, output: str) -> Path:
    """A command that answers as a Python of another version would."""
    path.write_text(f"#!/bin/sh\nprintf '%b' '{output}'\nexit 1\n")
    path.chmod(0o755)
    return path


def run_as_old_python(
    place: environment.Place, python: Path, path: str
) -> subprocess.CompletedProcess:
    driver = f"""
    import sys, runpy
    sys.version_info, sys.executable = (3, 8, 10, "final", 0), {str(python)!r}
    sys.path.insert(0, "tools")
    runpy.run_path("tools/bootstrap.py", run_name="__main__")
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(driver)],
        cwd=place.root,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )


def test_an_old_python_says_what_it_is_and_what_is_needed(
    project: environment.Place, tmp_path: Path
) -> None:
    old = pretend_python(tmp_path / "python3", "3.8.10\\n/usr/bin/python3.8\\n")
    result = run_as_old_python(project, old, path="/nowhere")
    assert result.returncode == 1
    assert f"needs Python 3.11 or newer; {old} is Python 3.8.10." in result.stderr
    assert "make setup PYTHON=" in result.stderr
    assert len(result.stderr.splitlines()) == 2
    assert not project.venv.exists()


def test_an_old_python_hands_over_to_a_newer_one_on_the_path(
    ready: environment.Place, tmp_path: Path
) -> None:
    old = pretend_python(tmp_path / "python3", "3.8.10\\n/usr/bin/python3.8\\n")
    pretend_python(tmp_path / "python3.12", "")  # as pyenv does for one that is switched off
    new = tmp_path / "python3.13"
    new.write_text(f'#!/bin/sh\necho ran >> "{tmp_path}/ran"\nexec "{sys.executable}" "$@"\n')
    new.chmod(0o755)
    result = run_as_old_python(ready, old, path=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("3.8.10\\n/usr/bin/python3.8\\n", "needs Python 3.11 or newer; {} is Python 3.8.10"),
        ("3.12.1\\n", r"Python 3.12.1 \({}\) has no working venv module.\n.*python3.12-venv"),
        ("", "PYTHON={} does not run as Python"),
    ],
)
def test_the_chosen_python_must_do(tmp_path: Path, answer: str, told: str) -> None:
    chosen = str(pretend_python(tmp_path / "mine", answer))
    with pytest.raises(pythons.SetupError, match=told.format(chosen)):
        pythons.find(chosen)


def test_the_python_of_an_activated_environment_is_not_its_own(ready: environment.Place) -> None:
    version, python = pythons.probe(str(ready.python))
    assert version == sys.version_info[:3]
    assert not Path(python).is_relative_to(ready.venv)


@pytest.mark.parametrize("name", ["bootstrap.py", "pythons.py"])
def test_an_old_python_can_read_it(name: str) -> None:
    ast.parse((TOOLS / name).read_text(), feature_version=(3, 6))
