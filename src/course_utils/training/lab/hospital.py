"""A hospital for training runs: each patient is a run with one defect, shown by its metrics.

    python -m course_utils.training.lab.hospital            trains all, writes grading/hospital.json
    python -m course_utils.training.lab.hospital no_warmup  trains one, prints its metrics

All patients are the same tiny GPT on the same artificial language, trained by the same loop. Each
defect is real: a wrong setting, or a wrong line of the loop that `Treatment` selects. The metrics
are the recorded result.

The language: a document is two names, each followed by the word that belongs to it, and a sign.
The words are certain, the names any two of the eight of a dialect, the sign any of sixteen. As in
texts from the web, near neighbors are copies of each other: a row is six times one document.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from course_utils.base.durable import write_whole
from course_utils.base.ignored import IGNORED
from course_utils.base.paths import course_root
from course_utils.models.gpt import GPT, GPTConfig
from course_utils.training.parts.clip import clip_grad_norm
from course_utils.training.parts.loss_scale import LossScaler
from course_utils.training.parts.schedule import warmup_cosine

STEPS, BATCH, PARTS, EVALUATE_EVERY = 60, 16, 4, 6
DIALECTS, NAMES, SIGNS, DOCUMENTS, LENGTH = 4, 8, 16, 6, 5
HELD_OUT = 32
ALL_NAMES = DIALECTS * NAMES
VOCAB = 2 * ALL_NAMES + SIGNS  # a word for each name
SEQ = DOCUMENTS * LENGTH
SHAPE = GPTConfig(
    vocab=VOCAB, d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=16, d_ff=64,
    context=SEQ, dropout=0.1,
)  # fmt: skip

# Of each step: loss, grad_norm, lr, and in fp16 loss_scale. Of each evaluation: eval_step,
# val_loss, val_again (the same rows measured a second time).
Metrics = dict[str, list[float]]


@dataclass(frozen=True)
class Treatment:
    """How a patient is trained; the defaults are right.

    Attributes:
        fp16: compute in fp16 under autocast, with a loss scaler.
        lr, warmup: peak learning rate, and steps in which it rises.
        divide: divide the loss of a micro-batch by the number of micro-batches.
        shuffle: take the rows in random order, not as they are stored, dialect by dialect.
        shift: how many positions ahead the targets lie.
        mask: keep the documents of a row apart.
        evaluate: switch dropout off to measure.
        check: leave out steps whose gradients are not finite, as a loss scaler does.
        factor, interval: of the loss scaler.
        leash: add the distance of the weights from where they began to the loss.
    """

    fp16: bool = False
    lr: float = 0.05
    warmup: int = 10
    divide: bool = True
    shuffle: bool = True
    shift: int = 1
    mask: bool = True
    evaluate: bool = True
    check: bool = True
    factor: float = 2.0**16
    interval: int = 20
    leash: float = 0.0


CASES = {
    "healthy": Treatment(),
    "healthy_fp16": Treatment(fp16=True, factor=2.0**22),
    "fp16_overflow": Treatment(fp16=True, check=False, interval=3),
    "scale_collapse": Treatment(fp16=True, leash=1e-3),
    "scale_stuck": Treatment(fp16=True, factor=2.0**-16, interval=2000),
    "labels_shifted_twice": Treatment(shift=2),
    "documents_leak": Treatment(mask=False),
    "accumulation_not_divided": Treatment(divide=False),
    "no_warmup": Treatment(warmup=0, lr=0.6),
    "dropout_in_evaluation": Treatment(evaluate=False),
    "lr_too_small": Treatment(lr=1e-4),
    "lr_too_large": Treatment(lr=6.0),
    "not_shuffled": Treatment(shuffle=False),
}
SEEDS = (0, 1, 2)  # of each that are recorded: the first is shown in the lesson
RECORDED = "grading/hospital.json"


@dataclass(frozen=True)
class Rows:
    """Rows of documents; `targets` is the next token within the same document."""

    tokens: Int[Tensor, "rows seq"]
    targets: Int[Tensor, "rows seq"]
    documents: Int[Tensor, "rows seq"]

    def take(self, which: Tensor | slice) -> "Rows":
        return Rows(self.tokens[which], self.targets[which], self.documents[which])


def make_rows(n: int, shift: int, generator: torch.Generator) -> Rows:
    """Rows of the made-up language, stored dialect by dialect."""
    dialect = (torch.arange(n) * DIALECTS // n)[:, None]
    first, second = (
        torch.randint(NAMES, (n, 1), generator=generator) + dialect * NAMES for _ in "12"
    )
    sign = torch.randint(SIGNS, (n, 1), generator=generator) + 2 * ALL_NAMES
    tokens = torch.cat((first, first + ALL_NAMES, second, second + ALL_NAMES, sign), dim=1)
    tokens = tokens.repeat(1, DOCUMENTS)
    documents = (torch.arange(SEQ) // LENGTH).expand(n, SEQ)
    targets = torch.full_like(tokens, IGNORED)
    same = documents[:, shift:] == documents[:, :-shift]
    targets[:, :-shift] = torch.where(same, tokens[:, shift:], IGNORED)
    return Rows(tokens, targets, documents)


def train(treatment: Treatment, seed: int, steps: int = STEPS) -> Metrics:
    """Train a patient and return its metrics; deterministic for a seed on one machine."""
    generator = torch.Generator().manual_seed(seed)
    rows = make_rows(STEPS * BATCH, treatment.shift, generator)
    held_out = make_rows(HELD_OUT, 1, generator)
    if treatment.shuffle:
        rows = rows.take(torch.randperm(len(rows.tokens), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT(SHAPE).train()
        optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
        scaler = LossScaler(treatment.factor, interval=treatment.interval)
        start = [p.detach().clone() for p in model.parameters()]
        metrics: Metrics = {
            name: [] for name in ("loss", "grad_norm", "lr", "eval_step", "val_loss", "val_again")
        }
        if treatment.fp16:
            metrics["loss_scale"] = []
        for step in range(steps + 1):
            if step % EVALUATE_EVERY == 0:
                metrics["eval_step"].append(step)
                for name in ("val_loss", "val_again"):
                    metrics[name].append(measure(model, held_out, treatment))
            if step == steps:
                break
            lr = treatment.lr * warmup_cosine(step, warmup=treatment.warmup, total=STEPS, floor=0.1)
            optimizer.param_groups[0]["lr"] = lr
            metrics["lr"].append(lr)
            if treatment.fp16:
                metrics["loss_scale"].append(scaler.factor)
            batch = rows.take(slice(step * BATCH, (step + 1) * BATCH))
            loss = go_backward(model, batch, treatment, scaler, start)
            metrics["loss"].append(loss)
            metrics["grad_norm"].append(take_step(model, optimizer, treatment, scaler))
    return metrics


def loss_of(model: nn.Module, rows: Rows, treatment: Treatment, mask: bool) -> Tensor:
    """The mean loss of rows, in the treatment's precision."""
    with torch.autocast("cpu", torch.float16, enabled=treatment.fp16):
        documents = rows.documents if mask else None
        total = model(rows.tokens, targets=rows.targets, documents=documents)
    return total / (rows.targets != IGNORED).sum()


def go_backward(
    model: nn.Module,
    batch: Rows,
    treatment: Treatment,
    scaler: LossScaler,
    start: list[Tensor],
) -> float:
    """The gradient of a batch, micro-batch by micro-batch; returns the loss that is reported."""
    model.zero_grad()
    reported = 0.0
    for part in range(PARTS):
        micro = batch.take(slice(part * BATCH // PARTS, (part + 1) * BATCH // PARTS))
        loss = loss_of(model, micro, treatment, treatment.mask)
        if treatment.leash:
            moved = zip(model.parameters(), start, strict=True)
            square = torch.stack([((p - s) ** 2).sum() for p, s in moved]).sum()
            loss = loss + treatment.leash * square.sqrt()  # √ has no slope at 0
        if treatment.divide:
            loss = loss / PARTS
        (scaler.scale(loss) if treatment.fp16 else loss).backward()
        reported += loss.item()
    return reported


def take_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, treatment: Treatment, scaler: LossScaler
) -> float:
    """The update; returns the gradient's norm before clipping, NaN when it is not finite."""
    if not treatment.fp16:
        norm = clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        return norm.item()
    gradients = [p.grad / scaler.factor for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if treatment.check:
        scaler.step(optimizer, max_norm=1.0)
    else:
        scaler.unscale(optimizer)
        clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        scaler.good_steps += 1
        if scaler.good_steps % scaler.interval == 0:
            scaler.factor *= scaler.growth
    return norm.item() if norm.isfinite() else math.nan


@torch.no_grad()
def measure(model: nn.Module, rows: Rows, treatment: Treatment) -> float:
    """The mean loss on held-out rows, their documents apart."""
    model.train(not treatment.evaluate)
    loss = loss_of(model, rows, treatment, mask=True).item()
    model.train()
    return loss


# --- the records ----------------------------------------------------------------------------------


@cache
def recorded() -> dict[str, list[Metrics]]:
    """The recorded metrics of every case, one for each of SEEDS."""
    cases = json.loads((course_root() / RECORDED).read_text("utf-8"))["cases"]
    return {case: [_read(metrics) for metrics in runs] for case, runs in cases.items()}


def diagnosis_of(case: str) -> str:
    """What is wrong with the patients of a case: fp16 by itself is no illness."""
    return "healthy" if case.startswith("healthy") else case


def _read(metrics: Mapping[str, list[float | None]]) -> Metrics:
    return {
        name: [math.nan if value is None else value for value in values]
        for name, values in metrics.items()
    }


def _write(metrics: Metrics) -> dict[str, list[float | None]]:
    """JSON knows no NaN; four digits are more than a picture shows."""
    return {
        name: [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]
        for name, values in metrics.items()
    }


def _record_all() -> Iterator[tuple[str, list[dict[str, list[float | None]]]]]:
    for case, treatment in CASES.items():
        print(case, flush=True)
        yield case, [_write(train(treatment, seed)) for seed in SEEDS]


def main(arguments: list[str]) -> None:
    """Train the cases named and print their metrics; without a name, train all for the record."""
    torch.set_num_threads(1)  # the tensors are too small for two threads
    for case in arguments:
        if case not in CASES:
            raise SystemExit(f"There is no case {case!r}; there are {', '.join(CASES)}.")
        print(json.dumps({case: _write(train(CASES[case], SEEDS[0]))}))
    if not arguments:
        cases = dict(_record_all())
        record: dict[str, Any] = {
            "written_by": "python -m course_utils.training.lab.hospital",
            "seeds": SEEDS,
            "cases": cases,
        }
        text = json.dumps(record, separators=(",", ":")).replace('"cases":', '\n"cases":')
        write_whole(course_root() / RECORDED, text.replace("],", "],\n") + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
