# ---
# jupyter:
#   course:
#     number: "04"
#     title: "The tokenizer: text becomes numbers"
#     minutes: 100
#     prerequisites: ["01"]
# ---

# %% [markdown] lang="en"
# # 04 · The tokenizer: text becomes numbers
#
# A network computes with numbers, and an image is numbers already. A text is not. Something has to cut it into parts and give each part a number: the **tokenizer**. It is the least glamorous piece of a language model, and it decides how long every text is for the model, which languages it favours, and whether it can see the digits of a number. In this lesson you write one, the same kind that GPT, Llama and Qwen use.
#
# **About 100 minutes. You need** Python. Lesson 01 helps with the last part.
#
# After this lesson you can
# - say what a text is made of: characters, code points, bytes,
# - train a byte-level BPE from nothing, and encode and decode any text with it,
# - explain what a model sees, and what it cannot see, when you type,
# - choose the size of a vocabulary with measured reasons,
# - compare two language models that have different tokenizers.

# %% tags=["setup"] id="4010d7a9511e"
import lzma
import math
import re
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from matplotlib import pyplot as plt
from torch import Tensor

from course_utils import budget, check, verified
from course_utils.data.text import load_documents, sample_text
from course_utils.models.gpt import PRESETS
from course_utils.pictures import plots
from course_utils.pictures import tokens as token_pictures
from course_utils.tokenizer.bpe import Merge, Token, split_into_pieces, train_bpe
from course_utils.tokenizer.fast import FastBPE

# %% [markdown] lang="en"
# ## 1 · Three ways to cut
#
# The text of this lesson is all of Shakespeare, about five million characters. (It is fetched once. In the smoke test a short story stands in for it.) The last tenth stays out of training, to measure with, as always.
#
# Here is one line of it, cut in three ways. Every colour is one token, and every token becomes one number. **Rest the pointer on a token** to see what is in it.

# %%
whole = budget(smoke=False, cpu=True)
english = "\n".join(load_documents("shakespeare")) if whole else sample_text()
border = int(0.9 * len(english))
training_text, held_out = english[:border], english[border:]
print(f"{len(training_text):,} characters to learn from, {len(held_out):,} to measure with")

line = "To be, or not to be: that is the question."
ready = FastBPE.train([training_text], vocab_size=2048)  # like what you will have at the end
number_of = {ready.token_bytes(number): number for number in range(2048)}

token_pictures.coloured(
    {
        "characters": [character.encode() for character in line],
        "words": [word.encode() for word in re.findall(r"\w+|\W", line)],
        "what you will build": [ready.token_bytes(number) for number in ready.encode(line)],
    },
    ids=number_of.get,
)

# %% [markdown] lang="en"
# Why not simply take one of the first two?
#
# - **Words.** The vocabulary has no end. Names, typing errors, `getElementById`, German compounds: whatever did not occur in training has no number. The model is blind to it.
# - **Characters.** Nothing is unknown, but the sequences get long. A model's work grows with the number of tokens (for attention even with its square, as you will see in lesson 05), and it has to learn from single letters what a word is.
#
# We want something between: frequent words in one piece, rare words in a few, and no text that cannot be written at all.
#
# ## 2 · Bytes
#
# What is a character? Unicode gives every character of all scripts a number, its **code point**, and there are well over a hundred thousand of them. As a vocabulary that is too many, and most of them are rare. But on a disk and on the wire, a text is **bytes**, in an encoding called UTF-8: one byte for an English letter, two to four for others.

# %%
token_pictures.characters_and_bytes("be é 你好 🙂")

# %% [markdown] lang="en"
# So there *is* a small alphabet in which every text of every language can be written: the 256 bytes. That is where our tokenizer starts. It will never meet anything unknown.
#
# Bytes have one catch: cut in the wrong place, they are no characters any more. Python can show that something is missing, with the sign `�`.

# %%
encoded = "你好".encode()
print(encoded.hex(" "))
print(encoded[:4].decode(errors="replace"))

# %% [markdown] lang="en"
# ## 3 · Join what occurs often
#
# Bytes as tokens give long sequences. Now comes the idea, and it is twenty lines of code. It is called **byte-pair encoding**, BPE:
#
# > Look for the pair of neighbouring tokens that occurs most often. Make it a new token. Repeat.
#
# After `t` + `h` → `th` comes `th` + `e` → `the`, and soon frequent words are single tokens, while rare ones stay in pieces.
#
# One detail first. Without limits, it would learn tokens such as `e t` or `, and`, across the border between words: `dog.`, `dog!` and `dog,` would become three tokens that have nothing to do with each other. So the text is cut into **pieces** before, and a merge never crosses them: words (with the space in front of them), runs of punctuation, and single digits.

# %%
split_into_pieces("In 1603, they said: don't stop!  你好，世界。")

# %% [markdown] lang="en"
# Pieces make it fast, too. A text has many words, but few *different* ones. It is enough to look at each once, and to remember how often it occurs.

# %%
sample = training_text[:200_000]
words = Counter(
    tuple(bytes([byte]) for byte in piece.encode()) for piece in split_into_pieces(sample)
)
print(f"{words.total():,} pieces, {len(words):,} different ones. The most frequent:")
for tokens, n in words.most_common(5):
    print(f"{n:6,} times  {tokens}")

# %% [markdown] lang="en"
# A word is a tuple of tokens here, and a token is a `bytes` object. Count the pairs.

# %% exercise="tokenizer.count_pairs"

# %%
count_pairs(words).most_common(8)

# %% [markdown] lang="en"
# Look at the first pairs. Do you recognise the English language?
#
# The most frequent pair becomes a token. In every word where it occurs, its two tokens are replaced by one.

# %% exercise="tokenizer.merge_pair"

# %% [markdown] lang="en"
# These are the two parts, and this is the whole training. When two pairs occur equally often, take the greater one (as bytes): any rule will do, as long as everybody follows the same.


# %%
def learn_merges(words: dict[tuple[Token, ...], int], n_merges: int) -> list[Merge]:
    merges: list[Merge] = []
    for _ in range(n_merges):
        pairs = count_pairs(words)
        best = max(pairs, key=lambda pair: (pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        merged: Counter[tuple[Token, ...]] = Counter()
        for tokens, n in words.items():
            merged[merge_pair(tokens, best)] += n
        words = merged
    return merges


n_merges = budget(smoke=20, cpu=100)
began = time.perf_counter()
first_merges = learn_merges(words, n_merges)
seconds_each = (time.perf_counter() - began) / n_merges
print(f"{n_merges} merges, {1000 * seconds_each:.0f} ms each")
for number, (first, second) in enumerate(first_merges[:20], start=1):
    print(f"{number:3}  {first!r:8} + {second!r:8} → {first + second!r}")

# %% [markdown] lang="en"
# The words in between: which is the first whole word that it finds? Which endings?
#
# ## 4 · Faster, and for real
#
# Your loop counts all pairs of all words again after every merge. Yet a merge changes only the words that contain it; all other counts stay as they are. The library's `train_bpe` keeps the counts, knows for each pair where it occurs, and takes the most frequent one from a heap. It learns exactly the same merges:

# %%
assert train_bpe([sample], n_merges) == first_merges

began = time.perf_counter()
sample_merges = train_bpe([sample], 2048 - 256)
seconds = time.perf_counter() - began
print(f"{len(sample_merges):,} merges in {seconds:.2f} s")
print(f"{seconds_each * len(sample_merges) / seconds:.0f} times as fast as your loop would be")

# %% [markdown] lang="en"
# Read `train_bpe` in `course_utils/tokenizer/bpe.py`: it is one screen long.
#
# So far we have looked at a sample. Now take all of the training text.

# %%
began = time.perf_counter()
merges = train_bpe([training_text], budget(smoke=2048, cpu=8192) - 256)
print(
    f"{len(training_text):,} characters, {len(merges):,} merges: {time.perf_counter() - began:.1f} s"
)

learned = {first + second for first, second in merges[:1792]}
longest = sorted(learned, key=lambda token: (len(token), token))[-12:]
print("the longest of the first 2048 tokens:", *map(token_pictures.readable, longest), sep="\n   ")

# %% [markdown] lang="en"
# Names in capitals: that is how the plays print who speaks. A tokenizer is a portrait of the text that it was trained on.
#
# ### Watch it
#
# Here is a sentence on its way through the merges. **Press ▶, or move the slider.** Merges that change nothing in this sentence are skipped; the token that was just joined has a frame. The line at the bottom is the number of tokens, from the first merge to the last. Put in a sentence of your own.

# %%
token_pictures.merge_stepper(
    "Friends, Romans, countrymen, lend me your ears; I come to bury Caesar, not to praise him.",
    merges[: 2048 - 256],
    merge_pair,
)

# %% [markdown] lang="en"
# Most of the tokens are saved by the first merges. What comes later makes rarer words whole, one by one.
#
# ## 5 · Encode
#
# Training is done once. Encoding a new text means to do the same again: begin with bytes, and replay the merges **in the order in which they were learned**. The order matters. Suppose that `b`+`c` was learned before `a`+`b`. Then `abc` becomes `a`, `bc`. If somebody took the leftmost pair, it would be `ab`, `c`: other tokens than those that the model was trained on, and it would read nonsense.
#
# Trying all two thousand merges on every word would be slow. Turn it around: a short piece has only a few pairs. Which of them was learned earliest?

# %% exercise="tokenizer.apply_merges"

# %% [markdown] lang="en"
# The same text with vocabularies of different sizes. Only the number of merges differs.


# %%
def cut(text: str, merges: Sequence[Merge]) -> list[Token]:
    """The tokens of a text."""
    rank = {pair: number for number, pair in enumerate(merges)}
    return [
        token for piece in split_into_pieces(text) for token in apply_merges(piece.encode(), rank)
    ]


passage = held_out[held_out.index("\n", 2000) :][:330].strip()
token_pictures.coloured(
    {f"a vocabulary of {size:,}": cut(passage, merges[: size - 256]) for size in (256, 512, 2048)}
)

# %% [markdown] lang="en"
# ## 6 · Numbers, and a few special tokens
#
# A model wants numbers. So we number the tokens: 0 to 255 are the bytes, then come the merges in their order. After them come a few **special tokens**, which stand for no text at all. `<|im_start|>` and `<|im_end|>` will mark in lesson 09 where a message begins and ends. They must be tokens of their own, never split, and nothing that a merge could make by chance.
#
# The class below is the complete tokenizer. Its tables are ready; you write the two directions. In `decode`, think of the `�` from above.

# %% exercise="tokenizer.bpe"

# %% [markdown] lang="en"
# Does it keep its promise? Every text, in any script, comes back as it was.

# %%
special = ("<|im_start|>", "<|im_end|>")
tokenizer = BPE(merges[: 2048 - 256], special)

for text in (
    "<|im_start|>user\nWho art thou?<|im_end|>",
    "你好，世界。 Grüße! Привет! 🙂",
    "def f(x):\n\treturn x ** 2  # ½",
):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    print(f"{len(text.encode()):3} bytes, {len(ids):3} tokens: {ids[:12]}…")

token_pictures.coloured(
    {
        text: [tokenizer.tokens[number] for number in tokenizer.encode(text)]
        for text in ("What's in a name? 42!", "你好，世界。", "Grüße! Привет! 🙂")
    },
    ids=tokenizer.ids.get,
)

# %% [markdown] lang="en"
# Where a token is no whole character, you see its bytes, with a red line below. (A remark for later. `encode` finds `<|im_end|>` wherever it stands, also in what a *user* types. A chat program has to see to it that nobody can end a message in this way; `FastBPE.encode(…, special=False)` is there for that.)
#
# ## 7 · The fast one
#
# Yours is exact. Is it fast? Hugging Face's `tokenizers` does the same in Rust, and modern models come with a file for it, `tokenizer.json`. Our `FastBPE` wraps it in the interface that you know. From the same merges it must give the same ids, to the last one. (`cut` is the function from above: `apply_merges` on each piece, and nothing remembered. Your class remembers the pieces that it has met.)

# %%
fast = FastBPE.from_merges(tokenizer.merges, special)
text = held_out[: budget(smoke=10_000, cpu=300_000)]
paragraphs = text.split("\n\n")
fresh = BPE(tokenizer.merges, special)

results, seconds = {}, {}
for name, encode in {
    "yours, every piece anew": lambda: cut(text, tokenizer.merges),
    "yours, remembering pieces": lambda: fresh.encode(text),
    "yours, the same text again": lambda: fresh.encode(text),
    "Rust": lambda: fast.encode(text),
    "Rust, paragraphs on all cores": lambda: fast.encode_batch(paragraphs),
}.items():
    began = time.perf_counter()
    results[name] = encode()
    seconds[name] = time.perf_counter() - began

assert results["yours, remembering pieces"] == results["Rust"]
print(f"{len(text):,} characters, {len(results['Rust']):,} ids, all equal")
for name, took in seconds.items():
    ratio = seconds["yours, every piece anew"] / took
    print(f"{name:30} {len(text) / took / 1e6:6.2f} million characters/s {ratio:6.1f} ×")

# %% [markdown] lang="en"
# Compare the first two lines, and then yours with Rust's. Rust is the faster language by far; and yet a dictionary that remembers makes up for it, since nearly every word of a text has been there before. Measure before you rewrite something in another language.
#
# From here on the lessons and labs use the fast one, for its file format and because it is what others use.
#
# ## 8 · How large?
#
# More merges make shorter sequences, and that saves work in every layer. What speaks against a million of them? Look at what each doubling still brings. The text is one that the tokenizer has not seen.

# %%
sizes = [2**power * 256 * half // 2 for power in range(6) for half in (2, 3)]
sizes = [size for size in sizes if size <= 256 + len(merges)]
by_size = {size: FastBPE.from_merges(merges[: size - 256]) for size in sizes}
encoded = {size: torch.tensor(one.encode(held_out)) for size, one in by_size.items()}
occurrences = [encoded[size].bincount(minlength=size) for size in sizes]
n_bytes = len(held_out.encode())

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6))
for axes, values, title, ylabel in (
    (
        left,
        [n_bytes / len(ids) for ids in encoded.values()],
        "Each doubling brings a little less",
        "bytes per token",
    ),
    (
        right,
        [int((n < 20).sum()) for n in occurrences],
        f"Tokens that are rare in {len(held_out):,} characters",
        "tokens that occur less than 20 times",
    ),
):
    plots.curves(
        {"Shakespeare": (sizes, values)},
        title=title,
        xlabel="size of the vocabulary",
        ylabel=ylabel,
        log="x",
        markers=True,
        axes=axes,
    )

for size in (2048, 8192, 32_768):
    total, table = (
        replace(PRESETS["nano"], vocab=size).n_parameters(),
        size * PRESETS["nano"].d_model,
    )
    print(
        f"{size:6,} tokens: a nano model of {total:9,} weights, {table / total:.0%} in its embedding"
    )

# %% [markdown] lang="en"
# Each token has a price. The model keeps a vector of numbers for every one of them, in its **embedding**, and learns the vector from the places where the token occurs. The lines above count it for the smallest model of this course. And tokens that hardly ever occur learn hardly anything. So small models have small vocabularies (2048 in our nano model, 6400 in minimind), and large ones have 32 thousand to 260 thousand.
#
# ## 9 · Bits per byte
#
# Which tokenizer is *better for a model*? One is tempted to compare the loss. Be careful! A loss is measured per token, and a token is not a unit: with a larger vocabulary there are fewer tokens, and each is harder to guess. Nobody can compare them.
#
# What can be compared is the surprise about the same **text**. Add up the losses of all its tokens, and divide by the number of its bytes:
#
# $$\text{bits per byte} = \frac{\sum_i -\ln p(\text{token}_i)}{\ln 2 \;\cdot\; \text{number of bytes}}$$
#
# The $\ln 2$ turns nats into bits. And the number means something: with a good code, a file can be compressed to that many bits for each of its bytes. A language model *is* a compressor.

# %% exercise="tokenizer.bits_per_byte"

# %% [markdown] lang="en"
# Try it, without any network. The simplest language model counts: how often does token *b* follow token *a*? (It mixes in how frequent *b* is altogether, for pairs that it has never seen.) Here is this model, for each size of the vocabulary.


# %%
def pair_model(
    train: Int[Tensor, " n"], test: Int[Tensor, " m"], vocab: int
) -> Float[Tensor, " m-1"]:
    """The loss, −ln p, of every token of `test` after the first."""
    alone = (train.bincount(minlength=vocab) + 1.0) / (len(train) + vocab)
    follows = (train[:-1] * vocab + train[1:]).bincount(minlength=vocab**2).view(vocab, vocab)
    before, token = test[:-1], test[1:]
    # The more kinds of tokens follow a token, the more one must expect yet another one.
    kinds = (follows > 0).sum(dim=1)[before] + 1
    seen = follows[before, token] + kinds * alone[token]
    return -(seen / (follows.sum(dim=1)[before] + kinds)).log()


loss_per_token, per_byte = [], []
judged = [size for size in sizes[::2] if size <= 4096]
for size in judged:
    one = by_size[size]
    train_ids = torch.tensor(one.encode(training_text[-2_000_000:]))
    losses = pair_model(train_ids, encoded[size], size)
    token_bytes = torch.tensor([len(one.token_bytes(number)) for number in range(size)])
    loss_per_token.append(losses.mean().item())
    per_byte.append(bits_per_byte(losses, encoded[size][1:], token_bytes))

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6))
for axes, values, title, ylabel in (
    (left, loss_per_token, "Loss per token: larger looks worse", "nats per token"),
    (right, per_byte, "Bits per byte: the truth", "bits per byte"),
):
    plots.curves(
        {"pair model": (judged, values)},
        title=title,
        xlabel="size of the vocabulary",
        ylabel=ylabel,
        log="x",
        markers=True,
        axes=axes,
    )
raw = held_out.encode()
for name, packed, colour in (
    ("zlib", zlib.compress(raw, 9), plots.ORANGE),
    ("lzma", lzma.compress(raw, preset=9), plots.GREEN),
):
    right.axhline(8 * len(packed) / len(raw), color=colour, ls="--", label=name)
_ = right.legend()
# %% [markdown] lang="en"
# The left picture says that single bytes are best. The right one says the opposite, about the same models and the same text, and it is right. The dashed lines are what two common compression programs need for the same text. In lesson 07 your GPT will be measured with the same ruler.
#
# ## 10 · An experiment: other languages, and digits
#
# The bytes give every language a way in. But do all pay the same? Train one tokenizer on English, one on Chinese, one on both, with equally large vocabularies, and let each encode both languages. **Play with this one:** change the size, the texts, the shares.

# %%
size = 2048
romance = """话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。及秦灭之后，楚、汉分争，又并入于汉。汉朝自高祖斩白蛇而起义，一统天下，后来光武中兴，传至献帝，遂分为三国。推其致乱之由，殆始于桓、灵二帝。"""
chinese = "\n".join(load_documents("sanguo")) if whole else 20 * romance
part = budget(smoke=20_000, cpu=400_000)
zh_train, zh_test = chinese[: int(0.9 * len(chinese))][:part], chinese[int(0.9 * len(chinese)) :]
en_train, en_test = training_text[:part], held_out
tests = {"English": en_test[:100_000], "Chinese": zh_test[:100_000]}

trained = {
    "English": FastBPE.train([en_train], size),
    "Chinese": FastBPE.train([zh_train], size),
    "both": FastBPE.train([en_train, zh_train], size),
}
plots.grouped_bars(
    [f"encode {name}" for name in tests],
    {
        f"trained on {name}": [len(text) / len(one.encode(text)) for text in tests.values()]
        for name, one in trained.items()
    },
    title=f"Characters per token, {size:,} tokens each",
    ylabel="characters per token",
    number="{:.2f}",
)

# %%
token_pictures.coloured(
    {
        f"{name}, trained on {on}": [one.token_bytes(number) for number in one.encode(text)]
        for name, text in (("Chinese", romance[:40]), ("English", line))
        for on, one in trained.items()
    }
)

# %% [markdown] lang="en"
# A Chinese character is three bytes. For a tokenizer that has seen no Chinese it is three tokens, underlined in red because none of them is a character. The same story costs this reader several times as many tokens: several times the price of an API call, and a context that is full several times sooner. Whoever chooses the tokenizer's training text decides that.
#
# **Digits.** Our pieces keep every digit apart. What if numbers were words like all others? Let us train on numbers, digits together, and look at some that differ by one.

# %%
generator = torch.Generator().manual_seed(0)
magnitudes = 10 ** (6 * torch.rand(4000, generator=generator))
numbers = Counter(tuple(bytes([b]) for b in str(int(n)).encode()) for n in magnitudes)
together = learn_merges(numbers, budget(smoke=50, cpu=200))
rank = {pair: place for place, pair in enumerate(together)}


def with_bars(tokens: Iterable[Token]) -> str:
    return " | ".join(token.decode() for token in tokens)


print(f"{'digits may be joined':25} our pieces")
for n in (1233, 1234, 1235, 12345, 51234, 123456, 99_999, 100_000):
    joined = apply_merges(str(n).encode(), rank)
    print(f"{with_bars(joined):25} {with_bars(cut(str(n), merges))}")

# %% [markdown] lang="en"
# With joined digits, look for the token `34`. In 1234 it means thirty-four, in 12345 three hundred and forty. Where a number is cut depends on which merges were learned first (`12` was the second, so 51234 is cut behind the 5), not on what its digits are worth. To add two such numbers, a model has to learn by heart which digits each token consists of, and what they are worth at each place. With single digits it can learn what you learned at school. Keep this in mind for lesson 09, where your chat model adds.
#
# ## 11 · A question
#
# This one is read by a person. Answer in three to six sentences.
#
# **A friend has trained a language model with a vocabulary of 32,000 and reports a loss of 3.2 nats per token on a text. Yours works on single bytes and has a loss of 0.95 nats on the same text. The friend's tokenizer needs one token for 4.2 bytes. Whose model is better, and by how much? What must be the same for your comparison to be fair, and what does it still not tell?**

# %% [markdown] question="tokenizer.fair_comparison" points=2
# Per byte, the friend's model needs 3.2 / ln 2 / 4.2 ≈ 1.10 bits, and mine 0.95 / ln 2 / 1 ≈ 1.37 bits. The friend's is better by about a fifth, although its loss per token is more than three times as high. *(1 point: bits per byte for both, computed.)*
#
# It is fair if both were measured on exactly the same held-out bytes, which neither has seen in training, with the same context before each of them in bytes, not in tokens, and if special tokens are left out in both. It does not tell what the two cost: the friend's model has 32,000 embeddings, and mine has to run 4.2 times as many steps for the same text. Nor does it tell which one answers questions better. *(1 point: same unseen text, and at least one limit.)*

# %% [markdown] lang="en"
# ## What you have now
#
# - A text is **bytes**: an alphabet of 256 in which nothing is unknown.
# - **BPE** joins the most frequent pair, again and again. It encodes by replaying its merges in the order of learning.
# - **Pieces** keep merges within words, and digits apart. **Special tokens** stand outside of the text.
# - Decode all bytes together; a character may be spread over several tokens.
# - A larger **vocabulary** shortens the text, each doubling by less, and costs weights that see little data.
# - Compare models by **bits per byte**, never by loss per token.
#
# **Where it lives.** `course_utils/tokenizer/bpe.py` is what you have written, `fast.py` the fast twin; a test holds both to equal ids on any text. `labs/tokenizer.py` trains one for the larger models. `bits_per_byte` is in `course_utils/models/metrics.py`, and reports on every language model from lesson 07 on.
#
# **Next:** lesson 05. The tokens have numbers; now they look at each other.
#
# **Further reading**
# - P. Gage, *A New Algorithm for Data Compression*, 1994: byte-pair encoding, long before language models.
# - R. Sennrich, B. Haddow, A. Birch, *Neural Machine Translation of Rare Words with Subword Units*, 2016: BPE for words.
# - A. Radford et al., *Language Models are Unsupervised Multitask Learners*, 2019: GPT-2, with bytes and pieces.
# - T. Kudo, *Subword Regularization*, 2018: the unigram tokenizer, the other large family.
# - A. Petrov et al., *Language Model Tokenizers Introduce Unfairness Between Languages*, 2023.
# - A. Singh, D. Strouse, *Tokenization counts: the impact of tokenization on arithmetic in frontier LLMs*, 2024: digits.
# - G. Delétang et al., *Language Modeling Is Compression*, 2024.
# - L. Xue et al., *ByT5: Towards a token-free future with pre-trained byte-to-byte models*, 2022.
