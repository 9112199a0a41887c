"""The server under load: tokens per second and time to the first token, at minimind's 26M shape.

    python benchmarks/serving.py              1, 4 and 16 clients, and results/serving-….json
    python benchmarks/serving.py --quick      fewer requests, written nowhere
    python benchmarks/serving.py --soak 10    ten minutes of mixed traffic, and results/soak-….json

The server is a process of its own; its clients are the openai package, in another, over loopback.
Each client sends its next request as soon as it has the answer to the last one: prompts of 16 to
128 tokens, answers of 64 to 192, greedy. The figures are of three rounds together.

The soak has 24 clients for the 16 slots, who stream or do not, go away in the middle of an answer,
and ask for what does not exist. A request has failed when its answer is not what it must be.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain
from multiprocessing.connection import Connection
from typing import Any
from urllib.request import urlopen

import openai
import torch
from measuring import Record, machine, model_that_varies
from openai import AsyncOpenAI

from course_utils.generation.fused import FusedGPT
from course_utils.models.gpt import PRESETS
from course_utils.serving.app import make_app
from course_utils.serving.engine import Engine
from course_utils.serving.latency import percentile
from course_utils.serving.model import Speaker
from course_utils.serving.server import address, listen, run_until_stopped
from course_utils.tokenizer.fast import FastBPE

CONFIG = PRESETS["minimind-26m"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CLIENTS = (1, 4, 16)
SLOTS = 16


def two_letter_tokenizer() -> FastBPE:
    """As many tokens as the model has, without the hours of training one: pairs of letters."""
    letters = [bytes([code]) for code in range(33, 127)]
    pairs = [(first, second) for first in letters for second in letters]
    return FastBPE.from_merges(pairs[: CONFIG.vocab - 256])


def serve(dtype: str, announce: Connection) -> None:
    """The server's process."""
    model = model_that_varies(CONFIG)
    speaker = Speaker("26m", FusedGPT(model, DTYPES[dtype]), two_letter_tokenizer(), chats=False)
    listening = listen("127.0.0.1", 0)
    with Engine(speaker, n_slots=SLOTS, capacity=512) as engine:
        announce.send(address(listening))
        run_until_stopped(make_app(engine), listening)


@contextlib.contextmanager
def server(dtype: str) -> Iterator[str]:
    """The address of a server that runs while the block does."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(dtype, there))
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


def client_of(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300)


async def ask(client: AsyncOpenAI, dice: random.Random) -> tuple[float, int]:
    """One streamed answer: seconds to its first token, and its tokens."""
    began, first, written = time.perf_counter(), None, 0
    prompt = [dice.randrange(CONFIG.vocab) for _ in range(dice.randint(16, 128))]
    stream = await client.completions.create(
        model="26m",
        prompt=prompt,
        max_tokens=dice.randint(64, 192),
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    async for chunk in stream:
        if first is None:
            first = time.perf_counter() - began
        if chunk.usage:
            written = chunk.usage.completion_tokens
    assert first is not None and written >= 64
    return first, written


async def load(url: str, clients: int, requests: int) -> dict[str, Any]:
    """What so many clients get, who send so many requests each."""
    async with client_of(url) as client:

        async def one(number: int) -> list[tuple[float, int]]:
            dice = random.Random(number)
            return [await ask(client, dice) for _ in range(requests)]

        await ask(client, random.Random(-1))  # warms up
        began = time.perf_counter()
        answers = [*chain(*await asyncio.gather(*map(one, range(clients))))]
        seconds = time.perf_counter() - began
    firsts = [first for first, _ in answers]
    return {
        "requests": len(answers),
        "tokens": sum(written for _, written in answers),
        "seconds": seconds,
        "first_token_s": firsts,
    }


def measure(dtype: str, clients: int, requests: int) -> dict[str, Any]:
    with server(dtype) as url:
        return asyncio.run(load(url, clients, requests))


async def disturb(client: AsyncOpenAI, number: int, until: float, tally: Counter[str]) -> None:
    """A client of the soak, with habits of its own."""
    dice = random.Random(number)
    while time.perf_counter() < until:
        kind = dice.choices(["stream", "whole", "leaves", "wrong"], [50, 35, 10, 5])[0]
        asked: dict[str, Any] = {
            "model": "26m",
            "prompt": [dice.randrange(CONFIG.vocab) for _ in range(dice.randint(1, 300))],
            "max_tokens": dice.randint(1, 200),
            "temperature": dice.choice([0.0, 0.7, 1.2]),
            "seed": dice.randrange(100),
            "stop": dice.choice([None, ["ab"], ["!!", "xyz"]]),
        }
        tally[kind] += 1
        try:
            if kind == "whole":
                done = await client.completions.create(**asked)
                good = done.choices[0].finish_reason in ("stop", "length")
                good &= bool(done.usage) and done.usage.completion_tokens <= asked["max_tokens"]
            elif kind == "wrong":
                good = await refused(client, asked | {"temperature": -1})
            else:
                good = await streamed(client, asked, leave=kind == "leaves")
            tally["failed"] += not good
        except Exception as error:  # whatever it is, it is what the soak looks for
            tally["failed"] += 1
            print(f"{kind}: {type(error).__name__}: {error}", flush=True)


async def refused(client: AsyncOpenAI, asked: dict[str, Any]) -> bool:
    try:
        await client.completions.create(**asked)
    except openai.BadRequestError:
        return True
    return False


async def streamed(client: AsyncOpenAI, asked: dict[str, Any], leave: bool) -> bool:
    stream = await client.completions.create(**asked, stream=True)
    finish = None
    async with stream:
        async for chunk in stream:
            if leave:
                return True
            finish = chunk.choices[0].finish_reason
    return finish in ("stop", "length")


async def soak(url: str, minutes: float) -> dict[str, Any]:
    until, tally = time.perf_counter() + 60 * minutes, Counter[str]()
    async with client_of(url) as client:
        await asyncio.gather(*(disturb(client, number, until, tally) for number in range(24)))
    lost = -1
    for _ in range(100):  # who left a moment ago may not be gone yet
        with urlopen(f"{url}/health") as answer:
            health = json.load(answer)
        lost = health["running"] + health["waiting"]
        if not lost:
            break
        time.sleep(0.1)
    requests = sum(tally[kind] for kind in ("stream", "whole", "leaves", "wrong"))
    return {
        "minutes": minutes,
        "requests": requests,
        "kinds": dict(tally),
        "failed": tally["failed"],
        "slots_lost": lost,
    }


def soaked(minutes: float) -> dict[str, Any]:
    with server("float32") as url:
        return asyncio.run(soak(url, minutes))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less of it; nothing is written")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="mixed traffic for so long")
    options = parser.parse_args()
    if options.soak:
        record = Record("soak", keep=not options.quick)
        found = record("soak", partial(soaked, options.soak))
        print(f"{found['requests']} requests in {found['minutes']} minutes: {found['kinds']}")
        print(f"{found['failed']} failed, {found['slots_lost']} slots were not given back.")
        record.finish(machine("fastapi", "uvicorn", "openai"), **found)
        return
    record = Record("serving", keep=not options.quick)
    requests = 1 if options.quick else 8
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for dtype in DTYPES:
        rows[dtype] = {}
        for clients in CLIENTS:
            key = f"{dtype}, {clients} clients"
            found = record(key, partial(measure, dtype, clients, requests))
            rows[dtype][str(clients)] = {
                "tokens_per_s": found["tokens"] / found["seconds"],
                "p95_first_token_s": percentile(found["first_token_s"], 95),
            }
    for dtype, by_clients in rows.items():
        alone = by_clients["1"]["tokens_per_s"]
        for clients, row in by_clients.items():
            print(
                f"{dtype}, {clients:>2} clients: {row['tokens_per_s']:7.1f} tokens/s "
                f"({row['tokens_per_s'] / alone:4.2f} times one), first token "
                f"{1000 * row['p95_first_token_s']:6.0f} ms (p95)"
            )
    record.finish(machine("fastapi", "uvicorn", "openai"), requests=requests, rows=rows)


if __name__ == "__main__":
    main()
