"""Write the measured figures into README.md, from the files in results/.

python benchmarks/report.py            after benchmarks/mnist.py
python benchmarks/report.py --check    exit code 1 when README.md says something else
"""

import json
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parent / "results"
BEGIN = "<!-- figures: written by benchmarks/report.py -->\n"
END = "<!-- end of figures -->"

WAYS = {
    "textbook loop": "textbook loop: `DataLoader`, transforms, two convolutions, Adadelta",
    "mnist-fast": "`labs/mnist.py --recipe mnist-fast`",
    "mnist-accurate": "`labs/mnist.py --recipe mnist-accurate`",
}


def figures() -> str:
    """The block between the two marks: a table for each machine measured."""
    parts = []
    for path in sorted(RESULTS.glob("mnist-*.json")):
        result = json.loads(path.read_text("utf-8"))
        about = result["machine"]
        lines = [
            f"MNIST on {about['cores']} cores of an {about['processor']} "
            f"({', '.join(about['features'])}; torch {about['torch']}), medians of "
            f"{len(result['seeds'])} seeds, all in one run:",
            "",
            "| | test accuracy | seconds of training | seconds to 99 % |",
            "|---|--:|--:|--:|",
        ]
        for way, median in result["medians"].items():
            to_target = median["seconds_to_target"]
            lines.append(
                f"| {WAYS[way]} | {median['accuracy']:.2%} | {median['seconds']:.1f} "
                f"| {'not reached' if to_target is None else f'{to_target:.1f}'} |"
            )
        ratio = result["ratio"]
        if ratio:
            lines += ["", f"To 99 % the fast recipe is {ratio:.1f} times as quick as the textbook."]
        parts.append("\n".join(lines))
    nothing = "Nothing has been recorded here yet that was measured on a quiet machine."
    return "\n\n".join(parts or [nothing]) + "\n"


def main() -> int:
    text = README.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    updated = before + BEGIN + figures() + END + after
    if "--check" in sys.argv[1:]:
        return int(updated != text)
    README.write_text(updated, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
