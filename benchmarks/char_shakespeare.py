"""How fast a small GPT learns Shakespeare letter by letter, beside nanoGPT's recipe for a CPU.

    python benchmarks/char_shakespeare.py            three seeds, and results/char-….json
    python benchmarks/char_shakespeare.py --quick    one seed, written nowhere

Both models have 4 layers, are 128 wide, have 4 heads and see 64 characters. The recipe (nanoGPT's
README, "I only have a macbook"; its model is GPT-2's) takes 2000 steps of 12 rows with AdamW. Ours
is the course's GPT under the course's trainer, with Muon and AdamW, bf16 and batches of 32; its
steps are as many as fit into a share of the recipe's time, at the pace of a trial run; a run that
took longer is done again with fewer.

The set is like tiny-shakespeare: the first 1,115,394 characters of the plays, the last tenth held
out. Both are measured on all of that, in rows of 64, with the clock stopped. A benchmark that was
stopped goes on where it was. Run it on a quiet machine: both sides use all cores.
"""

import json
import math
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from measuring import Record, machine, quick_option
from torch import Tensor, nn

from course_utils.data.corpus import Split
from course_utils.data.text import load_documents
from course_utils.models.autocast import native_precision
from course_utils.models.gpt import GPT, GPTConfig
from course_utils.training.config import TrainConfig
from course_utils.training.loop.trainer import Trainer
from course_utils.training.parts.muon import make_optimizer
from course_utils.training.parts.schedule import warmup_cosine
from course_utils.training.tasks.language import CorpusTask

CHARACTERS, CONTEXT = 1_115_394, 64
RECIPE_STEPS = 2000
# The share of the recipe's time to aim at, and the most.
SHARES = {"ours, a fifth of the time": (0.2, 0.25), "ours, the same time": (0.97, 1.0)}
PACE_STEPS, TRIES = 60, 4
BATCH = 32
OPTIMIZER = {"lr": 0.01, "lr_muon": 0.02, "weight_decay": 0.0, "beta2": 0.95, "momentum": 0.9}


def characters() -> tuple[Split, Split, int]:
    """The two sides of the set, and how many different characters it has."""
    text = "\n\n".join(load_documents("shakespeare"))[:CHARACTERS]
    alphabet = sorted(set(text))
    number = {character: i for i, character in enumerate(alphabet)}
    tokens = np.array([number[character] for character in text], dtype=np.uint16)
    sides = np.split(tokens, [len(tokens) * 9 // 10])
    train, validation = (Split(side, np.array([0, len(side)])) for side in sides)
    return train, validation, len(alphabet)


def task(seed: int) -> CorpusTask:
    train, validation, _ = characters()
    return CorpusTask(
        train=train,
        validation=validation,
        context=CONTEXT,
        batch_size=BATCH,
        seed=seed,
        evaluation_rows=len(validation.tokens) // CONTEXT,
    )


# --- nanoGPT's recipe, on plain PyTorch -------------------------------------------------------


class GPT2(nn.Module):
    """Learned positions, LayerNorm, GELU, no biases, the output layer tied to the embedding."""

    def __init__(self, vocab: int, width: int = 128, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.tokens = nn.Embedding(vocab, width)
        self.positions = nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(width, bias=False),
                    "qkv": nn.Linear(width, 3 * width, bias=False),
                    "out": nn.Linear(width, width, bias=False),
                    "norm2": nn.LayerNorm(width, bias=False),
                    "up": nn.Linear(width, 4 * width, bias=False),
                    "down": nn.Linear(4 * width, width, bias=False),
                }
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                writes = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if writes else 0.02)

    def forward(self, tokens: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        batch, seq = tokens.shape
        x = self.tokens(tokens) + self.positions.weight[:seq]
        for block in self.blocks:
            qkv = block["qkv"](block["norm1"](x)).view(batch, seq, 3, self.heads, -1)
            query, key, value = qkv.permute(2, 0, 3, 1, 4)
            heads = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + block["out"](heads.transpose(1, 2).reshape(batch, seq, -1))
            x = x + block["down"](F.gelu(block["up"](block["norm2"](x))))
        return self.norm(x) @ self.tokens.weight.T


def by_recipe(seed: int) -> dict[str, float]:
    """2000 steps: 12 rows from anywhere, AdamW, 100 steps of warm-up, a cosine to a tenth."""
    torch.manual_seed(seed)
    train, _, vocab = characters()
    text = torch.from_numpy(train.tokens.astype(np.int64))
    model = GPT2(vocab)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=1e-3,
        betas=(0.9, 0.99),
    )
    began = time.perf_counter()
    for step in range(RECIPE_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * warmup_cosine(step, 100, RECIPE_STEPS, floor=0.1)
        starts = torch.randint(len(text) - CONTEXT, (12,)).tolist()
        tokens = torch.stack([text[i : i + CONTEXT] for i in starts])
        targets = torch.stack([text[i + 1 : i + 1 + CONTEXT] for i in starts])
        loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    seconds = time.perf_counter() - began
    with torch.no_grad():
        val_loss = task(seed).evaluate(model)["val_loss"]
    return {"seconds": seconds, "val_loss": val_loss, "steps": RECIPE_STEPS}


# --- the course's -----------------------------------------------------------------------------


def by_trainer(seed: int, steps: int) -> dict[str, Any]:
    """The course's GPT, with no more parameters than GPT-2's, under the course's trainer."""
    config = GPTConfig(
        vocab=characters()[2], d_model=128, n_layers=4, n_heads=4, n_kv_heads=4, head_dim=32,
        d_ff=320, context=CONTEXT, rope_theta=1e4,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = GPT(config)
    with tempfile.TemporaryDirectory() as folder:
        train_config = TrainConfig(
            name="run",
            steps=steps,
            batch_size=BATCH,
            precision=native_precision(torch.device("cpu")),
            seed=seed,
            progress="off",
            runs_dir=Path(folder),
        )
        summary = Trainer(
            model,
            make_optimizer(model, "muon", **OPTIMIZER),
            partial(warmup_cosine, warmup=steps // 50, total=steps),
            task(seed),
            train_config,
        ).train()
        lines = (summary.folder / "metrics.jsonl").read_text().splitlines()
    times = {row["step"]: row["elapsed_s"] for row in map(json.loads, lines)}
    return {
        "seconds": summary.elapsed_s,
        "val_loss": summary.metrics["val_loss"],
        "steps": steps,
        # The first steps warm up.
        "seconds_per_step": (times[steps] - times[20]) / (steps - 20),
    }


def within(record: Record, name: str, seed: int, pace: float, aim: float, most: float) -> Any:
    """A run of about `aim` seconds, and no more than `most`; `pace` is in seconds per step."""
    for tried in range(TRIES):
        again = f" ({tried + 1})" if tried else ""
        run = record(name + again, partial(by_trainer, seed, int(aim / pace)))
        if run["seconds"] <= most:
            return run
        pace = run["seconds"] / run["steps"]
    raise SystemExit("This machine is too noisy for a fair comparison: try again when it is quiet.")


def main() -> None:
    quick = quick_option(__doc__)
    seeds = [0] if quick else [0, 1, 2]
    record = Record("char-shakespeare", keep=not quick)
    runs: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:  # all ways in turn, so that a busy minute strikes them all
        recipe = record(f"nanoGPT's recipe, seed {seed}", partial(by_recipe, seed))
        runs.setdefault("nanoGPT's recipe", []).append(recipe)
        pace = record(f"pace, seed {seed}", partial(by_trainer, seed, PACE_STEPS))
        for way, (aim, most) in SHARES.items():
            seconds = [share * recipe["seconds"] for share in (aim, most)]
            run = within(record, f"{way}, seed {seed}", seed, pace["seconds_per_step"], *seconds)
            runs.setdefault(way, []).append(run)

    about = machine("accelerate", "numpy")
    medians = {
        way: {name: statistics.median(run[name] for run in found) for name in found[0]}
        for way, found in runs.items()
    }
    print(f"{about['processor']}, {about['threads']} threads, medians of {len(seeds)} seed(s)")
    print("| | steps | seconds | held-out loss |\n|---|---|---|---|")
    for way, m in medians.items():
        print(f"| {way} | {m['steps']:.0f} | {m['seconds']:.1f} | {m['val_loss']:.3f} |")
    record.finish(about, seeds=seeds, medians=medians, runs=runs)


if __name__ == "__main__":
    main()
