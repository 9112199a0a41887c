"""What every page shares: a head that lets nothing run or load, and a style that fits a phone.

The content security policy allows one thing, this style, by its hash. Text still has to be
escaped (`plain.html`), but what slipped through could neither run nor call out. For the same
reason no element carries a `style` attribute: classes do it all.
"""

import base64
import hashlib
from collections.abc import Sequence

from course_utils.grader.autograde.outputs import plain

# The palette of pictures.plots, which cannot be imported here: it needs torch and matplotlib.
BLUE, ORANGE, GREEN, RED = "#2f6db5", "#e08a2e", "#3a9a6b", "#c8483f"
PURPLE, INK, GREY, PALE = "#7d5ba6", "#22303c", "#8a949e", "#e9edf1"

_STYLE = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 60rem; color: {INK};
  background: #fff; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .5rem; }}
h3 {{ font-size: 1rem; margin: 0; }}
p {{ margin: .4rem 0 .8rem; max-width: 46rem; }}
a {{ color: {BLUE}; }}
code, pre {{ font: .86em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }}
pre {{ margin: .3rem 0; padding: .5rem .7rem; background: #f6f8fa; border-radius: 4px;
  white-space: pre-wrap; overflow-wrap: anywhere; }}
svg {{ display: block; max-width: 100%; height: auto; }}
.quiet {{ color: #5b6672; }}
.small {{ font-size: .86rem; }}
.right {{ float: right; font-weight: 600; padding-left: 1rem; }}
.exercise {{ border-left: 5px solid {GREY}; padding: .3rem 0 .4rem .9rem; margin: 1.6rem 0; }}
.passed {{ border-color: {GREEN}; }}
.partial, .failed {{ border-color: {ORANGE}; }}
.look {{ border-color: {RED}; }}
ul.checks {{ list-style: none; margin: .5rem 0; padding: 0; }}
ul.checks > li {{ padding: .15rem 0 .15rem 1.6rem; text-indent: -1.6rem; overflow-wrap: anywhere; }}
ul.checks > li > * {{ text-indent: 0; }}
.sign {{ display: inline-block; width: 1.6rem; font-weight: 700; }}
.held {{ color: #2b7a52; }}
.missed {{ color: #b8651a; }}
.open {{ color: #5b6672; }}
.detail {{ margin: .1rem 0 .2rem; }}
.says {{ background: #f2f5f8; border-radius: 4px; padding: .5rem .7rem; margin: .5rem 0; }}
.long {{ display: inline-block; min-width: 14rem; overflow-wrap: anywhere; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .9rem; }}
th {{ text-align: left; font-weight: 600; border-bottom: 1px solid {GREY}; }}
th, td {{ padding: .25rem .9rem .25rem 0; vertical-align: top; overflow-wrap: break-word; }}
td svg {{ margin-top: .25rem; max-width: none; }}
td {{ border-bottom: 1px solid {PALE}; }}
th.n, td.n {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
.figures {{ display: flex; flex-wrap: wrap; gap: .4rem 2rem; margin: 1rem 0; padding: 0;
  list-style: none; }}
.figures b {{ display: block; font-size: 1.5rem; line-height: 1.2; }}
"""

_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"


def page(title: str, body: str) -> str:
    """A whole page.

    Args:
        title: plain text.
        body: markup in which everything from outside is escaped already.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{plain.html(title, 200)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table of ready markup; a column named `>x` is aligned right, as in cli.output."""
    side = [' class="n"' if column.startswith(">") else "" for column in columns]
    head = "".join(
        f"<th{right}>{plain.html(column.removeprefix('>'))}</th>"
        for column, right in zip(columns, side, strict=True)
    )
    lines = "".join(
        "<tr>"
        + "".join(f"<td{right}>{cell}</td>" for cell, right in zip(row, side, strict=True))
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{lines}</tbody></table></div>\n"
    )
