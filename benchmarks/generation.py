"""Tokens per second in generation, at minimind's 26M shape, beside transformers' `generate`.

    python benchmarks/generation.py            five rounds, and results/generation-….json
    python benchmarks/generation.py --quick    one round, written nowhere

Greedy, 256 new tokens after prompts of 16, one and eight at a time, the same weights on all sides:
in float32, where all must write the same tokens, and in bfloat16. "Joined" is `FusedGPT`, the model
as the labs use it for writing. Without a cache, the whole text is read again for every token. All
sides take turns; the figures are medians over rounds.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measuring import Record, machine, model_that_varies, quick_option

from course_utils.exchange.hf import to_hf
from course_utils.generation.engine import generate
from course_utils.generation.fused import FusedGPT
from course_utils.models.gpt import GPT, PRESETS

CONFIG = PRESETS["minimind-26m"]
PROMPT, NEW = 16, 256
THEIRS, OURS, JOINED, UNCACHED = "transformers", "ours", "ours, joined", "ours, without a cache"
Prompts = list[list[int]]


def by_transformers(model: Any, prompts: Prompts) -> Prompts:
    tokens = torch.tensor(prompts)
    model.generation_config.eos_token_id = None
    whole = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=NEW,
        do_sample=False,
        pad_token_id=0,
    )
    return whole[:, PROMPT:].tolist()


def with_cache(model: GPT, prompts: Prompts) -> Prompts:
    return generate(model, prompts, max_new_tokens=NEW)


@torch.inference_mode()
def without_cache(model: GPT, prompts: Prompts) -> Prompts:
    tokens = torch.tensor(prompts)
    for _ in range(NEW):
        chosen = model.output(model.features(tokens)[:, -1]).argmax(-1)
        tokens = torch.cat((tokens, chosen[:, None]), dim=1)
    return tokens[:, PROMPT:].tolist()


def sides(dtype: str) -> dict[str, Callable[[Prompts], Prompts]]:
    model = model_that_varies(CONFIG).to(getattr(torch, dtype))
    return {
        THEIRS: partial(by_transformers, to_hf(model)),
        OURS: partial(with_cache, model),
        JOINED: partial(with_cache, FusedGPT(model)),
        UNCACHED: partial(without_cache, model),
    }


def measure(dtype: str, batch: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of every side in every round."""
    generator = torch.Generator().manual_seed(batch)
    prompts = torch.randint(CONFIG.vocab, (batch, PROMPT), generator=generator).tolist()
    ways = sides(dtype)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    written: dict[str, Prompts] = {}
    for turn in range(rounds + 1):  # the first warms up
        for way, write in ways.items():
            if way == UNCACHED and (turn > 0 or batch > 1 or dtype != "float32"):
                continue  # it takes as long as all the others together
            began = time.perf_counter()
            written[way] = write(prompts)
            if turn or way == UNCACHED:
                seconds[way].append(time.perf_counter() - began)
    if dtype == "float32":
        assert all(text == written[THEIRS] for text in written.values()), "other tokens"
    return {way: times for way, times in seconds.items() if times}


def main() -> None:
    quick = quick_option(__doc__)
    record = Record("generation", keep=not quick)
    rates: dict[str, dict[str, float]] = {}
    found: dict[str, dict[str, list[float]]] = {}
    for dtype in ("float32", "bfloat16"):
        for batch in (1, 8):
            key = f"{dtype}, batch {batch}"
            found[key] = record(key, partial(measure, dtype, batch, 1 if quick else 5))
            rates[key] = {
                way: batch * NEW / statistics.median(times) for way, times in found[key].items()
            }
    about = machine("transformers")
    print(f"{about['processor']}, {about['threads']} threads, {NEW} new tokens each, tokens/s")
    for key, by_way in rates.items():
        for way, rate in by_way.items():
            print(f"{key:18} {way:24} {rate:8.1f}  {rate / by_way[THEIRS]:5.2f} times transformers")
    cached = rates["float32, batch 1"]
    speed_up = cached[JOINED] / cached[UNCACHED]
    print(f"With the cache {speed_up:.1f} times as fast as without.")
    record.finish(about, tokens_per_s=rates, cache_speed_up=speed_up, seconds=found)


if __name__ == "__main__":
    main()
