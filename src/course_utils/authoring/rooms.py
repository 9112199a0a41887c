"""The package's rooms, counted: the table in docs/architecture.md.

    python -m course_utils.authoring.rooms            print the table
    python -m course_utils.authoring.rooms --write    put it into docs/architecture.md

A room is a folder of `src/course_utils`; what it is for stands in its `__init__.py`.
"""

import argparse
import ast
from dataclasses import dataclass
from pathlib import Path

from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root

BEGIN, END = "<!-- rooms: begin -->", "<!-- rooms: end -->"
DIVIDED = ("training", "grader")  # their folders are rooms of the drawing, too


@dataclass(frozen=True)
class Room:
    """A folder of the package, with the folders below it that are no rooms themselves."""

    name: str
    purpose: str
    lines: dict[str, int]  # of each module

    def row(self) -> str:
        longest = max(self.lines, key=lambda name: self.lines[name])
        return (
            f"| `{self.name}/` | {self.purpose} | {len(self.lines)} | {sum(self.lines.values()):,} "
            f"| `{longest}` {self.lines[longest]} |"
        )


def rooms(package: Path | None = None) -> list[Room]:
    """All rooms, in alphabetical order.

    Raises:
        CourseError: when a room does not say what it is for.
    """
    package = package or course_root() / "src" / "course_utils"
    folders = [folder for folder in _folders(package) if folder.name not in DIVIDED]
    folders += [folder for name in DIVIDED for folder in _folders(package / name)]
    return sorted((_room(folder, package) for folder in folders), key=lambda room: room.name)


def _folders(folder: Path) -> list[Path]:
    return [path.parent for path in folder.glob("*/__init__.py")]


def _room(folder: Path, package: Path) -> Room:
    purpose = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8")))
    name = folder.relative_to(package).as_posix()
    if not purpose:
        raise CourseError(f"{name}/__init__.py needs a docstring that says what the room is for.")
    lines = {
        path.relative_to(folder).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in sorted(folder.rglob("*.py"))
    }
    return Room(name, purpose.splitlines()[0].rstrip("."), lines)


def table(found: list[Room]) -> str:
    """The rooms as a Markdown table, with a last line for all of them."""
    modules, lines = (sum(len(r.lines) for r in found), sum(sum(r.lines.values()) for r in found))
    head = ["| room | what it is for | modules | lines | longest |", "|---|---|--:|--:|---|"]
    return "\n".join([*head, *(room.row() for room in found), f"| | | {modules} | {lines:,} | |"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Count the package's rooms.")
    parser.add_argument("--write", action="store_true", help="update docs/architecture.md")
    written = table(rooms())
    if not parser.parse_args().write:
        print(written)
        return
    path = course_root() / "docs" / "architecture.md"
    before, _, rest = path.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n{written}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
