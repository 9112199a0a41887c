"""A tiny model with random weights, which writes anything, quickly."""

from collections.abc import Sequence

import torch

from course_utils.data.chat import SPECIAL
from course_utils.generation.fused import FusedGPT
from course_utils.models.gpt import GPT, GPTConfig
from course_utils.serving.model import Speaker
from course_utils.tokenizer.fast import FastBPE

TEXT = "the cat sat on the mat, and the dog said 你好 to é and ü " * 20


def make_model(context: int = 96, special: Sequence[str] = SPECIAL) -> tuple[GPT, FastBPE]:
    tokenizer = FastBPE.train([TEXT], 287 + len(special), special)
    config = GPTConfig(
        vocab=tokenizer.vocab_size, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8,
        d_ff=48, context=context,
    )  # fmt: skip
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3) if parameter.ndim > 1 else parameter.uniform_(0.5, 1.5)
    return model, tokenizer


def make_speaker(context: int = 96, special: Sequence[str] = SPECIAL) -> Speaker:
    model, tokenizer = make_model(context, special)
    return Speaker("tiny", FusedGPT(model), tokenizer, chats=bool(special))
