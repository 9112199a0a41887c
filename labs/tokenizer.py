"""Train a tokenizer on text, and show how it divides a sentence into tokens.

    python labs/tokenizer.py --data wiki --vocab 2048
    python labs/tokenizer.py --data wiki,sanguo --vocab 6400 --sentence "Hello, 世界"

The tokenizer is stored in the data cache; labs/pretrain.py uses it for the same two settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from course_utils.data.text import stream_documents
from course_utils.training.lab.recipes import load_recipe, run_lab
from course_utils.training.tasks.corpora import tokenizer_for, tokenizer_path


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Train a byte-level BPE tokenizer with the special tokens of chats.

    Attributes:
        recipe: The file labs/recipes/RECIPE.toml, which sets the defaults of all other settings.
        data: The text sets to train on, separated by commas: names, paths or hf:owner/name.
        vocab: The vocabulary size, including 256 bytes and three special tokens.
        held_out: The share of the documents that is not used; the same as in labs/pretrain.py.
        sentence: An example text to tokenize.
    """

    recipe: str = "tokenizer-nano"
    data: str = "wiki"
    vocab: int = 2048
    held_out: float = 0.05
    sentence: str = "Tokenizers turn text into numbers: 1848, 汉字, déjà vu."


def train(argv: Sequence[str]) -> None:
    config = load_recipe(TokenizerConfig, argv, Path(__file__).parent / "recipes")
    tokenizer = tokenizer_for(config.data, config.vocab, config.held_out)
    first = config.data.split(",")[0]
    texts = list(islice(stream_documents(first), 200))
    n_bytes = sum(len(text.encode()) for text in texts)
    n_tokens = sum(map(len, tokenizer.encode_batch(texts)))
    ids = tokenizer.encode(config.sentence, special=False)
    print(f"{tokenizer.vocab_size} tokens in {tokenizer_path(config.data, config.vocab)}.")
    print(f"A token stands for {n_bytes / n_tokens:.2f} bytes of {first}.")
    print(" ".join(repr(tokenizer.decode([number])) for number in ids))


if __name__ == "__main__":
    run_lab(train)
