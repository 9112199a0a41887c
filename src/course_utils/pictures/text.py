"""Pictures of text on its way into a model: rows, masks, curves, samples, conversations."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML, display
from jaxtyping import Int
from torch import Tensor

from course_utils.models.gpt.config import GPTConfig
from course_utils.pictures.plots import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    curves,
    smooth,
)

END_COLOUR = INK


def padding_waste(lengths: Int[Tensor, "documents"], context: int) -> None:
    """How long documents are, and what share of rows of their own would stay empty."""
    shown = np.minimum(lengths.numpy(), 4 * context)
    whole = -(-lengths // context)  # rows that a document needs for itself
    used = float(lengths.sum() / (whole * context).sum())
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 2.8), width_ratios=(3, 2))
    left.hist(shown, bins=40, color=BLUE)
    left.axvline(context, color=ORANGE, label=f"a row: {context} tokens")
    left.set(title="Documents are of all lengths", xlabel="tokens", ylabel="documents")
    left.legend()
    right.barh(["a row of its own", "end to end"], [used, 1], color=BLUE)
    right.barh(["a row of its own", "end to end"], [1 - used, 0], left=[used, 1], color=PALE)
    right.set(title=f"Rows of their own: {1 - used:.0%} are empty", xlim=(0, 1))
    right.set_xlabel("share of the places in a batch")
    right.invert_yaxis()


def documents_in_rows(
    documents: Sequence[Sequence[int]],
    end: int,
    context: int,
    rows: Int[Tensor, "rows context_plus_1"],
) -> None:
    """The first rows of a packed stream, coloured by document; the end tokens are dark."""
    rows = rows[:16]
    owner = [i for i, document in enumerate(documents) for _ in range(len(document) + 1)]
    owners = np.array([owner[r * context : r * context + rows.shape[1]] for r in range(len(rows))])
    palette = np.array([_rgb(colour) for colour in COLOURS[:-1]])
    image = 0.45 * palette[owners % len(palette)] + 0.55
    image[rows.numpy() == end] = _rgb(END_COLOUR)
    _, axes = plt.subplots(figsize=(10, 0.35 * len(rows) + 1.1))
    axes.imshow(image, aspect="auto")
    axes.axvline(context - 0.5, color=INK, lw=0.8, ls=":")
    axes.set(
        title="Documents end to end: a colour each, dark where one ends",
        xlabel="position (right of the dotted line: a target only)",
        ylabel="row",
    )
    axes.grid(False)


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def flops_by_context(
    configs: Mapping[str, GPTConfig],
    contexts: Sequence[int],
    cost: Callable[[GPTConfig, int], int],
) -> None:
    """FLOPs per token against context, in units of 6 × parameters; and attention's share."""
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
    for (name, config), colour in zip(configs.items(), COLOURS, strict=False):
        costs = np.array([cost(config, context) for context in contexts])
        left.plot(contexts, costs / (6 * config.n_parameters()), "o-", ms=3, label=name)
        share = 1 - cost(config, 0) / costs
        right.plot(contexts, 100 * share, "o-", ms=3, color=colour, label=name)
    left.axhline(1, color=GREY, ls="--", lw=1, label="the rule of thumb")
    left.set(title="Cost of a token, by the rule of thumb", ylabel="FLOPs / (6 · parameters)")
    left.legend()
    right.set(title="Attention's share of it", ylabel="%")
    for axes in (left, right):
        axes.set(xlabel="context (tokens)")
        axes.set_xscale("log", base=2)


def pretraining_curves(rows: Sequence[Mapping[str, float]], vocab: int) -> None:
    """Loss with its starting point ln(vocab), bits per byte, and learning rate over the steps."""
    _, panels = plt.subplots(1, 3, figsize=(12, 3.2))
    steps = [row["step"] for row in rows]
    measured = [row for row in rows if "val_loss" in row]
    at = [row["step"] for row in measured]
    left, middle, right = panels
    left.plot(steps, [row["loss"] for row in rows], color=GREY, lw=0.5, alpha=0.7)
    left.plot(steps, smooth([row["loss"] for row in rows]), color=BLUE, label="training")
    left.plot(at, [row["val_loss"] for row in measured], "o-", ms=4, color=ORANGE, label="held out")
    left.axhline(np.log(vocab), color=GREY, ls="--", lw=1, label="ln V: knowing nothing")
    left.set(title="Loss of a token", ylabel="nats")
    left.legend()
    middle.plot(at, [row["val_bits_per_byte"] for row in measured], "o-", ms=4, color=GREEN)
    middle.set(title="Held-out text, compressed", ylabel="bits per byte")
    right.plot(steps, [row["lr"] for row in rows], color=BLUE)
    right.set(title="Learning rate of the matrices")
    for axes in panels:
        axes.set_xlabel("step")


def compression_bars(bits: Mapping[str, float]) -> None:
    """Bits per byte by method, the smallest last."""
    _, axes = plt.subplots(figsize=(7, 2.2))
    names = list(bits)
    drawn = axes.barh(names, list(bits.values()), color=[GREY] * (len(names) - 1) + [BLUE])
    axes.bar_label(drawn, [f" {value:.2f}" for value in bits.values()])
    axes.set(title="Held-out text: bits for a byte", xlabel="bits", xlim=(0, 8.8))
    axes.invert_yaxis()


def loss_traces(
    runs: Mapping[str, Sequence[Mapping[str, float]]],
    *,
    mark: int | None = None,
    smoothed: bool = False,
) -> None:
    """Training losses of several runs on top of each other.

    Args:
        mark: A step to mark.
        smoothed: For runs that differ; leave it for runs that should be equal.
    """
    _, axes = plt.subplots(figsize=(8, 3.2))
    styles = ("-", "--", ":", "-.")
    for index, (name, rows) in enumerate(runs.items()):
        losses = [row["loss"] for row in rows]
        losses = smooth(losses, 9) if smoothed else losses
        axes.plot(
            [row["step"] for row in rows],
            losses,
            styles[0] if smoothed else styles[index % len(styles)],
            color=COLOURS[index % len(COLOURS)],
            lw=1.6 if smoothed else 3.5 - 1.7 * min(index, 1),
            label=name,
        )
    if mark is not None:
        axes.axvline(mark, color=GREY, lw=1, ls=":")
    axes.set(title="Loss of a token", xlabel="step", ylabel="nats")
    axes.legend()


def samples_table(samples: Sequence[Mapping[str, Any]], prompt: str) -> None:
    """What a model wrote from one beginning, step by step."""
    rows = "".join(
        f"<tr><td style='text-align:right;color:{GREY};padding:2px 10px'>{line['step']}</td>"
        f"<td style='text-align:left;padding:2px 10px'><b>{escape(prompt)}</b>"
        f"{escape(' '.join(str(line['text']).split()))}</td></tr>"
        for line in samples
        if line["prompt"] == prompt
    )
    head = "<tr><th style='text-align:right'>step</th><th style='text-align:left'>text</th></tr>"
    display(HTML(f"<table style='max-width:60em'>{head}{rows}</table>"))


def learned_tokens(pieces: Sequence[str], learn: Sequence[bool], title: str = "") -> None:
    """A conversation token by token: green where the model learns to say it, grey where not."""
    spans = "".join(
        f"<span style='background:{'#cfe8da' if yes else '#e9edf1'};color:{INK};"
        "border-radius:3px;padding:1px 2px;margin:1px;white-space:pre-wrap'>"
        f"{escape(piece).replace(chr(10), '⏎')}</span>{'<br>' if chr(10) in piece else ''}"
        for piece, yes in zip(pieces, learn, strict=True)
    )
    share = sum(learn) / max(1, len(learn))
    caption = f"{title} {share:.0%} of {len(learn)} tokens are learned (green)."
    display(
        HTML(
            f"<div style='font-family:monospace;line-height:1.9;max-width:60em'>{spans}</div>"
            f"<p style='color:{GREY}'>{escape(caption)}</p>"
        )
    )


def conversations(turns: Mapping[str, Sequence[str]], questions: Sequence[str]) -> None:
    """What several models answer to the same questions, side by side."""
    cell = "style='text-align:left;vertical-align:top;padding:4px 12px;max-width:26em'"
    head = "".join(f"<th {cell}>{escape(name)}</th>" for name in ("", *turns))
    rows = "".join(
        f"<tr><td {cell}><b>{escape(question)}</b></td>"
        + "".join(f"<td {cell}>{escape(said[i]) or '(nothing)'}</td>" for said in turns.values())
        + "</tr>"
        for i, question in enumerate(questions)
    )
    display(HTML(f"<table>{'<tr>' + head + '</tr>'}{rows}</table>"))


def who_sees_whom(
    visible: Tensor, documents: Sequence[int], title: str = "Who sees whom in a packed row"
) -> None:
    """The attention mask of one row, with the borders of its documents."""
    _, axes = plt.subplots(figsize=(4.2, 4.2))
    axes.imshow(visible.float(), cmap="Blues", vmax=1.6)
    borders = [i for i in range(1, len(documents)) if documents[i] != documents[i - 1]]
    for border in borders:
        axes.axhline(border - 0.5, color=ORANGE, lw=1)
        axes.axvline(border - 0.5, color=ORANGE, lw=1)
    axes.set(title=title, xlabel="looked at", ylabel="looking")
    axes.grid(False)


def chat_curves(rows: Sequence[Mapping[str, float]]) -> None:
    """Loss of the assistant's tokens, and the share of held-out tasks that are right."""
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
    losses = [row["loss"] for row in rows]
    measured = [row for row in rows if "val_loss" in row]
    at = [row["step"] for row in measured]
    left.plot([row["step"] for row in rows], smooth(losses, 15), color=BLUE, label="training")
    left.plot(at, [row["val_loss"] for row in measured], "o-", ms=4, color=ORANGE, label="held out")
    left.set(title="Loss of an answer's token", xlabel="step", ylabel="nats", ylim=(0, None))
    left.legend()
    curves(
        {"held-out sums": (at, [100 * row["val_exact_match"] for row in measured])},
        title="Right to the last digit",
        xlabel="step",
        ylabel="% of sums nobody trained on",
        axes=right,
    )
    right.set_ylim(0, 101)
