"""Pictures of preferences, rewards and teachers."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from course_utils.alignment.reinforcement import kl_estimate
from course_utils.pictures.plots import BLUE, COLOURS, GREEN, GREY, INK, ORANGE, PALE, RED, smooth

RIGHT, WRONG = GREEN, ORANGE


def what_it_says(
    said: Mapping[str, Mapping[str, int]], right: str, careless: str, *, shown: int = 5
) -> None:
    """How often a model gives each answer to one question; one panel for each model."""
    _, panels = plt.subplots(
        1, len(said), figsize=(3.1 * len(said) + 0.8, 2.6), sharey=True, squeeze=False
    )
    for axes, (name, counts) in zip(panels[0], said.items(), strict=True):
        total = sum(counts.values())
        first = sorted(counts, key=lambda answer: -counts[answer])[:shown]
        shares = [100 * counts[answer] / total for answer in first]
        colours = [RIGHT if a == right else WRONG if a == careless else GREY for a in first]
        axes.bar(range(len(first)), shares, color=colours)
        axes.set_xticks(range(len(first)), [repr(a)[1:-1] or "(nothing)" for a in first])
        axes.set(title=name, ylim=(0, 105))
        axes.grid(axis="x", visible=False)
    panels[0][0].set_ylabel("% of its answers")


def dpo_curve(beta: float = 1.0) -> None:
    """DPO's loss and its slope against the difference of the rewards."""
    margin = torch.linspace(-6, 6, 200)
    _, axes = plt.subplots(figsize=(6, 3))
    axes.plot(margin, -torch.nn.functional.logsigmoid(margin), color=BLUE, label="loss")
    axes.plot(margin, (-margin).sigmoid(), color=ORANGE, label="pull: how hard it pushes")
    axes.axvline(0, color=GREY, lw=1, ls=":")
    axes.plot([0], [np.log(2)], "o", color=BLUE, ms=5)
    axes.annotate("the beginning: ln 2", (0, np.log(2)), (0.4, 1.6), color=INK, fontsize=9)
    axes.set(
        title="Pairs that are ranked wrongly push hardest",
        xlabel="reward of the chosen answer − reward of the rejected one",
        ylabel="nats",
    )
    axes.legend()


def preference_curves(runs: Mapping[str, Sequence[Mapping[str, float]]], before: float) -> None:
    """Rewards of both answers, KL to the reference, and exact match, over the steps of DPO runs.

    Args:
        before: exact match of the reference, 0 to 1: where all runs begin.
    """
    _, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.2))
    for (name, rows), colour in zip(runs.items(), COLOURS, strict=False):
        measured = [row for row in rows if "val_loss" in row]
        at = [0, *(row["step"] for row in measured)]
        for key, style in (("val_chosen_reward", "o-"), ("val_rejected_reward", "o--")):
            values = [0.0, *(row[key] for row in measured)]
            left.plot(at, values, style, ms=3, color=colour)
        kl = [0.0, *(row["val_kl"] for row in measured)]
        middle.plot(at, kl, "o-", ms=3, color=colour, label=name)
        shares = [100 * before, *(100 * row["val_exact_match"] for row in measured)]
        right.plot(at, shares, "o-", ms=3, color=colour, label=name)
    left.axhline(0, color=GREY, lw=1)
    left.set(title="Rewards: chosen (—), rejected (- -)", ylabel="β · (log π − log π_ref)")
    middle.set(title="Distance from the reference", ylabel="KL, nats per answer", ylim=(0, None))
    right.set(title="Held-out sums", ylabel="% right", ylim=(0, 101))
    for axes in (left, middle, right):
        axes.set_xlabel("step")
    right.legend()


def group_rewards(solved: Sequence[float], advantages: Float[Tensor, "groups size"]) -> None:
    """How many answers of each group are right, and what advantages that makes of them."""
    size = advantages.shape[1]
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 3))
    counts = np.bincount(np.round(np.array(solved) * size).astype(int), minlength=size + 1)
    colours = [PALE if k in (0, size) else BLUE for k in range(size + 1)]
    left.bar(range(size + 1), counts, color=colours, edgecolor=GREY, linewidth=0.6)
    left.set(
        title="Pale groups agree: nothing to learn from",
        xlabel=f"right answers in a group of {size}",
        ylabel="groups",
    )
    share = np.arange(1, size) / size
    spread = np.sqrt(share * (1 - share))
    right.plot(range(1, size), (1 - share) / spread, "o-", color=RIGHT, label="a right answer")
    right.plot(range(1, size), -share / spread, "o-", color=RED, label="a wrong answer")
    right.axhline(0, color=GREY, lw=1)
    right.set(
        title="The rarer, the louder",
        xlabel=f"right answers in a group of {size}",
        ylabel="advantage",
    )
    right.legend()
    for axes in (left, right):
        axes.set_xticks(range(size + 1))


def clipped_gain(clip: float = 0.2) -> None:
    """GRPO's gain of a token against the ratio, for a good and for a bad answer."""
    ratio = np.linspace(0.4, 1.6, 200)
    _, panels = plt.subplots(1, 2, figsize=(10, 3), sharey=True)
    for axes, advantage, title in zip(
        panels, (1, -1), ("Better than the group: A = 1", "Worse: A = −1"), strict=True
    ):
        clamped = np.clip(ratio, 1 - clip, 1 + clip) * advantage
        axes.plot(ratio, ratio * advantage, color=GREY, lw=1, ls="--", label="ratio · A")
        axes.plot(ratio, np.minimum(ratio * advantage, clamped), color=BLUE, label="gain")
        axes.axvspan(1 - clip, 1 + clip, color=PALE, zorder=0)
        axes.plot([1], [advantage], "o", color=INK, ms=5)
        axes.set(title=title, xlabel="ratio: new probability / old")
    panels[0].set_ylabel("gain")
    panels[0].legend()


def kl_estimates(draws: int = 20_000) -> None:
    """Two estimates of one KL divergence from samples: the plain one, and the one called k3."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(draws, generator=generator) + 0.3
    log_p, log_q = -((x - 0.3) ** 2) / 2, -(x**2) / 2
    exact = 0.3**2 / 2
    estimates = {"log p − log q": log_p - log_q, "k3": kl_estimate(log_p, log_q)}
    _, axes = plt.subplots(figsize=(7, 2.8))
    for (name, values), colour in zip(estimates.items(), (GREY, BLUE), strict=True):
        label = f"{name}: mean {values.mean():.3f}, spread {values.std():.3f}"
        axes.hist(
            values, bins=np.linspace(-1, 1, 80).tolist(), color=colour, alpha=0.75, label=label
        )
    axes.axvline(exact, color=ORANGE, label=f"the KL divergence: {exact:.3f}")
    axes.set(title="The same mean, and k3 is never negative", xlabel="estimate from one draw")
    axes.set(ylabel="draws", yscale="log")
    axes.legend()


def reward_curves(
    rollouts: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, float]], before: float
) -> None:
    """Mean reward of what the policy tries, its KL to the reference, and the exam.

    Args:
        before: exact match of the reference, 0 to 1.
    """
    _, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.2))
    steps = [line["step"] for line in rollouts]
    rewards = [line["reward"] for line in rollouts]
    left.plot(steps, rewards, color=GREY, lw=0.8, alpha=0.8)
    left.plot(steps, smooth(rewards, 5), color=BLUE)
    left.set(title="Reward of its own answers", ylabel="mean mark", ylim=(0, 1.02))
    measured = [row for row in rows if "val_loss" in row]
    at = [0, *(row["step"] for row in measured)]
    middle.plot(at, [0.0, *(row["val_kl"] for row in measured)], "o-", ms=4, color=ORANGE)
    middle.set(title="Distance from the reference", ylabel="KL, nats per answer", ylim=(0, None))
    shares = [100 * before, *(100 * row["val_exact_match"] for row in measured)]
    right.plot(at, shares, "o-", ms=4, color=GREEN)
    right.set(title="Held-out sums", ylabel="% right", ylim=(0, 101))
    for axes in (left, middle, right):
        axes.set_xlabel("step")


def before_and_after(scores: Mapping[str, tuple[float, float]], kl: Mapping[str, float]) -> None:
    """Exact match before and after, with the KL that it cost.

    Args:
        scores: by name, two shares, 0 to 1.
        kl: by name, nats per answer.
    """
    _, axes = plt.subplots(figsize=(7, 0.62 * len(scores) + 1.2))
    names = list(scores)
    for row, name in enumerate(names):
        before, after = (100 * share for share in scores[name])
        axes.plot([before, after], [row, row], color=GREY, lw=2, zorder=1)
        axes.plot(before, row, "o", color=GREY, ms=9, label="before" if row == 0 else None)
        axes.plot(after, row, "o", color=BLUE, ms=9, label="after" if row == 0 else None)
        axes.text(103, row, f"KL {kl[name]:.2f}", va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.set(title="Held-out tasks", xlabel="% right", xlim=(0, 101), ylim=(len(names) - 0.5, -0.5))
    axes.legend(loc="upper right")


def soft_targets(
    logits: Float[Tensor, "vocab"], names: Sequence[str], temperatures: Sequence[float], title: str
) -> None:
    """A teacher's distribution over the likeliest tokens, at several temperatures."""
    shown = logits.topk(min(10, len(logits))).indices.sort().values
    figure, panels = plt.subplots(
        1, len(temperatures), figsize=(3.4 * len(temperatures), 2.6), sharey=True
    )
    for axes, temperature in zip(np.atleast_1d(panels), temperatures, strict=True):
        shares = 100 * (logits / temperature).softmax(-1)[shown]
        axes.bar(range(len(shown)), shares, color=BLUE)
        axes.set_xticks(range(len(shown)), [names[i] for i in shown.tolist()])
        axes.set(title=f"T = {temperature:g}", ylim=(0, 105))
        axes.grid(axis="x", visible=False)
    np.atleast_1d(panels)[0].set_ylabel("%")
    figure.suptitle(title, fontsize=11, fontweight="bold", color=INK, x=0.01, ha="left")


def two_directions() -> None:
    """A narrow student fitted to a teacher with two peaks, by forward and by reverse KL."""
    x = torch.linspace(-6, 6, 241)
    teacher = torch.exp(-((x + 2) ** 2) / 0.8) + 0.7 * torch.exp(-((x - 2) ** 2) / 0.8)
    teacher = teacher / teacher.sum() + 1e-12
    means, widths = torch.linspace(-3, 3, 61), torch.linspace(0.4, 3, 40)
    squares = (x - means[:, None, None]) ** 2 / (2 * widths[None, :, None] ** 2)
    students = (-squares).softmax(dim=-1) + 1e-12
    gap = students.log() - teacher.log()
    costs = {
        "forward: covers both": (-teacher * gap).sum(-1),
        "reverse: picks one": (students * gap).sum(-1),
    }
    _, panels = plt.subplots(1, 2, figsize=(10, 2.6), sharey=True)
    for axes, (name, cost) in zip(panels, costs.items(), strict=True):
        mean, width = np.unravel_index(int(cost.argmin()), tuple(cost.shape))
        axes.fill_between(x, teacher, color=PALE)
        axes.plot(x, teacher, color=GREY, lw=1, label="teacher")
        axes.plot(x, students[mean, width], color=BLUE, label="best student")
        axes.set(title=name.capitalize(), yticks=[])
    panels[0].legend()


def compare(
    runs: Mapping[str, Sequence[Mapping[str, float]]], *, title: str, axes: Axes | None = None
) -> None:
    """Exact match of several runs over their steps."""
    axes = axes or plt.subplots(figsize=(6.5, 3.2))[1]
    for (name, rows), colour in zip(runs.items(), COLOURS, strict=False):
        measured = [row for row in rows if "val_exact_match" in row]
        shares = [100 * row["val_exact_match"] for row in measured]
        axes.plot([row["step"] for row in measured], shares, "o-", ms=4, color=colour, label=name)
    axes.set(title=title, xlabel="step", ylabel="% of held-out sums right", ylim=(0, None))
    axes.legend(loc="upper left")
