# ---
# jupyter:
#   course:
#     number: "16"
#     title: "To the cloud"
#     minutes: 110
#     prerequisites: ["07", "08"]
# ---

# %% [markdown] lang="en"
# # 16 · To the cloud
#
# Everything so far ran on your machine. Larger models need a larger machine, which you will rent: by the hour, from somebody who may want it back. So the last lesson is about the things that surround a training. What will it cost, and how long will it take? What if the machine is taken away in the middle? And when the model is trained: how do others get to use it?
#
# Nothing here needs a rented machine. Two folders will play two machines, with the real lab, a real SIGTERM, and the real server. What you learn here by paying nothing, others learn by paying.
#
# **About 110 minutes. You need** lessons 07 and 08: the cost of a token, exact resume, the KV cache.
#
# After this lesson you can
# - predict hours and dollars of a training, and say what the prediction depends on,
# - decide between cheap machines that are taken away and dear ones that stay, and how often to save,
# - stop a training on one machine, go on on another, and prove that nothing was lost,
# - compute how many users fit into a GPU, and write the heart of a server that answers them together,
# - export a model, serve it, and measure it as its users see it.

# %% tags=["setup"] id="b35588b70f89"
import json
import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from course_utils import budget, check, verified
from course_utils.base.paths import course_root, runs_dir
from course_utils.models.gpt import PRESETS, GPTConfig
from course_utils.pictures import cloud as cloud_pictures
from course_utils.serving.latency import percentile
from course_utils.training.loop.throughput import DATASHEET_PEAK
from course_utils.training.parts.cloud_bill import Offer, simulated_hours, young_interval
from course_utils.training.parts.flops import training_flops_per_token

# %% [markdown] lang="en"
# ## 1 · The bill, before you start
#
# You know from lesson 07 what a token costs: about six operations for each parameter, and some for attention. You know how many tokens you have. A data sheet says how many operations a GPU can do in a second. That is nearly all:
#
# $$\text{seconds} = \frac{\text{FLOPs per token} \times \text{tokens}}{\text{MFU} \times \text{GPUs} \times \text{peak FLOP/s}}$$
#
# The one number that nobody tells you is the **MFU**, the share of its peak that the machine reaches with *your* code and *your* model. The authors of PaLM count 21 to 46 % for the largest models of their time. A small model on a large GPU reaches much less: its matrices are too small to keep it busy.
#
# And the meter runs from the moment when the machine starts, not from the first step: packages are installed, data is fetched.

# %% exercise="cloud.training_bill"

# %% [markdown] lang="en"
# Now a price list. **These prices are round numbers for an example. Look up today's and put them in**; they change every month. The machines without "spot" are yours until you give them back. A *spot* machine is one that nobody else wants at the moment: it costs about half, sometimes less, and is taken away as soon as somebody pays the full price. How often that happens is a guess, too (`hours_between`).

# %%
L4, A100, H100 = (DATASHEET_PEAK[gpu] for gpu in ("L4", "A100", "H100"))
offers = [
    Offer("L4", 1, 0.80, L4),
    Offer("L4 spot", 1, 0.30, L4, hours_between=12),
    Offer("A100", 1, 2.00, A100),
    Offer("A100 spot", 1, 1.00, A100, hours_between=6),
    Offer("H100", 1, 3.00, H100),
    Offer("H100 spot", 1, 1.60, H100, hours_between=5),
    Offer("8 H100", 8, 3.00, H100),
    Offer("8 H100 spot", 8, 1.60, H100, hours_between=3),
]
mfu = 0.35  # a guess: measure it before you rely on it, see section 3

jobs: dict[str, tuple[float, float, int]] = {}
for name in ("minimind-26m", "minimind-64m", "gpt2-124m"):
    recipe = tomllib.loads((course_root() / "labs" / "recipes" / f"{name}.toml").read_text())
    config = PRESETS[recipe["preset"]]
    tokens = recipe["steps"] * recipe["batch_size"] * recipe["context"]
    jobs[name] = (
        training_flops_per_token(config, recipe["context"]),
        tokens,
        config.n_parameters(),
    )
    print(f"{name:13} {config.n_parameters() / 1e6:5.0f}M parameters, {tokens / 1e9:5.1f}B tokens")

print(f"\n{'MFU ' + format(mfu, '.0%'):13}" + "".join(f"{name:>22}" for name in jobs))
for offer in offers:
    cells = []
    for flops, tokens, _ in jobs.values():
        hours, dollars = training_bill(flops, tokens, offer, mfu)
        cells.append(f"{hours:7.1f} h {dollars:9,.0f} $")
    print(f"{offer.name:13}" + "".join(f"{cell:>22}" for cell in cells))

# %% [markdown] lang="en"
# The recipes of `labs/recipes`, on each machine. As if the spot machines were never taken away; that comes next.

# %%
flops, tokens, _ = jobs["gpt2-124m"]
bills = {offer.name: training_bill(flops, tokens, offer, mfu) for offer in offers}
cloud_pictures.offers(bills, "GPT-2's size on the recipe's tokens: the same work, fast or cheap")

# %% [markdown] lang="en"
# Two things to see. Eight GPUs cost hardly more than one: eight times the price for an eighth of the time, as long as the MFU stays the same (lesson 14 says why it does not, quite). And the newest GPU is not the dearest *per operation*. What counts is dollars for each operation, not dollars an hour.
#
# **A rule for the number of tokens.** For a given amount of computation, about 20 tokens for each parameter give the lowest loss (Hoffmann et al., 2022). Models that are to be *used* a lot are trained far longer, since a smaller model is cheaper every time it answers.

# %%
for name, (flops, tokens, parameters) in jobs.items():
    hours, dollars = training_bill(flops, 20 * parameters, offers[2], mfu)
    print(
        f"{name:13} 20 tokens a parameter are {20 * parameters / 1e9:4.1f}B: "
        f"{hours:5.1f} h and {dollars:5.0f} $ on one A100. The recipe has {tokens / parameters:.0f}."
    )

# %% [markdown] lang="en"
# ## 2 · Machines that are taken away
#
# Half the price is worth nothing if you never finish. When a machine goes, everything since the last checkpoint is lost. So save often? Every checkpoint takes time as well. Save seldom, and you lose more each time. In between is a best interval. To find it, we need the time that a training takes *on average* when interruptions come at random.

# %% exercise="cloud.expected_hours"

# %% [markdown] lang="en"
# A formula is a claim. Check it: the next cell draws interruptions at random, plays whole trainings with them, and compares.

# %%
work, save, restart, between = 24.0, 1.5 / 60, 10 / 60, 5.0  # hours
minutes = [60 * 0.03 * 1.12**i for i in range(48)]
predicted = [
    100 * (expected_hours(work, m / 60, save, restart, between) / work - 1) for m in minutes
]
dice = random.Random(0)
pieces = (480, 240, 96, 48, 24, 12, 8)
played = []
for n in pieces:
    hours = [
        simulated_hours(work, work / n, save, restart, between, dice)
        for _ in range(budget(smoke=60, cpu=600))
    ]
    on_top = [100 * (h / work - 1) for h in hours]
    played.append((statistics.mean(on_top), statistics.stdev(on_top) / math.sqrt(len(on_top))))
shown = [(m, p) for m, p in zip(minutes, predicted, strict=True) if p < 1.25 * max(played)[0]]
cloud_pictures.intervals(
    ([m for m, _ in shown], [p for _, p in shown]),
    ([60 * work / n for n in pieces], [m for m, _ in played], [e for _, e in played]),
    60 * young_interval(save, between),
    f"{work:.0f} hours of work, interrupted every {between:.0f} hours on average",
)

# %% [markdown] lang="en"
# The dashed line is **Young's rule** of 1974: save every $\sqrt{2 \cdot \text{time to save} \cdot \text{time between interruptions}}$. It says where saving costs as much as being interrupted. Around it the curve is flat: a factor of two in either direction matters little, a factor of ten a lot.
#
# Note what is on the axis: the *time to save*. Our trainer copies the weights in a moment and writes them in the background, so for it the interval can be short. Now the bill again, with interruptions:

# %%
save, restart = 0.2 / 60, 15 / 60
flops, tokens, _ = jobs["gpt2-124m"]
print(f"{'':13}{'save every':>12}{'hours':>9}{'dollars':>9}   for interruptions")
real_bills = {}
for offer in offers:
    hours, _ = training_bill(flops, tokens, offer, mfu, setup_hours=0)
    interval = min(young_interval(save, offer.hours_between), hours)
    whole = 0.25 + expected_hours(hours, interval, save, restart, offer.hours_between)
    dollars = whole * offer.gpus * offer.dollars_per_gpu_hour
    real_bills[offer.name] = (whole, dollars)
    every = "" if math.isinf(offer.hours_between) else f"{60 * interval:.0f} min"
    print(
        f"{offer.name:13}{every:>12}{whole:9.1f}{dollars:9,.0f}   "
        f"{100 * (whole / (0.25 + hours) - 1):4.1f} % more time"
    )
cloud_pictures.offers(
    real_bills, "The same with interruptions: spot machines stay the cheaper ones"
)

# %% [markdown] lang="en"
# A machine that is taken away now and then costs some per cent of time and saves about half the money, *if* a training can go on where it was. So that is what has to be proven.
#
# **Play with this one.** At which `hours_between` is a spot machine no longer worth it? What if a restart takes two hours, because 300 GB of data are fetched again?

# %%
restart_hours, hours_to_do = 0.25, 20.0
spot, full = offers[3], offers[2]  # A100, with and without
for hours_between in (12, 6, 3, 1, 0.5, 0.25):
    interval = young_interval(0.2 / 60, hours_between)
    hours = expected_hours(hours_to_do, interval, 0.2 / 60, restart_hours, hours_between)
    cost_spot = hours * spot.dollars_per_gpu_hour
    verdict = "worth it" if cost_spot < hours_to_do * full.dollars_per_gpu_hour else "not worth it"
    print(f"taken away every {hours_between:5.2f} h: {hours:7.1f} h, {cost_spot:7.1f} $  {verdict}")

# %% [markdown] lang="en"
# ## 3 · Stop here, go on there
#
# Two machines, A and B, that share a folder (a NAS, an object store). Here they are two folders, with a process of its own for each; what they share is your `runs` folder. The lab is the real `labs/pretrain.py`, and `--resume` is on its command line from the first start: where there is nothing to resume, it begins.
#
# First, for comparison, the same training on a machine that is never interrupted.

# %%
NAME = "lesson-16"
settings = budget(
    smoke=["--recipe", "pretrain-smoke", "--steps", "40", "--batch-size", "2"],
    cpu=["--recipe", "nano", "--context", "128", "--steps", "120"],
    gpu=["--recipe", "nano", "--steps", "1500"],
)
settings += ["--evaluations", "1", "--evaluation-rows", "16", "--prompts", ""]
shared = runs_dir()
machines = shared / ".machines"


def start(machine: str, name: str) -> subprocess.Popen:
    """The lab on a machine: a folder, a process and a home of its own, and the shared folder."""
    here = machines / machine
    here.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "COURSE_ROOT": str(course_root()),
        "COURSE_RUNS_DIR": str(shared),
        "COURSE_HOME": str(here),
    }
    lab = course_root() / "labs" / "pretrain.py"
    command = [sys.executable, str(lab), *settings, "--name", name, "--resume"]
    with (here / "log.txt").open("w") as log:
        return subprocess.Popen(command, cwd=here, env=environment, stdout=log, stderr=log)


def said(machine: str) -> str:
    """What the lab on this machine has printed, without its progress bar."""
    lines = (machines / machine / "log.txt").read_text().replace("\r", "\n").splitlines()
    return "\n".join(line for line in lines if line.startswith(("Run ", "Going on")))


def rows(name: str) -> list[dict]:
    """What the run has logged so far."""
    file = shared / name / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


for name in (NAME, f"{NAME}-undisturbed"):  # what an earlier Run All has left
    shutil.rmtree(shared / name, ignore_errors=True)
code = start("C", f"{NAME}-undisturbed").wait()
print(said("C"), f"\nexit code {code}")

# %% [markdown] lang="en"
# Now on machine A. As soon as a third of the steps are done, we do what the cloud does to a spot machine: SIGTERM.

# %%
total = int(settings[settings.index("--steps") + 1])
a = start("A", NAME)
while a.poll() is None and not (rows(NAME) and rows(NAME)[-1]["step"] >= total / 3):
    time.sleep(0.05)
a.send_signal(signal.SIGTERM)
code = a.wait()
print(said("A"), f"\nexit code {code}")

# %% [markdown] lang="en"
# The exit code is $128 + 15$, SIGTERM's number: a launcher can tell "stopped and saved" from "broken". Machine B has never seen this run. It starts the very same command.

# %%
checkpoints = sorted((shared / NAME / "checkpoints").glob("step-*"))
left_at = int(checkpoints[-1].name.removeprefix("step-"))
code = start("B", NAME).wait()
print(said("B"), f"\nexit code {code}")

undisturbed, moved = rows(f"{NAME}-undisturbed"), rows(NAME)
cloud_pictures.two_machines(undisturbed, moved, left_at)
apart = max(abs(one["loss"] - other["loss"]) for one, other in zip(undisturbed, moved, strict=True))
print(f"{len(moved)} losses were logged; they differ by at most {apart}.")

# %% [markdown] lang="en" id="713b9b4bef98"
# Not *nearly* the same: the same, to the last digit. Weights, optimizer, schedule, random numbers and the position in the data are all in the checkpoint (lesson 07). On another kind of machine, sums are added in another order, and the last digits would differ; the run would still be the same run.
#
# SIGTERM is the polite way. Sometimes a machine just vanishes. Then the newest checkpoint may be half written: the trainer tells by its hashes, and takes the one before. Try it: put `a.kill()` in the place of `a.send_signal(signal.SIGTERM)`.
#
# In `labs/cloud` are a script for Slurm and one for SkyPilot, which do the same over and over without you.
#
# ### And the prediction?
#
# We trained; so we can hold the bill against the truth. The run's log knows the MFU on this machine, so the guess is replaced by a measurement from the *first* lines, as you would measure for a minute before renting for a week.

# %%
config_of_run = tomllib.loads((shared / NAME / "config.toml").read_text())["recipe"]
shape = GPTConfig(**config_of_run["model"])
context = config_of_run["context"]
per_token = training_flops_per_token(shape, context)
trial = undisturbed[: max(2, len(undisturbed) // 4)]
here = Offer(
    "here", 1, 0.0, statistics.median(r["tokens_per_s"] / r["mfu"] for r in trial) * per_token
)
measured_mfu = statistics.median(row["mfu"] for row in trial)
all_tokens = undisturbed[-1]["tokens"]
for guess, where in ((mfu, "guessed"), (measured_mfu, "measured in the first lines")):
    hours, _ = training_bill(per_token, all_tokens, here, guess, setup_hours=0)
    print(f"MFU {guess:6.1%} ({where}): {3600 * hours:6.1f} s predicted")
print(f"It took {undisturbed[-1]['elapsed_s']:.1f} s, for {all_tokens:,} tokens.")

# %% [markdown] lang="en"
# The formula is right; what you put into it decides. **Run a minute of the real training on the real machine, read the MFU off its log, and only then believe the bill.**
#
# ## 4 · Out of the course
#
# A checkpoint is for going on. To be used elsewhere, a model needs a form that others read: a folder for `transformers` (and from there vLLM), or one GGUF file for llama.cpp and ollama. On the command line that is `course export NAME --to hf DIR`.

# %% id="22470e2c9e5c"
from course_utils.training.lab.language_run import (
    export_to_gguf,
    export_to_hf,
    load_language_model,
)

exported = machines / "exported"
shutil.rmtree(exported, ignore_errors=True)
export_to_hf(NAME, exported / "hf")
export_to_gguf(NAME, exported / "model.gguf", "q8_0")
for file in sorted(exported.rglob("*")):
    if file.is_file():
        print(f"{file.stat().st_size / 1e3:7,.0f} kB  {file.relative_to(exported)}")

model, tokenizer = load_language_model(NAME)
again, _ = load_language_model(exported / "hf")
text = torch.tensor([tokenizer.encode("The year of the city, and")])
with torch.no_grad():
    difference = (model(text) - again(text)).abs().max().item()
print(f"\nLogits before and after: {difference} apart at most.")

# %% [markdown] lang="en"
# Always read back what you have exported and compare logits, as here: a transposed matrix or another RoPE gives no error message. It gives a model that is a little stupid.
#
# ## 5 · Many users, one model
#
# In lesson 08 you saw that writing eight texts takes hardly longer than writing one: the weights are read once for all of them. A server lives on that. What limits it is memory: every conversation needs its own keys and values.

# %% exercise="serving.texts_that_fit"

# %%
llama = GPTConfig(
    vocab=128_256, d_model=4096, n_layers=32, n_heads=32, n_kv_heads=8, head_dim=128, d_ff=14_336,
    context=131_072, tied=False,
)  # fmt: skip
lengths = (1024, 8192, 65_536)
print(f"{'conversations of':32}" + "".join(f"{n:>10,}" for n in lengths) + "  tokens")
for gpu, gib in (("L4", 24), ("A100", 80)):
    for name, config in (("minimind-64m", PRESETS["minimind-64m"]), ("Llama 3, 8B", llama)):
        for what, sizes in (("bf16", {}), ("weights in 4 bits", {"weight_bytes": 1 / 2})):
            found = [texts_that_fit(config, gib * 2**30, n, **sizes) for n in lengths]
            print(f"{gpu:5}{name:14}{what:18}" + "".join(f"{n:>10,}" for n in found))

# %% [markdown] lang="en"
# Look at the row of the 8B model on an L4. In bf16 the weights fill most of the card; in 4 bits (lesson 12) they leave room for many more conversations, and for a long one at all. This is one of the reasons to quantize for serving: not only does a token get cheaper, more of them can be written at once.
#
# ### Continuous batching
#
# Users do not come in groups, and their answers are not of one length. A batch that starts together and ends together waits for its longest answer; whoever comes a moment late waits for all of it. The way out is simple and took until 2022: **make the batch anew for every step.** Who is finished leaves; who waits takes the free place.
#
# One thing is still in the way. A new request first has to *read* its prompt, and reading 2000 tokens takes as long as many steps of writing. If everybody waits for that, the text of all others stands still for a moment. So a step gets a *budget* of tokens, and a long prompt is read in pieces.

# %% exercise="serving.plan_step"

# %% [markdown] lang="en"
# Sixteen requests, four slots. Above, a batch at a time; below, your `plan_step`. The numbers are the requests' own. Prompts and answers are short, middling or long, at random.

# %%
dice = random.Random(5)
requests = [(dice.choice((6, 12, 40)), dice.choice((4, 10, 45))) for _ in range(16)]  # read, write
Plan = Callable[[Sequence[int], Sequence[int], int, int], tuple[int, list[int]]]


def one_batch_at_a_time(left, waiting, n_slots, budget):
    """Nobody joins until all have left."""
    return plan_step(left, [] if left else waiting, n_slots, budget)


def play(plan: Plan, n_slots: int = 4, budget: int = 20):
    """What happens in every slot, and at which step each request gets its first token."""
    waiting = list(range(len(requests)))
    rest = [list(request) for request in requests]
    lanes: list[list] = [[] for _ in range(n_slots)]
    running: list[tuple[int, int]] = []  # request and slot, in the order in which they came
    first: dict[int, int] = {}
    while waiting or running:
        left = [rest[request][0] for request, _ in running]
        joining, reads = plan(left, [rest[request][0] for request in waiting], n_slots, budget)
        for _ in range(joining):
            slot = min(set(range(n_slots)) - {slot for _, slot in running})
            running.append((waiting.pop(0), slot))
        now = dict.fromkeys(range(n_slots))
        for (request, slot), n in zip(running, reads, strict=True):
            now[slot] = (request + 1, "read" if rest[request][0] else "write")
            if rest[request][0]:
                rest[request][0] -= n
            else:
                rest[request][1] -= 1
                first.setdefault(request, len(lanes[0]))
        for slot, lane in enumerate(lanes):
            lane.append(now[slot])
        running = [(request, slot) for request, slot in running if rest[request][1]]
    return lanes, first


ways = {"One batch at a time": one_batch_at_a_time, "Continuous batching": plan_step}
found = {name: play(plan) for name, plan in ways.items()}
cloud_pictures.batches(
    {f"{name}: {len(lanes[0])} steps": lanes for name, (lanes, _) in found.items()}
)
for name, (lanes, first) in found.items():
    filled = sum(cell is not None for lane in lanes for cell in lane)
    print(
        f"{name:20} {filled / sum(map(len, lanes)):4.0%} of the slots in use; first token after "
        f"{statistics.median(first.values()):.0f} steps (median), "
        f"{percentile(list(first.values()), 95):.0f} (95th percentile)"
    )

# %% [markdown] lang="en"
# The pale gaps above are money. They are slots that somebody could have had.
#
# ## 6 · Serve it
#
# `labs/serve.py` does all that, with OpenAI's API in front of it, so that every program that talks to OpenAI can talk to your model. We start it on the run from section 3. (With a chat model, such as lesson 09's, open its address in a browser: there is a page to chat.)

# %%
lab = course_root() / "labs" / "serve.py"
log = (machines / "server.txt").open("w")
server = subprocess.Popen(
    [sys.executable, str(lab), NAME, "--port", "0"], stdout=subprocess.PIPE, stderr=log, text=True
)
greeting = server.stdout.readline()
assert greeting, (machines / "server.txt").read_text()
url = greeting.split(" is at ")[1].split()[0]
print("The model is served:", greeting.split(" is at ")[0])

# %% [markdown] lang="en"
# And now the same client that one uses for the large models, pointed at yours:

# %%
from openai import BadRequestError, OpenAI

client = OpenAI(base_url=f"{url}/v1", api_key="none")
stream = client.completions.create(
    model=NAME, prompt="The city of", max_tokens=budget(smoke=12, cpu=60), temperature=0.7, seed=1,
    stream=True, stream_options={"include_usage": True},
)  # fmt: skip
print("The city of", end="")
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].text, end="", flush=True)
print(f"\n\n{chunk.usage.prompt_tokens} tokens read, {chunk.usage.completion_tokens} written.")

try:
    client.completions.create(model=NAME, prompt="The city of", temperature=-1)
except BadRequestError as error:
    print("A wrong request:", error.body["message"])

# %% [markdown] lang="en"
# ### As its users see it
#
# Two numbers describe a server: how much it writes in a second for all together, and how long somebody waits. For the second, never the mean. A mean hides that one in twenty waits for ten seconds, and everybody is that one, every twentieth time. One states a **percentile**: 95 of 100 see their first token within …


# %%
def ask(number: int) -> tuple[float, int]:
    """One request: seconds to its first token, and tokens."""
    began = time.perf_counter()
    chunks = client.completions.create(
        model=NAME, prompt=f"In the year {1900 + number}", max_tokens=budget(smoke=10, cpu=48),
        seed=number, stream=True, stream_options={"include_usage": True},
    )  # fmt: skip
    next(iter(chunks))
    first = time.perf_counter() - began
    *_, last = chunks
    return first, last.usage.completion_tokens


rates, firsts = {}, {}
ask(0)  # warms up
for clients in budget(smoke=(1, 4), cpu=(1, 4, 16)):
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as crowd:
        answers = list(crowd.map(ask, range(max(4, clients) * budget(smoke=1, cpu=3))))
    rates[clients] = sum(n for _, n in answers) / (time.perf_counter() - began)
    firsts[clients] = percentile([first for first, _ in answers], 95)
cloud_pictures.crowd(rates, firsts)

# %% [markdown] lang="en"
# All together get more with every client, each of them a little less. (Here the clients take their share of the same processor. `benchmarks/serving.py` measures with the 26M model, and in a process of their own.)
#
# At last, stop it as a machine is stopped: SIGTERM. What is being written may be finished first.

# %%
server.send_signal(signal.SIGTERM)
print(server.stdout.read().strip(), "Exit code", server.wait())
log.close()

# %% [markdown] lang="en"
# **Before others may use it.** On `127.0.0.1` only your own machine reaches the server. `--host 0.0.0.0` opens it to the network, and then it demands a key (`COURSE_API_KEY`). For the open internet put a web server with TLS in front of it. And think of what your model may say, to whom, and in whose name.
#
# ## 7 · The capstone
#
# You have all the parts. Make **a model of your own, for somebody**: a small chat model with a name, one thing that it does well, measured, and an address where one can talk to it. Choose the size that your budget allows: the nano on your laptop is as good a capstone as GPT-2's size on a rented GPU.
#
# 1. **Plan.** Choose model, data, tokens, machine. Predict hours and dollars with `training_bill` and `expected_hours`, from an MFU that you measured in a trial of at least a minute. Choose how often to save.
# 2. **Train.** Pretrain (`labs/pretrain.py`) and fine-tune (`labs/sft.py` or `labs/lora.py`), with `--use-mine` if you can. Have it interrupted at least once: by the cloud, or by yourself.
# 3. **Improve** one thing on purpose (data, preferences, rewards, a teacher), and measure it on held-out tasks before and after.
# 4. **Export and serve** it. Measure tokens per second, and the 95th percentile of the first token's delay, with as many clients as you expect users.
#
# Hand in two pages, and the run's folder without its checkpoints.
#
# | | 0 points | 1 point | 2 points |
# |---|---|---|---|
# | **prediction** | none, or made afterwards | before, from a guessed MFU | before, from a measured MFU; held against the truth, and the gap explained |
# | **survival** | not interrupted | interrupted and went on | the loss trace shows that nothing was lost, and the interval was chosen by a rule |
# | **improvement** | none, or not measured | measured on held-out tasks | the same with what it cost (what got worse, KL, time), and more than one seed |
# | **service** | does not run | runs, with figures for one client | figures under load, what limits it, how many users fit |
# | **honesty** | claims without numbers | numbers | numbers with their limits; what did not work is said, too |
#
# **Your report:**

# %% [markdown] question="cloud.capstone" points=10
# *A report that earns all points says, in two pages, each of the following. The numbers are its own; those in brackets stand for them.*
#
# **Prediction (2).** "Before I rented anything I trained for two minutes on the machine that I wanted and read an MFU of [a] off the log. For [b] tokens that made [c] hours and [d] dollars. It took [e] hours. The difference of [f] % is evaluation and setting up, which the formula leaves out, and [g] minutes for an interruption." A measured MFU, the prediction dated before the run, and the gap taken apart.
#
# **Survival (2).** "Saving pauses the training for [h] s, spot machines of this kind lived [i] hours on average, so Young's rule says every [j] minutes; I took [k]. At step [l] the machine was taken. The picture shows the loss of the run and of its first part repeated without an interruption: they are the same to the last digit (or, since the second machine had another processor, to [m])."
#
# **Improvement (2).** "On [n] held-out tasks, that no training has seen, it went from [o] to [p] % with DPO, over three seeds [q] to [r]. It paid for that: held-out bits per byte rose from [s] to [t], and it now answers [u] briefly." What was meant to get better, what got worse, and how sure that is.
#
# **Service (2).** "With one client it writes [v] tokens per second, with 16 it writes [w]; 95 of 100 wait less than [x] ms for the first token. The limit is the reading of the weights, as the roofline of lesson 08 says it must be; by memory, [y] conversations of 2048 tokens would fit."
#
# **Honesty (2).** "I tried [z] first; it did not work, here is its curve. What I cannot say: all figures are from one machine, and the tasks are made by a program." A reader could repeat everything, from the command lines in the appendix.

# %% [markdown] lang="en" id="c124e9aa6e56"
# ## What you have now
#
# - **The bill** is FLOPs per token × tokens over what the machine really does. Everything depends on the MFU: measure it.
# - **Spot machines** cost some per cent of time and save about half the money, if a run goes on exactly. Save every √(2 · time to save · time between interruptions).
# - **Stop here, go on there**: one command line, `--resume` always on it, a shared folder; the losses are the same.
# - **A server** writes many texts for the price of one, as long as their keys and values fit. The batch is made anew for every step, and a long prompt is read in pieces.
# - **Percentiles**, not means.
#
# **In the library:** `course_utils/training/parts/cloud_bill.py`, `course_utils/generation/cost.py`, `course_utils/serving/` (its `engine.py` calls your `plan_step`). **In the labs:** `labs/serve.py`, `labs/cloud/` (Slurm, SkyPilot), `docker/` (images, and a volume on a NAS). **Measured:** `benchmarks/serving.py`.
#
# **Further reading**
# - J. W. Young, *A First Order Approximation to the Optimum Checkpoint Interval* (1974); J. T. Daly, *A Higher Order Estimate of the Optimum Checkpoint Interval for Restart Dumps* (2006).
# - A. Chowdhery et al., *PaLM: Scaling Language Modeling with Pathways* (2022): MFU, in appendix B.
# - J. Hoffmann et al., *Training Compute-Optimal Large Language Models* (2022): how many tokens.
# - G.-I. Yu et al., *Orca: A Distributed Serving System for Transformer-Based Generative Models* (2022): continuous batching.
# - W. Kwon et al., *Efficient Memory Management for Large Language Model Serving with PagedAttention* (2023): vLLM. Our slots reserve room for the longest text; its pages do not.
# - A. Agrawal et al., *Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve* (2024): a budget for every step.
