"""Pretrain the nano model in one visible loop: no Trainer, no accelerate, one process.

    python labs/pretrain_plain.py                         a million parameters, 600 steps
    python labs/pretrain_plain.py --steps 100 --data shakespeare

Read this file first. `labs/pretrain.py` takes the same steps (a test compares their losses in
fp32) and adds what a long run needs: checkpoints, mixed precision, several processes, tracking.
"""

import argparse
import time
from dataclasses import replace

import torch
import torch.nn.functional as F

from course_utils.base.errors import CourseError
from course_utils.models.gpt import GPT, PRESETS
from course_utils.training.parts.muon import make_optimizer
from course_utils.training.parts.schedule import warmup_cosine
from course_utils.training.storage.rng import seed_everything
from course_utils.training.tasks.corpora import text_corpus, tokenizer_for
from course_utils.training.tasks.language import CorpusTask


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Pretrain a tiny GPT in one visible loop.")
    parser.add_argument("--data", default="wiki", help="text set by name or path")
    parser.add_argument("--vocab", type=int, default=2048, help="size of the vocabulary")
    parser.add_argument("--n-layers", type=int, default=PRESETS["nano"].n_layers, help="blocks")
    parser.add_argument("--context", type=int, default=256, help="tokens in a row")
    parser.add_argument("--batch-size", type=int, default=16, help="rows in an optimizer step")
    parser.add_argument("--accumulation", type=int, default=1, help="micro-batches in a step")
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate of AdamW")
    parser.add_argument("--lr-muon", type=float, default=0.02, help="peak learning rate of Muon")
    parser.add_argument("--clip", type=float, default=1.0, help="largest norm of the gradient")
    parser.add_argument("--evaluations", type=int, default=10, help="evaluations in the run")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the data order")
    return parser.parse_args(argv)


@torch.no_grad()
def evaluate(model: GPT, task: CorpusTask) -> float:
    """Mean loss per token, in nats, over rows spread evenly over the held-out text."""
    model.eval()
    n = min(task.evaluation_rows, task.n_validation_rows)
    losses = []
    for which in (torch.arange(n) * task.n_validation_rows // n).split(8):
        rows = task.rows(task.validation, which, phase=0)
        logits = model(rows["tokens"])  # (rows, seq, vocab)
        losses.append(F.cross_entropy(logits.mT, rows["targets"], reduction="none").flatten())
    model.train()
    return torch.cat(losses).mean().item()


def train(argv: list[str] | None = None) -> list[float]:
    """Train a GPT; returns the training loss of each step."""
    a = parse_arguments(argv)

    # Data: one long stream of tokens. Row i of an epoch starts at token i * context.
    tokenizer = tokenizer_for(a.data, a.vocab)
    corpus = text_corpus(a.data, tokenizer)
    task = CorpusTask(
        train=corpus.train,
        validation=corpus.validation,
        context=a.context,
        batch_size=a.batch_size,
        seed=a.seed,
    )

    seed_everything(a.seed)
    shape = {"vocab": tokenizer.vocab_size, "context": a.context, "n_layers": a.n_layers}
    model = GPT(replace(PRESETS["nano"], **shape))
    optimizer = make_optimizer(
        model, "muon", lr=a.lr, lr_muon=a.lr_muon, weight_decay=0.1, beta2=0.95
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")

    losses, start = [], time.perf_counter()
    for step in range(a.steps):
        # Each loss is a sum over tokens. Divided by the tokens of the whole batch, the gradients
        # of the micro-batches add up to the gradient of the mean loss.
        total = 0.0
        for part in range(a.accumulation):
            rows = task.batch(step, part, a.accumulation)
            loss = model(rows["tokens"], targets=rows["targets"]) / (a.batch_size * a.context)
            loss.backward()
            total += loss.item()

        torch.nn.utils.clip_grad_norm_(model.parameters(), a.clip)
        factor = warmup_cosine(step, warmup=round(0.05 * a.steps), total=a.steps)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)

        if (step + 1) % max(1, a.steps // a.evaluations) == 0 or step + 1 == a.steps:
            seconds = time.perf_counter() - start
            held_out = evaluate(model, task)
            print(f"step {step + 1:4}  loss {total:.4f}  held-out {held_out:.4f}  {seconds:.0f} s")
    return losses


if __name__ == "__main__":
    try:
        train()
    except CourseError as error:
        raise SystemExit(str(error)) from None
