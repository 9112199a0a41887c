"""Serve a model over HTTP with OpenAI's API, and with a chat page at its address.

    python labs/serve.py sft-nano                     # your run; then open http://127.0.0.1:8000
    python labs/serve.py lora-smollm2 --precision bf16
    COURSE_API_KEY=… python labs/serve.py sft-nano --host 0.0.0.0

    from openai import OpenAI
    client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    client.chat.completions.create(model="sft-nano", messages=[{"role": "user", "content": "Hi"}])

The server answers many requests at once, in one batch. Ctrl-C or SIGTERM stops the server; it first
finishes the answers in progress, for ten seconds at most.
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
        name: The model's name in the API; by default the value of `model`.
        host: The address to listen on: 127.0.0.1 accepts only this machine, 0.0.0.0 accepts every
            machine and needs an API key.
        port: The port to listen on; 0 takes a free one.
        api_key: The key that clients must send. Set the variable COURSE_API_KEY instead where other
            users can list this machine's processes.
        slots: The number of answers that are generated at the same time.
        queue: The number of requests that may wait for a slot; further ones are refused.
        context: The maximum length of prompt and answer together, in tokens; by default the model's
            context length, up to 2048.
        budget: The maximum number of tokens in one forward pass; a longer prompt is prefilled in
            chunks.
        precision: The number format; bf16 is about twice as fast where the hardware supports it. In
            fp32, other requests in the batch change an answer only in very rare cases.
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
