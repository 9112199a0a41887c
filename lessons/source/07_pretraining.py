# ---
# jupyter:
#   course:
#     number: "07"
#     title: "Pretraining"
#     minutes: 90
#     prerequisites: ["04", "06"]
# ---

# %% [markdown] lang="en"
# # 07 · Pretraining
#
# You have a tokenizer and a model. What is missing is the training that turns random weights into something that writes English: **pretraining**. It has one task, always the same: guess the next token. There are no labels to buy, because every text is its own answer.
#
# The training step is the one you know from lesson 03. What is new is everything around it: text in rows, a run that may be stopped at any moment, and a price that you can work out before you pay it.
#
# **About 90 minutes. You need** lessons 04 and 06: tokens, and the model.
#
# After this lesson you can
# - turn documents of any length into batches, without wasting a place,
# - stop a run and go on later, on another number of processes, with the same batches,
# - say what a training will cost before it starts, and how much of the machine it uses,
# - read a loss curve, and compare models by bits per byte,
# - watch a model of your own learn to write.

# %% tags=["setup"] id="a4f9cd10f5c9"
import gzip
import lzma
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Int, Int64
from torch import Tensor

from course_utils import budget, check, verified
from course_utils.base.errors import CourseError
from course_utils.data.chat import END_OF_TEXT
from course_utils.data.text import load_documents
from course_utils.exercises.mine import use_mine
from course_utils.models import gpt
from course_utils.models.autocast import native_precision
from course_utils.models.gpt import PRESETS, GPTConfig
from course_utils.pictures import text as text_pictures
from course_utils.training.config import TrainConfig
from course_utils.training.engines.precision import COMPUTE_DTYPE
from course_utils.training.lab.language_run import TOKENIZER, shape_of
from course_utils.training.loop.callbacks import StopAfter
from course_utils.training.loop.throughput import measured_peak
from course_utils.training.loop.trainer import Trainer
from course_utils.training.parts.data_order import shuffled, steps_per_epoch
from course_utils.training.parts.muon import make_optimizer
from course_utils.training.parts.schedule import warmup_cosine
from course_utils.training.storage.run_reader import Run
from course_utils.training.tasks.corpora import text_corpus, tokenizer_for
from course_utils.training.tasks.language import CorpusTask, bytes_of_tokens
from course_utils.training.tasks.samples import Samples, read_samples

# %% [markdown] lang="en"
# ## 1 · Text
#
# A good text for a very small model is short, clear and about many things: the first paragraphs of ten thousand encyclopedia articles. They come by name, and are fetched the first time. (The quick test profile makes do with one short story.)

# %%
data = budget(smoke="sample", cpu="wiki")
documents = load_documents(data)

print(f"{len(documents):,} documents, {sum(map(len, documents)):,} characters. One of them:\n")
print(documents[len(documents) // 2][:400])

# %% [markdown] lang="en"
# The tokenizer is the one of lesson 04: byte-level BPE. It learns its 2048 tokens from this very text, and then the text becomes numbers, once, on the disk. Every document ends in a special token `<|endoftext|>`, so that the model learns where things end.
#
# One document in twenty is **held out**. Which one follows from its text: a document that occurs twice is never on both sides.

# %%
vocab = budget(smoke=512, cpu=2048)
tokenizer = tokenizer_for(data, vocab)
corpus = text_corpus(data, tokenizer)

for name in ("train", "validation"):
    side = getattr(corpus, name)
    print(f"{name:10} {len(side.lengths):7,} documents {len(side.tokens):10,} tokens")
print(f"{side.tokens.dtype} on the disk, in {corpus.folder.name}/")

# %% [markdown] lang="en"
# ## 2 · Documents in rows
#
# A batch is a rectangle, and documents have all lengths. We could give each document a row, and fill up the short ones with nothing. How much of the work would be for nothing?

# %%
context = 128
lengths = torch.from_numpy(corpus.train.lengths.copy())
text_pictures.padding_waste(lengths, context)

# %% [markdown] lang="en"
# So pretraining lays the documents **end to end** and cuts the stream into rows. No place is wasted. A row may begin in the middle of a sentence, and hold the end of one document and the beginning of the next. That hardly hurts: `<|endoftext|>` tells the model that what came before has nothing to do with what follows.
#
# There is one subtlety. A row of `context` inputs needs `context` targets, each one token further on. So a row holds one more token, and that last token, which is only a target here, is the first input of the next row.

# %% exercise="pretraining.lay_end_to_end"

# %%
end = tokenizer.special[END_OF_TEXT]
encoded = tokenizer.encode_batch(documents[:12])
rows = lay_end_to_end(encoded, end, context)
text_pictures.documents_in_rows(encoded, end, context, rows)

# %% [markdown] lang="en" id="5ecd5e1ed78e"
# ## 3 · The data position is the step
#
# Machines that are rented by the hour leave without notice. A run that is stopped has to go on **exactly** where it was: the same weights, the same optimizer state, and the same batches that it would have seen. How do you save the position of a shuffled data loader with four workers that read ahead?
#
# You don't. Let the batch of step 1000 be a *function* of the number 1000 and the seed. Then there is nothing to save and nothing to restore. The one ingredient is a random generator that can jump: `shuffled(seed, epoch, n)` gives the order of an epoch, for any epoch, at once.

# %%
for epoch in range(3):
    print(f"epoch {epoch}:", shuffled(seed=0, epoch=epoch, n=10).tolist())

# %% exercise="pretraining.global_batch"

# %% [markdown] lang="en"
# The same idea divides the work. Step 1000 has one **global batch**, however many machines there are. Two processes take a half each, and a process whose memory is small takes its half in several parts, one after the other. All of them agree on who takes what, without a word to each other.

# %% exercise="pretraining.part_of"

# %%
batch = global_batch(step=5, batch_size=8, n=100, seed=0)
print("step 5, one process:   ", batch.tolist())
for process in range(2):
    print(f"        process {process} of 2:", part_of(batch, process, 2).tolist())

# %% [markdown] lang="en"
# ## 4 · The price
#
# Training costs floating-point operations, and almost all of them are in matrix products. So they can be counted with a pencil: two for each weight and token on the way forward, twice that on the way back. "6 · parameters · tokens" is the rule of thumb. Attention comes on top, and it grows with the context.

# %% exercise="pretraining.flops"

# %% [markdown] lang="en"
# What share of that work is attention? And does the rule of thumb hold?

# %%
contexts = [2**k for k in range(6, 16)]
text_pictures.flops_by_context(
    {name: config for name, config in PRESETS.items() if name != "gpt2-124m"},
    contexts,
    training_flops_per_token,
)

# %% [markdown] lang="en"
# Now the prediction. This machine multiplies matrices at a rate that we can measure in a second, and no training will be faster than that. (Where it computes in 16 bits natively, that is what we train in; lesson 10 explains why that works.) How long does a training take at the very least? And what would one of the larger models need?

# %%
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
precision = native_precision(device)
peak = measured_peak(device, COMPUTE_DTYPE[precision])
print(f"Matrix products on this machine, {COMPUTE_DTYPE[precision]}: {peak / 1e9:,.0f} GFLOP/s\n")
print("model           tokens/s at best     a billion tokens take")
for name, config in PRESETS.items():
    per_token = training_flops_per_token(config, config.context)
    hours = 1e9 * per_token / peak / 3600
    print(f"{name:14} {peak / per_token:17,.0f} {hours:18,.1f} hours")

# %% [markdown] lang="en"
# ## 5 · Your model
#
# `use_mine` takes the parts of lessons 04 to 07 that you have solved, and puts them into the library in the place of its own: from here on, the model below is built from **your** attention, your RMSNorm, your blocks.

# %%
use_mine(["04", "05", "06", "07"])

# %%
shape = replace(PRESETS["nano"], vocab=tokenizer.vocab_size, context=context)
torch.manual_seed(0)
model = gpt.GPT(shape)
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")

# %% [markdown] lang="en" id="29b0b3c69732"
# ## 6 · Training
#
# Everything comes together in the `Trainer` that the labs use. The blocks' matrices learn with **Muon**: it takes the running mean of the gradient, and makes all its singular values about equal, so that a step moves in every direction and not only in the few strongest (`training/parts/muon.py`; lesson 11 shows what singular values are). The rest learns with AdamW (lesson 03). The learning rate warms up and falls along a cosine. Ten times during the run we measure the held-out loss, and let the model continue a text.

# %%
steps = budget(smoke=20, cpu=250, gpu=3000)
batch_size = budget(smoke=4, cpu=32, gpu=128)


def pretrain(
    name: str,
    steps: int,
    model: torch.nn.Module | None = None,
    *,
    length: int = context,
    stop_after: int | None = None,
    optimizer: str = "muon",
    lr_muon: float = 0.02,
    **settings,
) -> Run:
    """One run, from its beginning or from where it was stopped; returns its folder to read from."""
    rows = batch_size * context // length  # as many tokens in each step, whatever their length
    if model is None:
        torch.manual_seed(0)
        model = gpt.GPT(replace(shape, context=length))
    task = CorpusTask(
        train=corpus.train,
        validation=corpus.validation,
        context=length,
        batch_size=rows,
        bytes_of=bytes_of_tokens(tokenizer),
        evaluation_rows=budget(smoke=4, cpu=64) * context // length,
    )
    callbacks = [StopAfter(stop_after)] if stop_after else []
    if name == "lesson-07":
        callbacks.append(Samples(tokenizer, ["The city of", "In physics,"]))
    settings = {"eval_every": max(1, steps // 10), "resume": "never"} | settings
    settings = {"precision": precision} | settings
    trainer = Trainer(
        model,
        make_optimizer(model, optimizer, lr=3e-3, lr_muon=lr_muon, weight_decay=0.1, beta2=0.95),
        partial(warmup_cosine, warmup=steps // 20, total=steps),
        task,
        TrainConfig(name=name, steps=steps, batch_size=rows, clip=1.0, log_every=1, **settings),
        recipe={"model": shape_of(model.config)},
        files={TOKENIZER: tokenizer.tokenizer.to_str()},
        callbacks=callbacks,
    )
    return Run(trainer.train().folder)


run = pretrain("lesson-07", steps, model=model)

# %%
rows = run.metrics()
text_pictures.pretraining_curves(rows, vocab=tokenizer.vocab_size)

# %% [markdown] lang="en"
# Three things to read off:
#
# - **The start** is at $\ln V$: the model knows nothing, and spreads its bets evenly over the vocabulary.
# - **The fall** is steep at first. That is the cheap part: which tokens are frequent, what follows a space. Grammar comes later, facts much later.
# - **Bits per byte** can be compared with any other model and tokenizer, and with a zip program.

# %%
held_out = "".join(
    tokenizer.decode(corpus.validation.tokens[a : b - 1])  # bits per byte leave <|endoftext|> out
    for a, b in zip(corpus.validation.starts[:-1], corpus.validation.starts[1:], strict=True)
).encode()
last = rows[-1]
text_pictures.compression_bars(
    {
        "no compression": 8.0,
        "gzip": 8 * len(gzip.compress(held_out, 9)) / len(held_out),
        "xz": 8 * len(lzma.compress(held_out, preset=9)) / len(held_out),
        "your model": last["val_bits_per_byte"],
    }
)

# %% [markdown] lang="en"
# A language model **is** a compressor: with an arithmetic coder behind it, it would shrink this held-out text to about that size. (It is measured on some rows, spread over all of the text. And the zip programs start from nothing at every file; your model has read the other nineteen twentieths.)
#
# Here is what it wrote as it learned, always from the same beginning and with the same luck:

# %%
text_pictures.samples_table(read_samples(run.path), prompt="The city of")

# %% [markdown] lang="en"
# It learns how sentences sound long before it knows anything. With a million parameters there is not much room to know things in.
#
# How well did it use the machine?

# %%
speeds = [row["tokens_per_s"] for row in rows[len(rows) // 5 :]]
speed = sorted(speeds)[len(speeds) // 2]
per_token = training_flops_per_token(shape, context)
print(
    f"{speed:,.0f} tokens/s × {per_token / 1e6:.2f} MFLOP = {speed * per_token / 1e9:,.1f} GFLOP/s"
)
print(f"of {peak / 1e9:,.0f} GFLOP/s that the machine can do: MFU {speed * per_token / peak:.0%}")
print(f"(the run's own line says {rows[-1]['mfu']:.0%})")

# %% [markdown] lang="en"
# The **MFU**, model FLOPs utilisation, is the share of the machine's arithmetic that went into the model. Small models waste much of it: their matrices are too small to keep the cores busy, and the time goes into everything between the products. On large models and good GPUs, 40 to 60 % is what experts reach.
#
# ## 7 · Stop, and go on
#
# A run is stopped in the middle, and a second one goes on from its checkpoint. Beside them, one that was left alone. If resuming is exact, then the losses are not similar but **equal**, in every bit.

# %%
n = budget(smoke=8, cpu=16)
exactly = {"precision": "no", "progress": "off"}
undisturbed = pretrain("lesson-07-whole", n, **exactly).metrics()

pretrain("lesson-07-stopped", n, stop_after=n // 2, **exactly)
resumed = pretrain("lesson-07-stopped", n, resume="must", **exactly).metrics()

differences = [abs(a["loss"] - b["loss"]) for a, b in zip(undisturbed, resumed, strict=True)]
print(f"{n} losses, {sum(d > 0 for d in differences)} of them differ.")
text_pictures.loss_traces(
    {"undisturbed": undisturbed, f"stopped after {n // 2} steps, then resumed": resumed},
    mark=n // 2,
)

# %% [markdown] lang="en" id="b3d8cdf7cab3"
# What has to be saved for that? The weights, the optimizer's running means, the state of the random generators, and the number of the step. Not the position in the data, as you know. Leave one of them out, and the curves part: slowly, and nobody notices.
#
# The same functions make a run independent of the number of processes. In a terminal:
#
# ```
# python labs/pretrain.py --recipe nano
# accelerate launch --config_file labs/accelerate/multi_cpu.yaml labs/pretrain.py --recipe nano
# ```
#
# ## 8 · Small batches that add up
#
# A batch that does not fit into the memory is taken in parts, whose gradients add up (lesson 03). With rows of text there is a trap: in fine-tuning, parts have different numbers of tokens that count. So the trainer adds up **sums**, and divides once by the count of the whole batch.

# %%
in_parts = pretrain("lesson-07-a4", n, accumulation=4, **exactly).metrics()
largest = max(abs(a["loss"] - b["loss"]) for a, b in zip(undisturbed, in_parts, strict=True))
print(f"In one part or in four: the losses differ by {largest:.1e} at most (rounding).")

# %% [markdown] lang="en"
# ## 9 · Play
#
# Same model, same data, same number of tokens. What is the best way to spend them? Change the lists. Which learning rate is best, and how much worse is half of it, or twice? Is AdamW alone as good as Muon? A longer context costs more for each token; is it worth it? (Its held-out loss is measured with the longer context, too.)

# %%
lrs = budget(smoke=(0.01, 0.02), cpu=(0.005, 0.02, 0.08))
lengths = budget(smoke=(context // 2,), cpu=(4 * context,))
play_steps = budget(smoke=4, cpu=40, gpu=600)

runs = {}
for lr_muon in lrs:
    name = f"lesson-07-lr-{lr_muon:g}"
    runs[f"Muon, lr {lr_muon:g}"] = pretrain(
        name, play_steps, lr_muon=lr_muon, progress="off"
    ).metrics()
runs["AdamW alone"] = pretrain(
    "lesson-07-adamw", play_steps, optimizer="adamw", progress="off"
).metrics()
for length in lengths:
    runs[f"context {length}"] = pretrain(
        f"lesson-07-context-{length}", play_steps, length=length, progress="off"
    ).metrics()
text_pictures.loss_traces(runs, smoothed=True)
for name, rows in runs.items():
    print(f"{name:14} held-out loss {rows[-1]['val_loss']:.3f} after {rows[-1]['elapsed_s']:.0f} s")

# %% [markdown] lang="en" id="b6bbb324f290"
# ## What you have now
#
# - Documents lie **end to end**, each closed by a special token; a row holds `context` + 1 tokens, and the last one is shared with the next row.
# - A batch is a **function of the step**. So resuming is exact, and any number of processes sees the same batches.
# - Training costs **6 FLOPs** per weight and token, and attention on top. The **MFU** says how much of the machine you get for your money.
# - Loss starts at $\ln V$. **Bits per byte** compare models with different tokenizers.
#
# **Where it lives.** `course_utils/data/packing.py` and `corpus.py`, `training/parts/data_order.py`, `training/parts/flops.py`, `training/tasks/language.py`. The lab: `python labs/pretrain.py --recipe nano`, and `--use-mine` trains your own model there as well. The recipes `minimind-26m`, `minimind-64m` and `gpt2-124m` are for GPUs; they differ in numbers only.
#
# **Next:** lesson 08 looks at how a model writes: at what is done with its probabilities, and how to do it fast.
#
# **Further reading**
# - A. Radford et al., *Language Models are Unsupervised Multitask Learners*, 2019. GPT-2.
# - J. Kaplan et al., *Scaling Laws for Neural Language Models*, 2020. 6 · N · D, and what more of each buys.
# - J. Hoffmann et al., *Training Compute-Optimal Large Language Models*, 2022. How many tokens for how many parameters.
# - A. Chowdhery et al., *PaLM*, 2022. MFU, in appendix B.
# - R. Eldan, Y. Li, *TinyStories: How Small Can Language Models Be and Still Speak Coherent English?*, 2023.
# - K. Jordan et al., *Muon: An optimizer for hidden layers in neural networks*, 2024.
# - G. Delétang et al., *Language Modeling Is Compression*, 2023.
