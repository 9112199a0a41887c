"""What is installed is said in several places; here they are held together."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def as_set(lines: list[str]) -> set[tuple[str, frozenset[str], str, str]]:
    parsed = [Requirement(line) for line in lines]
    return {
        (canonicalize_name(r.name), frozenset(r.extras), str(r.specifier), str(r.marker or ""))
        for r in parsed
    }


LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def locked() -> dict[str, set[str]]:
    """The versions of each package; some have one for each of several Pythons or systems."""
    versions: dict[str, set[str]] = {}
    for line in re.findall(r"^[A-Za-z0-9][^\\\n]*", LOCK, flags=re.M):
        pin = Requirement(line)
        (only,) = pin.specifier
        assert only.operator == "==" and "+" not in only.version, pin
        versions.setdefault(canonicalize_name(pin.name), set()).add(only.version)
    return versions


def test_the_lock_has_every_requirement_within_its_bounds() -> None:
    versions = locked()
    assert len(versions) > 200
    for line in PROJECT["dependencies"] + EXTRAS["dev"] + EXTRAS["cloud"]:
        requirement = Requirement(line)
        for version in versions[canonicalize_name(requirement.name)]:
            assert requirement.specifier.contains(version), line


def test_every_file_of_the_lock_has_a_hash_and_none_an_address() -> None:
    blocks = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.M)[1:]
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert not re.search(r"https?:|index-url|find-links|file:", LOCK)


def test_conda_and_the_image_install_from_the_lock() -> None:
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, last = content["dependencies"]
    assert last["pip"] == ["-r requirements.lock"]
    assert "pip" in conda
    python = SpecifierSet(next(line for line in conda if line.startswith("python"))[6:])
    assert set(SpecifierSet(PROJECT["requires-python"])) <= set(python)
    image = (ROOT / "docker" / "2-conda.Dockerfile").read_text(encoding="utf-8")
    assert "requirements.lock" in image and "pip install --no-deps --editable ." in image


def test_the_least_python_is_the_same_everywhere() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    code = "import setup; print('%d.%d' % tuple(setup.MINIMUM))"
    asked = [sys.executable, "-c", code]
    said = subprocess.run(asked, cwd=ROOT / "tools", capture_output=True, text=True, check=True)
    least = said.stdout.strip()
    assert PROJECT["requires-python"] == f">={least}"
    assert settings["ruff"]["target-version"] == "py" + least.replace(".", "")
    assert settings["mypy"]["python_version"] == least


def test_plain_make_lists_the_commands_and_sets_nothing_up() -> None:
    # The tests themselves may run under make, whose variables make this one talk more.
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(["make"], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    told = {line.split()[1] for line in done.stdout.splitlines()}
    assert told == {
        *("lab", "test", "test-all", "setup", "build", "check", "lock", "bench", "clean")
    }
    for target in told:  # each is one that make knows
        subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)
