"""Reading a model out of a GGUF file, llama.cpp's format: weights, shape and tokenizer in one file.

transformers reads the weights, unpacking the 4-bit blocks. What it makes of the tokenizer ignores
how the text is cut before merging (`tokenizer.ggml.pre`), so that is done here.
"""

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from course_utils.base.errors import CourseError
from course_utils.tokenizer.fast import FastBPE, cut_into_pieces

CONTROL = 3  # the type of a special token

# llama.cpp's names for ways to cut a text into words.
_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
_CUTS = {
    "gpt-2": _GPT2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT2]),
    "gpt-4o": cut_into_pieces(),  # what our own tokenizers do
}


def convert_gguf(file: Path, target: Path) -> None:
    """Write the model in a GGUF file as transformers would: float32 weights, configuration, tokens.

    Args:
        target: A folder that exists.

    Raises:
        CourseError: when the file is damaged, or of a kind that is not understood.
    """
    tokenizer = read_tokenizer(file)
    # Silence transformers' progress bar and the messages of the packages that it imports.
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        from transformers import AutoModelForCausalLM, GgufConfig

        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True)
        )
        model.save_pretrained(target)
    tokenizer.save(target / "tokenizer.json")


def read_tokenizer(file: Path) -> FastBPE:
    """The byte-level tokenizer in a GGUF file.

    Raises:
        CourseError: when there is none, or its way of cutting text is not known.
    """
    fields = _fields(file)
    kind, cut = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or cut not in _CUTS:
        raise CourseError(f"{file.name} has a tokenizer of kind {kind!r}, {cut!r}: not understood.")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = _CUTS[cut]
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, type_ in zip(tokens, types, strict=True) if type_ == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return FastBPE(tokenizer)


def _fields(file: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
    except (OSError, ValueError) as error:
        raise CourseError(f"{file} is not a readable GGUF file: {error}") from None
    wanted = [name for name in reader.fields if name.startswith("tokenizer.ggml.")]
    return {name: reader.fields[name].contents() for name in wanted}
