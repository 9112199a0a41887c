"""What is installed is said in several places; here they are held together."""

import os
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


def test_conda_environment_installs_what_pyproject_requires() -> None:
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, last = content["dependencies"]
    options = [line for line in last["pip"] if line.startswith("-")]
    listed = [line for line in last["pip"] if not line.startswith("-")]
    assert as_set(listed) == as_set(PROJECT["dependencies"] + EXTRAS["dev"] + EXTRAS["cloud"])
    assert len(listed) == len(as_set(listed))
    assert options == ["-c constraints.txt", "-e ."]
    assert "pip" in conda
    python = SpecifierSet(next(line for line in conda if line.startswith("python"))[6:])
    assert set(SpecifierSet(PROJECT["requires-python"])) <= set(python)


def test_constraints_pin_every_requirement_within_its_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {}
    for pin in pins:
        (only,) = pin.specifier
        assert only.operator == "==" and "+" not in only.version, pin
        versions[canonicalize_name(pin.name)] = only.version
    assert len(versions) == len(pins)
    for line in PROJECT["dependencies"] + EXTRAS["dev"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), line


def test_constraints_leave_the_cuda_libraries_to_torch() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert not [line for line in text.splitlines() if line.startswith(("nvidia", "cuda", "triton"))]


def test_the_least_python_is_the_same_everywhere() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    code = "import pythons; print('%d.%d' % pythons.MINIMUM)"
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
    assert told == {"lab", "test", "setup", "build", "check", "bench", "clean"}
    for target in told:  # each is one that make knows
        subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)
