"""Tokens to look at: coloured text, the bytes of characters, and merges to step through.

Each function displays a piece of HTML that needs nothing else, neither a running kernel nor the
network, so that it also works on a page made from the notebook. Whatever the text contains is
escaped. Colours are chosen with their background, for light and dark themes alike.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import accumulate
from typing import Any
from uuid import uuid4

from IPython.display import HTML, display

from course_utils.tokenizer.bpe import Merge, Token, split_into_pieces

# Neighbours must differ; nothing else is meant by a colour.
PASTELS = ("#cfe3f7", "#fbe3c3", "#d3ecd9", "#f6d5d3", "#e3d9f0", "#f3efb8")
_INK = "#22303c"
_FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'Noto Sans Mono CJK SC',monospace"
_TEXT = f"font:14px/1.9 {_FONT};white-space:pre-wrap;overflow-wrap:anywhere"
_QUIET = "font:13px/1.5 system-ui,sans-serif;color:var(--jp-content-font-color2,#5a6672)"
_TOKEN = f"color:{_INK};border-radius:3px;padding:2px 0"


def readable(token: bytes) -> str:
    """A token as text: as it is if it is valid UTF-8, else its bytes in hex, `e4·bd`."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return token.hex(" ").replace(" ", "·")


def coloured(
    rows: dict[str, Sequence[bytes]], ids: Callable[[bytes], int | None] | None = None
) -> None:
    """Display texts with every token on a colour of its own, and how many there are.

    A token that is not whole characters shows its bytes in hex, underlined. Resting the pointer
    on a token tells its bytes, and its id.

    Args:
        rows: by name, the bytes of each token.
        ids: gives the id of a token's bytes, or None.
    """
    html = "".join(_row(name, tokens, ids) for name, tokens in rows.items())
    display(HTML(f'<div style="max-width:62em">{html}</div>'))


def _row(name: str, tokens: Sequence[bytes], ids: Callable[[bytes], int | None] | None) -> str:
    n_bytes = sum(map(len, tokens))
    said = f"{len(tokens):,} tokens, {n_bytes / max(len(tokens), 1):.2f} bytes each"
    spans = "".join(_span(token, index, ids) for index, token in enumerate(tokens))
    return (
        f'<div style="{_QUIET};margin-top:.7em"><b>{escape(name)}</b> &nbsp; {said}</div>'
        f'<div style="{_TEXT}">{spans}</div>'
    )


def _span(token: bytes, index: int, ids: Callable[[bytes], int | None] | None) -> str:
    text = readable(token)
    style = f"background:{PASTELS[index % len(PASTELS)]};{_TOKEN}"
    if text != token.decode(errors="replace"):
        style += ";font-size:10px;border-bottom:2px solid #c8483f;margin:0 1px"
    # A line break must be seen as a token, and break the line.
    shown = escape(text).replace("\n", "⏎\n")
    number = ids(token) if ids else None
    told = f"bytes {token.hex(' ')}" + ("" if number is None else f" · id {number}")
    return f'<span style="{style}" title="{escape(told)}">{shown}</span>'


def characters_and_bytes(text: str) -> None:
    """Display each character of a short text above its code point and its bytes in UTF-8."""
    cell = f"padding:3px 7px;text-align:center;border:0;color:{_INK}"
    rows: list[list[str]] = [[], [], []]
    for index, character in enumerate(text):
        encoded = character.encode()
        colour = f"background:{PASTELS[index % len(PASTELS)]}"
        shown = {" ": "␣", "\n": "⏎"}.get(character, escape(character))
        rows[0].append(
            f'<td colspan="{len(encoded)}" style="{cell};{colour};font-size:18px">{shown}</td>'
        )
        rows[1].append(
            f'<td colspan="{len(encoded)}" style="{cell};{colour}">U+{ord(character):04X}</td>'
        )
        rows[2] += [f'<td style="{cell};{colour}">{byte}</td>' for byte in encoded]
    head = f"{_QUIET};border:0;text-align:right;white-space:nowrap"
    table = "".join(
        f'<tr style="background:none"><th style="{head}">{name}</th>{"".join(row)}</tr>'
        for name, row in zip(("character", "code point", "bytes"), rows, strict=True)
    )
    display(
        HTML(
            f'<table style="border-collapse:separate;border-spacing:2px;font:13px {_FONT}">'
            f"{table}</table>"
        )
    )


# --- the merge stepper ------------------------------------------------------------------------

State = list[tuple[Token, ...]]


def merge_states(
    text: str, merges: Sequence[Merge], join: Callable[[tuple[Token, ...], Merge], tuple]
) -> Iterable[tuple[int, State]]:
    """What a text's pieces look like at first, and after each merge that changes any of them.

    Args:
        join: `bpe.merge_pair`, or the learner's.

    Yields:
        The number of merges done so far, and each piece as its tokens.
    """
    state = [tuple(bytes([b]) for b in piece.encode()) for piece in split_into_pieces(text)]
    yield 0, state
    for number, pair in enumerate(merges, start=1):
        after = [join(tokens, pair) for tokens in state]
        if after != state:
            state = after
            yield number, state


def merge_stepper(
    text: str,
    merges: Sequence[Merge],
    join: Callable[[tuple[Token, ...], Merge], tuple],
    n_shown: int | None = None,
) -> None:
    """Display a text that one can follow through the merges, with a slider and a play button.

    Merges that change nothing in this text are skipped. Without JavaScript the last state shows.

    Args:
        text: a sentence or two.
        merges: as `train_bpe` returns them.
        join: applies one merge to one piece, `merge_pair`.
        n_shown: the step to begin with; by default the last.
    """
    steps: list[dict[str, Any]] = []
    for number, state in merge_states(text, merges, join):
        tokens = [token for piece in state for token in piece]
        ends = list(accumulate(map(len, tokens)))
        pair = [readable(part).replace(" ", "␣") for part in merges[number - 1]] if number else []
        steps.append({"merge": number, "pair": pair, "ends": ends})
    first = len(steps) - 1 if n_shown is None else min(n_shown, len(steps) - 1)
    spans = (
        _span(token, index, None)
        for index, token in enumerate(_cut(text.encode(), steps[first]["ends"]))
    )
    data = json.dumps({"bytes": list(text.encode()), "steps": steps, "colours": PASTELS})
    parts = {
        "LAST": str(len(steps) - 1),
        "FIRST": str(first),
        # "</script>" in a text must not end the script.
        "DATA": data.replace("<", "\\u003c"),
        "FALLBACK": "".join(spans),
        "NAME": f"merge-stepper-{uuid4().hex[:12]}",
    }
    # All at once, because a text may contain any of these words itself.
    display(HTML(re.sub("@([A-Z]+)@", lambda match: parts[match[1]], _STEPPER)))


def _cut(text: bytes, ends: list[int]) -> list[bytes]:
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


_STEPPER = f"""
<div id="@NAME@" style="max-width:62em;border:1px solid rgba(128,128,128,.35);
     border-radius:6px;padding:.7em 1em">
  <div style="display:flex;gap:.5em;align-items:center;flex-wrap:wrap;{_QUIET}">
    <button data-do="first" title="to the bytes">|◀</button>
    <button data-do="back" title="one merge back">◀</button>
    <button data-do="play" title="play">▶</button>
    <button data-do="next" title="one merge on">▶|</button>
    <input type="range" min="0" max="@LAST@" value="@FIRST@" style="flex:1;min-width:10em">
    <span data-show="count" style="min-width:13em;text-align:right"></span>
  </div>
  <div data-show="merge" style="{_QUIET};min-height:1.6em;margin:.4em 0"></div>
  <div data-show="text" style="{_TEXT};min-height:2.6em">@FALLBACK@</div>
  <svg data-show="curve" viewBox="0 0 600 50" preserveAspectRatio="none"
       style="width:100%;height:44px;display:block;margin-top:.4em"></svg>
</div>
<script>
(function () {{
  const data = @DATA@;
  const box = document.getElementById("@NAME@");
  if (!box) return;
  const show = (name) => box.querySelector(`[data-show=${{name}}]`);
  const slider = box.querySelector("input");
  const whole = new TextDecoder("utf-8", {{fatal: true}});
  const hex = (part) => part.map((b) => b.toString(16).padStart(2, "0")).join("·");
  function text(part) {{
    try {{ return [whole.decode(new Uint8Array(part)), false]; }}
    catch (error) {{ return [hex(part), true]; }}
  }}
  function draw() {{
    const at = Number(slider.value), step = data.steps[at];
    const before = new Set(at ? data.steps[at - 1].ends : step.ends);
    const now = new Set(step.ends);
    const gone = [...before].filter((end) => !now.has(end));
    const line = show("text");
    line.replaceChildren();
    let start = 0, colour = -1;
    step.ends.forEach((end, index) => {{
      const part = data.bytes.slice(start, end), span = document.createElement("span");
      const [shown, cut] = text(part);
      span.textContent = shown.replace("\\n", "⏎\\n");
      const joined = gone.some((place) => start < place && place < end);
      // By place, so that what does not change keeps its colour; neighbours differ.
      const wanted = start % data.colours.length;
      colour = wanted === colour ? (wanted + 1) % data.colours.length : wanted;
      span.style.cssText = `{_TOKEN};background:${{data.colours[colour]}}`;
      if (cut) span.style.fontSize = "10px";
      if (joined) span.style.outline = "2px solid #e08a2e";
      span.title = "bytes " + hex(part).replaceAll("·", " ");
      line.append(span);
      start = end;
    }});
    show("count").textContent = `${{step.ends.length}} tokens for ${{data.bytes.length}} bytes`;
    show("merge").textContent = at
      ? `merge ${{step.merge}}:   ${{step.pair[0]}} + ${{step.pair[1]}}  →  ${{step.pair.join("")}}`
      : "before the first merge: one token for each byte";
    const last = Math.max(1, data.steps[data.steps.length - 1].merge);
    const points = data.steps.map((s) =>
      `${{600 * s.merge / last}},${{48 - 44 * s.ends.length / data.bytes.length}}`);
    const here = points[at].split(",");
    show("curve").innerHTML =
      `<polyline points="${{points.join(" ")}}" fill="none" stroke="#2f6db5" stroke-width="1.5"
        vector-effect="non-scaling-stroke"/>
       <line x1="${{here[0]}}" x2="${{here[0]}}" y1="0" y2="50" stroke="#e08a2e" stroke-width="2"
        vector-effect="non-scaling-stroke"/>`;
  }}
  let timer = null;
  function stop() {{ clearInterval(timer); timer = null; play.textContent = "▶"; }}
  function move(to) {{
    slider.value = Math.max(0, Math.min(data.steps.length - 1, to));
    draw();
  }}
  const play = box.querySelector("[data-do=play]");
  box.querySelector("[data-do=first]").onclick = () => {{ stop(); move(0); }};
  box.querySelector("[data-do=back]").onclick = () => {{ stop(); move(Number(slider.value) - 1); }};
  box.querySelector("[data-do=next]").onclick = () => {{ stop(); move(Number(slider.value) + 1); }};
  play.onclick = () => {{
    if (timer) return stop();
    if (Number(slider.value) === data.steps.length - 1) move(0);
    play.textContent = "⏸";
    timer = setInterval(() => {{
      move(Number(slider.value) + 1);
      if (Number(slider.value) === data.steps.length - 1) stop();
    }}, 600);
  }};
  slider.oninput = () => {{ stop(); draw(); }};
  draw();
}})();
</script>
"""
