"""Write the measured figures into README.md and docs/measured.md, from the files in results/.

python benchmarks/report.py            after one of the other benchmarks
python benchmarks/report.py --check    exit code 1 when one of them says something else
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headlines import HEADLINES
from tables import SECTIONS, where
from targets import TARGETS

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
BEGIN = "<!-- figures: written by benchmarks/report.py -->\n"
END = "<!-- end of figures -->\n"
NOTHING = "Nothing has been recorded here yet that was measured on a quiet machine."


def results(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A benchmark's results, and whose machine: one for each on which it was run."""
    for path in sorted(RESULTS.glob(f"{name}-*.json")):
        yield path.stem.removeprefix(f"{name}-"), json.loads(path.read_text("utf-8"))


def headlines() -> str:
    """A table for each machine, a line for each benchmark."""
    lines: dict[str, list[str]] = {}
    for name, line in HEADLINES.items():
        for machine, result in results(name):
            head = [f"| on {where(result['machine'])} | | beside it | |", "|---|--:|--:|--:|"]
            lines.setdefault(machine, head).append(f"| {' | '.join(line(result))} |")
    return "\n\n".join("\n".join(table) for table in lines.values()) or NOTHING


def measured() -> str:
    """What was to be reached; then every table, with the program that measured it."""
    parts = ["## What we meant to reach", "\n".join(targets())]
    for title, tables in SECTIONS.items():
        found = []
        for name, table in tables.items():
            program = "serving.py --soak 10" if name == "soak" else f"{name.replace('-', '_')}.py"
            for _, result in results(name):
                found += ["\n".join(table(result)), f"`python benchmarks/{program}`"]
        parts += [f"## {title}", *(found or [NOTHING])]
    return "\n\n".join(parts)


def targets() -> Iterator[str]:
    yield from ("| on two cores of a CPU | reached | |", "|---|--:|---|")
    for name, found in TARGETS.items():
        for _, result in results(name):
            for aim, reached, enough in found(result):
                yield f"| {aim} | {reached} | {'' if enough else '**missed**'} |"


def with_figures(text: str, figures: str) -> str:
    """The text with new figures between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + figures + "\n" + END + after


def main() -> int:
    check, stale = "--check" in sys.argv[1:], False
    for page, figures in ((ROOT / "README.md", headlines), (ROOT / "docs/measured.md", measured)):
        text = page.read_text("utf-8")
        updated = with_figures(text, figures())
        stale |= updated != text
        if not check:
            page.write_text(updated, "utf-8")
    return int(check and stale)


if __name__ == "__main__":
    sys.exit(main())
