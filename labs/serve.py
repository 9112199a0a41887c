"""Serve a model over HTTP, as OpenAI's API: to programs, and at its address to people.

    python labs/serve.py sft-nano                     # your run; then open http://127.0.0.1:8000
    python labs/serve.py lora-smollm2 --precision bf16
    COURSE_API_KEY=… python labs/serve.py sft-nano --host 0.0.0.0

    from openai import OpenAI
    client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    client.chat.completions.create(model="sft-nano", messages=[{"role": "user", "content": "Hi"}])

Many may ask at once: their answers are written together. Ctrl-C or SIGTERM ends it; answers that
are being written are finished first, for ten seconds at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro

from course_utils.serving.app import make_app
from course_utils.serving.engine import Engine
from course_utils.serving.model import load_speaker
from course_utils.serving.server import address, chosen_key, listen, run_until_stopped
from course_utils.training.lab.recipes import run_lab

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Serve a model.

    Attributes:
        model: A run's name, its folder, the folder of an exported model, or smollm2-135m.
        name: What clients call it; by default as here.
        host: 127.0.0.1 is this machine alone; 0.0.0.0 is everybody, and needs an API key.
        port: 0 takes one that is free.
        api_key: What clients must know; COURSE_API_KEY is better, for others cannot read it in
            the list of processes.
        slots: Answers that are written at the same time.
        queue: Requests that may wait for a slot; more are refused.
        context: Longest prompt and answer together; by default the model's, up to 2048.
        budget: Tokens that are computed at once at most; a long prompt is read in pieces.
        precision: bf16 is about twice as fast where the machine computes in it. With fp32, what
            else is being written changes an answer in the rarest cases only.
    """

    model: Annotated[str, tyro.conf.Positional] = "sft-nano"
    name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    slots: int = 16
    queue: int = 64
    context: int | None = None
    budget: int = 256
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"


def main(argv: Sequence[str]) -> None:
    config = tyro.cli(ServeConfig, args=list(argv), description=__doc__)
    key = chosen_key(config.api_key, config.host)
    listening = listen(config.host, config.port)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    speaker = load_speaker(
        config.model, dtype=DTYPES[config.precision], device=device, name=config.name
    )
    context = config.context or min(speaker.model.config.context, 2048)
    engine = Engine(
        speaker,
        n_slots=config.slots,
        capacity=context,
        budget=config.budget,
        queue=config.queue,
    )
    with engine:
        print(f"{speaker.name} is at {address(listening)} (Ctrl-C ends it).", flush=True)
        run_until_stopped(make_app(engine, key), listening)
    print("Stopped.")


if __name__ == "__main__":
    run_lab(main)
