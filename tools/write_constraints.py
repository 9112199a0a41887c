"""Print constraints.txt for the environment this runs in.

    .venv/bin/python tools/write_constraints.py > constraints.txt

Run it where the whole test suite has passed.
"""

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

HEADER = """\
# The versions that were tested, written by tools/write_constraints.py.
# The CUDA libraries and triton are left out: each build of torch asks for its own.
"""
TORCH_CHOOSES = ("nvidia-", "cuda-", "triton")


def requirements(pyproject: Path) -> list[Requirement]:
    """What `pip install .[dev]` asks for directly."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return [
        Requirement(line)
        for line in project["dependencies"] + project["optional-dependencies"]["dev"]
    ]


def closure(wanted: list[Requirement]) -> dict[NormalizedName, str]:
    """Name → installed version of the requirements and of all they depend on, here."""
    versions: dict[NormalizedName, str] = {}
    visited: set[tuple[str, str]] = set()
    todo = [(requirement, extra) for requirement in wanted for extra in ("", *requirement.extras)]
    while todo:
        requirement, extra = todo.pop()
        if (requirement.name, extra) in visited or not applies(requirement, ""):
            continue
        visited.add((requirement.name, extra))
        found = metadata.distribution(requirement.name)
        versions[canonicalize_name(requirement.name)] = found.version
        for needed in map(Requirement, found.requires or []):
            if applies(needed, extra):
                bare = Requirement(needed.name)  # its marker holds; only the extras matter now
                todo += [(bare, further) for further in ("", *needed.extras)]
    return versions


def applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def main() -> None:
    pyproject = Path(__file__).parent.parent / "pyproject.toml"
    print(HEADER, end="")
    for name, version in sorted(closure(requirements(pyproject)).items()):
        if not name.startswith(TORCH_CHOOSES):
            print(f"{name}=={version.partition('+')[0]}")


if __name__ == "__main__":
    main()
