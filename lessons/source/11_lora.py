# ---
# jupyter:
#   course:
#     number: "11"
#     title: "LoRA: fine-tuning with a hundredth of the weights"
#     minutes: 120
#     prerequisites: ["09"]
# ---

# %% [markdown] lang="en" id="3dac24e909f1"
# # 11 · LoRA: fine-tuning with a hundredth of the weights
#
# Fine-tuning moves every weight of a model. For your tiny one that is cheap. For a real one it is not: beside each weight stand its gradient and two numbers of the optimizer, and at the end you have another whole model to store. **LoRA** (low-rank adaptation) leaves the model as it is, and learns a small correction beside each large matrix. It is how most people fine-tune large models today.
#
# **About 120 minutes. You need** lesson 09.
#
# After this lesson you can
# - say what low rank means, and measure how much of a real update has it,
# - write a LoRA layer, and explain each of its choices: zeros, scale, dropout, merging,
# - choose the layers that get one, and say what share of the weights is trained,
# - predict the memory of a training run before you start it,
# - show that your layer equals that of PEFT, the library that everybody uses,
# - teach a real pretrained model something new on two processor cores.

# %% tags=["setup"] id="804a0d40a6d8"
import copy
import math
import tempfile
import warnings
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional as F

from course_utils import budget, check, verified
from course_utils.base.errors import CourseError
from course_utils.data.tasks import reminders
from course_utils.data.text import sample_text
from course_utils.exchange.adapters import load_adapter, save_adapter
from course_utils.exchange.hf import to_hf
from course_utils.exchange.pretrained import load_pretrained
from course_utils.exercises.mine import use_mine
from course_utils.generation.chat import Chat
from course_utils.generation.fused import FusedGPT
from course_utils.models import gpt, lora
from course_utils.models.autocast import in_compute_dtype
from course_utils.models.gpt import PRESETS
from course_utils.models.lora import LoRAConfig, features_of, weight_of
from course_utils.models.quant import model_bytes, quantize_linears
from course_utils.pictures import lora as lora_pictures
from course_utils.training.lab.recorded import recorded
from course_utils.training.tasks.corpora import text_corpus, tokenizer_for

# %% [markdown] lang="en"
# ## 1 · What does fine-tuning change?
#
# We need a model that knows one thing and is to learn another. A tiny GPT reads an encyclopedia first, and then Shakespeare. (In the quick profile: a story, and then the same story in capitals.)
#
# The training loop is short, so here it is in full. It only moves what requires a gradient. Remember that; it is all that LoRA asks of a training loop.

# %% id="5162a4740f78"
context, rows = 64, 16


def learn(model: nn.Module, text: Tensor, steps: int, lr: float) -> torch.optim.Optimizer:
    """Train on random pieces of a text; returns the optimizer, whose memory we will look at."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 10) * (1 - step / steps)
        starts = torch.randint(len(text) - context - 1, (rows, 1), generator=generator)
        piece = text[starts + torch.arange(context + 1)]
        loss = model(piece[:, :-1], targets=piece[:, 1:]) / piece[:, 1:].numel()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    model.eval()
    return optimizer


@torch.no_grad()
def measure(model: nn.Module, text: Tensor) -> float:
    """The loss of a token, in nats, on the beginning of a text."""
    n = min(48, (len(text) - 1) // context)
    piece = text[: n * context + 1]
    tokens, targets = piece[:-1].view(n, context), piece[1:].view(n, context)
    return model(tokens, targets=targets).item() / targets.numel()


# %%
tokenizer = tokenizer_for(budget(smoke="sample", cpu="wiki"), budget(smoke=512, cpu=2048))


def sides(name: str) -> tuple[Tensor, Tensor]:
    """A text to learn from, and one to measure on."""
    corpus = text_corpus(name, tokenizer)
    return tuple(
        torch.from_numpy(side.tokens[:400_000].astype("int64"))
        for side in (corpus.train, corpus.validation)
    )


def in_capitals(text: str) -> tuple[Tensor, Tensor]:
    ids = torch.tensor(tokenizer.encode(text.upper()))
    return ids[: -len(ids) // 5], ids[-len(ids) // 5 :]


old, old_held_out = sides(budget(smoke="sample", cpu="wiki"))
read_new = budget(smoke=lambda: in_capitals(sample_text()), cpu=lambda: sides("shakespeare"))
new, new_held_out = read_new()

torch.manual_seed(0)
base = gpt.GPT(replace(PRESETS["nano"], vocab=tokenizer.vocab_size, context=context))
learn(base, old, steps=budget(smoke=15, cpu=200, gpu=2000), lr=3e-3)
start = measure(base, old_held_out), measure(base, new_held_out)
print(f"{base.config.n_parameters():,} parameters")
print(f"what it has read:     {start[0]:.3f} nats per token")
print(f"what it has not read: {start[1]:.3f}")

# %% [markdown] lang="en"
# Now fine-tune it in full: all matrices of its blocks may move. (We leave the embedding and the norms alone, so that the comparison below is about matrices only.)

# %%
steps = budget(smoke=6, cpu=80, gpu=500)


def matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """The matrices of the blocks, by name."""
    named = model.named_parameters()
    return {name: p for name, p in named if name.startswith("blocks.") and p.ndim == 2}


full = copy.deepcopy(base).requires_grad_(False)
for parameter in matrices(full).values():
    parameter.requires_grad_(True)
full_optimizer = learn(full, new, steps, lr=3e-3)
full_loss = measure(full, new_held_out)
print(f"the new text: {start[1]:.3f} before, {full_loss:.3f} after")

# %% [markdown] lang="en"
# What has changed is the difference, one **update** matrix for each matrix. What does it look like? Any matrix can be written as a sum of simple ones, each a column times a row:
#
# $$\Delta W = \sigma_1 u_1 v_1^\top + \sigma_2 u_2 v_2^\top + \dots \qquad \sigma_1 \ge \sigma_2 \ge \dots \ge 0$$
#
# This is the singular value decomposition. Each term is one thing that the update does: it looks for the direction $v_i$ in its input, and answers with $u_i$. The singular value $\sigma_i$ says how strongly. The number of terms is the **rank**. If a few terms are large and the rest is small, then most of the update fits into few numbers.

# %%
updates = {
    name: (after - before).detach()
    for (name, after), before in zip(matrices(full).items(), matrices(base).values(), strict=True)
}
spectra = [torch.linalg.svdvals(update) for update in updates.values()]
noise = [torch.linalg.svdvals(torch.randn_like(update)) for update in updates.values()]
shortest = min(map(len, spectra))
lora_pictures.energy_by_rank(
    {
        "updates of fine-tuning": [s[:shortest] for s in spectra],
        "random matrices of the same shapes": [s[:shortest] for s in noise],
    }
)

# %% [markdown] lang="en" id="454d10452f2f"
# The update is not random. Its strongest directions hold far more than their share. (The optimizer matters here: Muon, from lesson 07, makes all singular values of a step about equal, on purpose. So LoRA and Muon are no natural couple, and this lesson takes AdamW.)
#
# Cut it off after some terms, and you have the nearest matrix of that rank. Nobody needs to store it as a square: two thin matrices will do.

# %% exercise="lora.nearest_low_rank"

# %%
name = "blocks.1.attention.query.weight"
views = {}
for rank in (1, 4, 16):
    up, down = nearest_low_rank(updates[name], rank)
    share = (up.numel() + down.numel()) / updates[name].numel()
    views[f"rank {rank}: {share:.0%} of the numbers"] = up @ down
lora_pictures.low_rank_views(updates[name], views)

# %% [markdown] lang="en"
# Does the model notice what is missing? Put the cut updates into the model instead of the whole ones, and measure.

# %%
cut = {}
for rank in (1, 2, 4, 8, 16, 32, 64):
    model = copy.deepcopy(base)
    with torch.no_grad():
        for name, matrix in matrices(model).items():
            up, down = nearest_low_rank(updates[name], rank)
            matrix += up @ down
    cut[rank] = measure(model, new_held_out)
lora_pictures.loss_by_rank(
    {"full fine-tuning, cut afterwards": cut},
    {"before fine-tuning": start[1], "full fine-tuning": full_loss},
    "What an update loses when it is cut to a rank",
)
kept = (start[1] - cut[8]) / (start[1] - full_loss)
print(f"Rank 8 keeps {kept:.0%} of what was gained.")

# %% [markdown] lang="en"
# Here comes the idea of Edward Hu and others, of 2021. If the update will be thin anyway, why compute it in full and cut it? **Make it thin from the start.** Then training can put the few directions where they help most.
#
# ## 2 · The layer
#
# The weight $W$ is frozen. Beside it stand two thin matrices, `down` and `up`, and only they learn:
#
# $$y = W x + s \cdot \text{up} \, (\text{down} \; x)$$

# %%
lora_pictures.thin_matrices(width=576, rank=8)

# %% [markdown] lang="en"
# Four decisions make it work.
#
# - **How it starts.** The model should begin as it was. So the product must be zero. But not both factors: each one's gradient contains the other, and two zeros would stay zero for ever. `down` starts random, `up` starts at zero.
# - **The order.** First `down`, then `up`. Multiplying up · down first would build the large matrix that you wanted to avoid.
# - **The scale** $s$. More about it below.
# - **Merging.** After training, $s \cdot \text{up} \cdot \text{down}$ can be added to $W$. The layer then costs what it always cost. Or keep it apart: then one model can wear many adapters, one at a time.

# %% exercise="lora.layer"

# %% [markdown] lang="en"
# `inject` goes through a model and replaces the layers whose names match. Right after that, nothing may have changed, to the last bit:

# %%
use_mine(["05", "06", "11"])

# %%
everywhere = ("attention.*", "mlp.*")
model = copy.deepcopy(base)
names = lora.inject(model, LoRAConfig(rank=8, alpha=8, targets=everywhere))
some = new_held_out[:context][None]
with torch.no_grad():
    print(f"{len(names)} layers; equal outputs: {torch.equal(model(some), base(some))}")

# %% [markdown] lang="en"
# ## 3 · The scale
#
# A product of rank 64 adds up eight times as many terms as one of rank 8. If every term counted the same, then another rank would need another learning rate. So the product is scaled: with `alpha` over the rank in the first paper. In 2023 Kalajdzievski showed that this is too much for large ranks, because random terms add up like a random walk: with the *root* of their number. **rsLoRA** divides by √rank.

# %% exercise="lora.scale"

# %% [markdown] lang="en"
# Now train, with three ranks. `alpha` is chosen so that both scales are the same at rank 4.

# %%
trained = {}
curves = {"alpha / rank": {}, "alpha / √rank": {}}
for rank in budget(smoke=(4,), cpu=(1, 4, 32)):
    plain = LoRAConfig(rank=rank, alpha=4, targets=everywhere)
    stabilised = LoRAConfig(rank=rank, alpha=2, rslora=True, targets=everywhere)
    for name, settings in zip(curves, (plain, stabilised), strict=True):
        if settings.scale not in trained.setdefault(rank, {}):
            model = copy.deepcopy(base)
            lora.inject(model, settings)
            trained[rank][settings.scale] = model, learn(model, new, steps, lr=1e-2)
        model, _ = trained[rank][settings.scale]
        curves[name][rank] = measure(model, new_held_out)
lora_pictures.loss_by_rank(
    {"full fine-tuning, cut afterwards": cut, **{f"LoRA, {k}": v for k, v in curves.items()}},
    {"before fine-tuning": start[1], "full fine-tuning": full_loss},
    "Training thin matrices, and cutting a full update",
)

# %%
adapted, adapted_optimizer = trained[4][1.0]
gained = (start[1] - curves["alpha / rank"][4]) / (start[1] - full_loss)
cut_gain = (start[1] - cut[4]) / (start[1] - full_loss)
print(f"rank 4, cut from the full update: {cut_gain:.0%} of full fine-tuning's gain")
print(f"rank 4, trained as rank 4:        {gained:.0%}")

# %% [markdown] lang="en"
# Compare the curves at the same rank, first on the left. Whoever knows from the start that there is only one direction, or four, makes better use of them than whoever cuts them out of something larger. On the right it is the other way round: a large rank could do all that the cut one does, but after so few steps it has not found it. And there the two scales part. (The quick profile is too short to show any of this.)
#
# And what about the text that it knew before? Down is learned, right is forgotten:

# %%
ends = {"full fine-tuning": full}
ends |= {f"LoRA, rank {rank}": models[4 / rank][0] for rank, models in trained.items()}
lora_pictures.learned_and_forgotten(
    start,
    {name: (measure(m, old_held_out), measure(m, new_held_out)) for name, m in ends.items()},
    "the old text",
    "the new text",
)

# %% [markdown] lang="en"
# LoRA does not protect a model from forgetting. It usually learns a little less than full fine-tuning, and forgets a little less; Biderman and others found the same with large models in 2024. Look at which way your arrows point before you believe anybody, us included.
#
# ## 4 · Which layers
#
# The first paper put LoRA on queries and values only. Today one takes all linear layers: at the same number of trained weights that works better. To say which ones are meant, PEFT takes the **ends of names** in a list, or one regular expression; we take ends of names, with wildcards.

# %% exercise="lora.matches"

# %% [markdown] lang="en"
# And to say how much is trained:

# %% exercise="lora.trainable_share"

# %% [markdown] lang="en"
# Below is the shape of SmolLM2-135M, a small real model which you will meet soon. On the meta device tensors have a shape and no numbers, so nothing has to be loaded to count.

# %%
smollm2 = gpt.GPTConfig(
    vocab=49152, d_model=576, n_layers=30, n_heads=9, n_kv_heads=3, head_dim=64, d_ff=1536,
    context=8192, rope_theta=1e5, norm_eps=1e-5, qk_norm=False,
)  # fmt: skip
print(f"{'targets':28}{'rank':>5}{'layers':>8}{'trained':>12}{'share':>9}")
for targets in (("query", "value"), ("attention.*",), ("mlp.*",), ("attention.*", "mlp.*")):
    for rank in (4, 16):
        with torch.device("meta"):
            model = gpt.GPT(smollm2)
            names = lora.inject(model, LoRAConfig(rank=rank, targets=targets))
        n_trained, n_all = trainable_share(model)
        line = f"{', '.join(targets):28}{rank:5}{len(names):8}{n_trained:12,}"
        print(f"{line}{n_trained / n_all:9.2%}")

# %% [markdown] lang="en" id="5e9d53910a4d"
# ## 5 · Memory
#
# Three things lie in memory as long as training lasts: the weights, a gradient for each *trained* weight, and what the optimizer keeps for each *trained* weight; AdamW keeps two numbers. First measured, on the tiny model:


# %% id="3d328f4d16be"
def kept(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Megabytes that stay from step to step."""

    def megabytes(tensors) -> float:
        return sum(t.numel() * t.element_size() for t in tensors) / 1e6

    state = [t for s in optimizer.state.values() for t in s.values() if torch.is_tensor(t)]
    return {
        "weights": megabytes([*model.parameters(), *model.buffers()]),
        "gradients": megabytes(p.grad for p in model.parameters() if p.grad is not None),
        "optimizer": megabytes(state),
    }


sizes = {"full": kept(full, full_optimizer), "LoRA, rank 4": kept(adapted, adapted_optimizer)}
lora_pictures.memory_bars(sizes)

# %% [markdown] lang="en"
# Then computed, for the shape of Llama 2 with seven billion weights and adapters of rank 16. The frozen weights are all that is left, so now *they* are what to save on. That is **QLoRA** (Dettmers and others, 2023): keep the frozen base in 4 bits, and learn the thin matrices in full precision beside it. How 4 bits can be enough is lesson 12.

# %% id="047123f02fe6"
llama = gpt.GPTConfig(
    vocab=32000, d_model=4096, n_layers=32, n_heads=32, n_kv_heads=32, head_dim=128, d_ff=11008,
    tied=False, qk_norm=False,
)  # fmt: skip
with torch.device("meta"):
    model = gpt.GPT(llama)
    lora.inject(model, LoRAConfig(rank=16, targets=everywhere))
thin, n_all = trainable_share(model)
n_base = n_all - thin
print(f"{n_base:,} weights, and {thin:,} in adapters")
bytes_of = {
    "full, float32": (4 * n_base, 4 * n_base, 8 * n_base),
    "full, 16-bit weights and gradients": (2 * n_base, 2 * n_base, 8 * n_base),
    "LoRA, 16-bit base": (2 * n_base + 4 * thin, 4 * thin, 8 * thin),
    "QLoRA, 4-bit base": (0.5 * n_base + 4 * thin, 4 * thin, 8 * thin),
}
kinds = ("weights", "gradients", "optimizer")
lora_pictures.memory_bars(
    {
        name: dict(zip(kinds, (b / 1e9 for b in parts), strict=True))
        for name, parts in bytes_of.items()
    },
    unit="GB for the shape of Llama 2 7B, activations not counted",
)

# %% [markdown] lang="en"
# Activations come on top, and LoRA saves hardly any of them: to reach the thin matrices of the first block, the gradient must go through the whole model. Smaller batches and recomputing (lesson 10) help there.
#
# Try it: the tiny model in 4 bits, and adapters beside it.

# %%
small = copy.deepcopy(base)
quantize_linears(small, "nf4")
four_bits = measure(small, new_held_out)
lora.inject(small, LoRAConfig(rank=4, alpha=4, targets=everywhere))
learn(small, new, steps, lr=1e-2)
print(f"{'':32}{'MB':>6}{'loss on the new text':>24}")
for name, model, loss in (
    ("as it was", base, start[1]),
    ("in 4 bits, with idle adapters", small, four_bits),
    ("LoRA on the full base", adapted, curves["alpha / rank"][4]),
    ("LoRA on 4 bits", small, measure(small, new_held_out)),
):
    print(f"{name:32}{model_bytes(model) / 1e6:6.1f}{loss:24.3f}")

# %% [markdown] lang="en"
# ## 6 · Merge, save, and compare with PEFT
#
# **Merge.** After training, add the products to the weights. The outputs stay the same up to rounding, and the layers cost what they did before.

# %%
merged = copy.deepcopy(adapted)
with torch.no_grad():
    apart = adapted(some)
    lora.merge(merged)
    print(f"merged:   logits differ by at most {(merged(some) - apart).abs().max():.1e}")
    lora.unmerge(merged)
    print(f"unmerged: {(merged(some) - apart).abs().max():.1e}")
plain = lora.merge_and_unload(copy.deepcopy(adapted))
print(f"a plain GPT again: {not any(lora.adapters(plain))}")

# %% [markdown] lang="en"
# **Save** only what was learned. The files are in the format of **PEFT**, the library by Hugging Face, so that adapters can go both ways. And this lets us ask whether your layer is right: give the same adapter to PEFT, on transformers' version of the same base, and compare outputs and gradients.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = save_adapter(adapted, Path(folder))
    for file in sorted(path.iterdir()):
        print(f"{file.name:28}{file.stat().st_size / 1e3:8.1f} kB")
    with warnings.catch_warnings():  # PEFT still asks transformers by an older name
        warnings.simplefilter("ignore", FutureWarning)
        theirs = PeftModel.from_pretrained(to_hf(base), folder, is_trainable=True)
    back = copy.deepcopy(base)
    load_adapter(back, path)
whole = sum(p.numel() * p.element_size() for p in base.parameters())
print(f"{'the whole model':28}{whole / 1e3:8.1f} kB\n")

direction = torch.randn(1, context, tokenizer.vocab_size)
sums = []
for model in (back, theirs):
    logits = model(some) if model is back else model(some).logits
    (logits * direction).sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    sums.append((logits.detach(), sorted(g.norm().item() for g in gradients)))
(ours, our_norms), (peft, peft_norms) = sums
print(f"logits differ by at most {(ours - peft).abs().max():.1e}")
worst = max(abs(a / b - 1) for a, b in zip(our_norms, peft_norms, strict=True))
print(f"{len(our_norms)} gradients, whose norms differ by a factor of at most 1 ± {worst:.1e}")

# %% [markdown] lang="en"
# ## 7 · A real model
#
# **SmolLM2-135M-Instruct** is a chat model that was trained on two trillion tokens, and it is small enough for two processor cores. It has the shape of Llama, which your GPT can take. Can it turn a sentence into JSON for another program? Ask it.

# %%
requests = reminders(3, "held_out", seed=1)
try:
    if budget(smoke=True, cpu=False):
        raise CourseError("In the quick profile it stays where it is.")
    real, its_tokenizer = load_pretrained("smollm2-135m")
    writer = FusedGPT(real, dtype=torch.bfloat16)
    for request in requests:
        said = "".join(Chat(writer, its_tokenizer, max_new_tokens=40).reply(request.question))
        print(f"{request.question}\n   it says: {said.strip()!r}\n   wanted:  {request.answer}\n")
except CourseError as problem:
    print(problem)

# %% [markdown] lang="en"
# It knows what JSON is, and would rather talk about it, or write a program, than do what we mean. The lab teaches it, with LoRA of rank 8 on all linear layers. It also gets a new name. And because nothing is free, the lab measures before and after how often the model guesses the next word of an encyclopedia, which has nothing to do with either.
#
# ```
# python labs/lora.py --recipe lora-smollm2
# ```
#
# > **This takes longer than a lesson should on two cores**, so it does not run here. If you have run the command, the next cell shows your own run. Otherwise it shows a run that was recorded on two cores.

# %%
run = recorded("lora-smollm2")
last = run.rows[-1]
print(f"From {run.where}: {last['step']} steps, {last['elapsed_s'] / 60:.0f} minutes of training")
lora_pictures.adapter_run(
    run.before,
    run.rows,
    {
        "val_exact_match": "reminders, exactly right",
        "val_says_its_name": "knows its name",
        "val_general_percent": "next words of an encyclopedia",
    },
)

# %% [markdown] lang="en"
# Left to right: something that it could not do at all, something that it did not know, and something that should stay as it was. All three are measured on what it has not been trained on.
#
# Then talk to it: `python labs/chat.py lora-smollm2`. With `--quantize nf4` the lab keeps the base in 4 bits. With `--base hf:Qwen/Qwen3-0.6B` it takes a larger one from the Hub. `course export lora-smollm2 --to peft my-adapter` writes the adapter for PEFT, and `--to hf` merges it into the model.
#
# ## 8 · Play
#
# Predict first. What is better: a high rank on few layers, or a low rank on many? What happens with a learning rate as in full fine-tuning? With dropout? With adapters in the last block only (`"blocks.3.*"`)?

# %%
variants = {
    "rank 4 everywhere": (LoRAConfig(rank=4, alpha=4, targets=("attention.*", "mlp.*")), 1e-2),
    "rank 16, queries and values": (
        LoRAConfig(rank=16, alpha=16, targets=("query", "value")),
        1e-2,
    ),
    "the last block only": (LoRAConfig(rank=16, alpha=16, targets=("blocks.3.*",)), 1e-2),
}
play_steps = budget(smoke=3, cpu=30, gpu=300)

for name, (settings, lr) in variants.items():
    model = copy.deepcopy(base)
    lora.inject(model, settings)
    learn(model, new, play_steps, lr)
    n_trained, n_all = trainable_share(model)
    loss = measure(model, new_held_out)
    print(f"{name:30}{n_trained:9,} trained ({n_trained / n_all:.1%})   loss {loss:.3f}")

# %% [markdown] lang="en" id="e29e31d2086f"
# ## What you have now
#
# - **Low rank**, seen in a real update: a few directions hold far more than their share.
# - A **LoRA layer** that starts as the identity, trains two thin matrices, merges and unmerges, and equals PEFT's in outputs and gradients.
# - Its **scale**, for any rank; patterns for layers; the share that is trained.
# - A **memory plan**: weights, gradients, optimizer; and why QLoRA shrinks the first.
# - A recipe for a **real model** on your own machine, with a before and an after.
#
# **Where it lives.** `course_utils/models/lora.py` (the layer), `adapters.py` (PEFT's files), `pretrained.py` (SmolLM2 and the Hub as your GPT). The lab: `python labs/lora.py`; `python labs/lora.py --recipe lora-nano --base lesson-09` adapts your own chat model of lesson 09.
#
# **Next:** lesson 12 opens the 4 bits, and lesson 13 teaches by preference and reward, for which adapters are handy.
#
# **Further reading**
# - E. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, 2021.
# - A. Aghajanyan et al., *Intrinsic Dimensionality Explains the Effectiveness of Language Model Fine-Tuning*, 2020. Why few directions can be enough.
# - T. Dettmers et al., *QLoRA: Efficient Finetuning of Quantized LLMs*, 2023.
# - D. Kalajdzievski, *A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA*, 2023.
# - D. Biderman et al., *LoRA Learns Less and Forgets Less*, 2024.
# - L. B. Allal et al., *SmolLM2: When Smol Goes Big*, 2025.
