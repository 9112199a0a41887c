# ---
# jupyter:
#   course:
#     number: "13"
#     title: "Preferences and distillation"
#     minutes: 130
#     prerequisites: ["08", "09"]
# ---

# %% [markdown] lang="en"
# # 13 · Preferences and distillation
#
# Fine-tuning teaches a model to do as others do. It becomes as good as its examples, and as bad. But often we know more than we can show: we cannot write the better answer, and still see at once which of two is better. Or a program can mark an answer, and nobody has to write one at all.
#
# This lesson teaches by such signals. **DPO** learns from pairs: this answer rather than that one. **GRPO** lets the model try, and learns from the marks it gets. **Distillation** passes on what a large model knows to a small one: not only what is right, but what is nearly right.
#
# **About 130 minutes. You need** lessons 08 and 09: sampling, chats, the held-out exam.
#
# After this lesson you can
# - compute how likely a model finds an answer, and train it on preferences,
# - let a model practise on tasks that a program marks, and watch what it pays for its reward,
# - tell what β, clipping and the KL term are for, and break a model by leaving them out,
# - teach a small model with a large one's whole distribution,
# - send tokens to experts, and keep the experts busy.

# %% tags=["setup"] id="09a48f2698f5"
import copy
import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_utils import budget, check, verified
from course_utils.alignment.answers import answer_ids, draw_answers, rows_of, uniform_numbers
from course_utils.alignment.distillation import Direction
from course_utils.alignment.drift import Drift
from course_utils.alignment.pairs import own_preferences, pairs_of, split
from course_utils.alignment.reinforcement import SMALLEST_SPREAD, kl_estimate
from course_utils.base.ignored import IGNORED
from course_utils.base.paths import course_root, runs_dir
from course_utils.data.chat import SPECIAL, prompt_of
from course_utils.data.preferences import Preference
from course_utils.data.tasks import careless_answer, tasks_named
from course_utils.exercises.mine import use_mine
from course_utils.generation.exam import Exam
from course_utils.generation.fused import FusedGPT
from course_utils.models.gpt import GPT, GPTConfig
from course_utils.pictures import moe as moe_pictures
from course_utils.pictures import preferences as preference_pictures
from course_utils.tokenizer.fast import FastBPE
from course_utils.training.lab.language_lab import LanguageConfig, language_trainer
from course_utils.training.storage.run_reader import Run
from course_utils.training.tasks.corpora import chat_corpus
from course_utils.training.tasks.distillation import DistillationTask
from course_utils.training.tasks.expert_loads import expert_loads
from course_utils.training.tasks.groups import GroupTask, RolloutLog, read_rollouts
from course_utils.training.tasks.language import ChatTask
from course_utils.training.tasks.preferences import PreferenceTask

# %% [markdown] lang="en"
# ## 1 · A model that does as people do
#
# Our model is tiny, and reads letter by letter: its tokenizer has the 256 bytes and the special tokens, and no merges. It is fine-tuned on sums, as in lesson 09. Only this time its teachers are careless. Six in ten of the answers forget what is carried: 27 + 15 = 32.

# %%
tokenizer = FastBPE.from_merges([], SPECIAL)
shape = GPTConfig(
    vocab=tokenizer.vocab_size, d_model=64, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=16,
    d_ff=192, context=128,
)  # fmt: skip
sums = "additions?largest=49&phrasings=1"
longest = 6  # tokens of an answer, with the one that ends it

practice = tasks_named(sums, budget(smoke=40, cpu=4000), "train", seed=1)
questions = tasks_named(sums, budget(smoke=16, cpu=200), "held_out", seed=0)
exam = Exam(tokenizer, questions, max_new_tokens=longest)
for task in questions[:5]:
    careless = careless_answer(task.question)
    print(f"{task.question:22} {task.answer:>4}   a careless person says {careless:>4}")
everybody = sum(careless_answer(task.question) == task.answer for task in questions)
print(f"\n{everybody} of {len(questions)} are right even if one forgets to carry.")


# %%
def settings(name: str, **changes) -> LanguageConfig:
    """What the runs of this lesson have in common."""
    common = {"context": 128, "weight_decay": 0.0, "precision": "no", "checkpoints": 1}
    return LanguageConfig(recipe=f"lesson-13-{name}", **(common | changes))


def train(name: str, model: GPT, task, callbacks=(), **changes):
    """Train a model on a task; returns the run."""
    config = settings(name, batch_size=task.batch_size, **changes)
    trainer = language_trainer(
        model, task, tokenizer, config, identity={"base": name}, callbacks=callbacks
    )
    summary = trainer.train()
    model.eval()
    return Run(summary.folder)


n_sums = budget(smoke=120, cpu=16_000)
corpus = chat_corpus(
    f"tasks:{sums}&n={n_sums}&careless=0.6",
    tokenizer,
    context=128,
    held_out=budget(smoke=0.2, cpu=0.02),
)
sft = ChatTask(
    train=corpus.train,
    validation=corpus.validation,
    context=128,
    batch_size=budget(smoke=4, cpu=16),
    measures=[exam.measure],
)
torch.manual_seed(0)
base = GPT(shape)
train("base", base, sft, steps=budget(smoke=8, cpu=400), evaluations=budget(smoke=1, cpu=4))
before = exam.measure(base)["val_exact_match"]
print(f"{sum(p.numel() for p in base.parameters()):,} parameters, {before:.1%} of the exam")

# %% [markdown] lang="en"
# Greedily it says what most people say. Let us draw many answers to one question, at temperature 1, and count.

# %% id="61b48e8ad71a"
QUESTION = "What is 27 + 15?"
right, careless = "42", careless_answer(QUESTION)
draws = budget(smoke=8, cpu=256)


def said(model: GPT, question: str = QUESTION) -> Counter:
    """What a model answers, drawn many times at temperature 1."""
    ids = prompt_of(tokenizer, [{"role": "user", "content": question}])
    [answers] = draw_answers(
        FusedGPT(model), tokenizer, [ids], uniform_numbers(0, 0, 1, draws, longest)
    )
    return Counter(answer.text for answer in answers)


preference_pictures.what_it_says({"the base": said(base)}, right, careless)

# %% [markdown] lang="en"
# It has learned both: how to add, and how people add. The right answer (green) is there, it only loses the vote. No further example will change that, as long as the examples come from the same people. What we need is a signal that says *which* of its answers is good.
#
# ## 2 · How likely is an answer?
#
# Everything in this lesson begins with one number: the probability that a model gives to a whole answer. The tokens' probabilities multiply, so their logarithms add up. The logits and the targets are what you know from lesson 06, shifted already and masked as in lesson 09.

# %% exercise="preference.log_probs"

# %%
ids = prompt_of(tokenizer, [{"role": "user", "content": QUESTION}])
candidates = [right, careless, "41", "forty-two"]
batch = rows_of([ids] * len(candidates), [answer_ids(tokenizer, text) for text in candidates])
with torch.no_grad():
    log_probs = token_log_probs(base(batch["tokens"]), batch["targets"]).sum(dim=1)
for text, value in zip(candidates, log_probs.tolist(), strict=True):
    print(f"log π({text!r:11} | {QUESTION}) = {value:8.2f}    probability {math.exp(value):.2g}")

# %% [markdown] lang="en"
# ## 3 · This answer rather than that one
#
# Preferences usually come from people. Ours come from the model and a program: it answers each question eight times, and where it was right once and wrong once, we have a pair. What it always or never solves gives none.

# %%
preferences = own_preferences(
    base,
    tokenizer,
    practice[: budget(smoke=24, cpu=1500)],
    name="lesson-13",
    max_new_tokens=longest,
)
if len(preferences) < 16:  # it is hardly ever right yet: pairs made by hand
    pairs = [(t, t.answer, careless_answer(t.question)) for t in practice]
    preferences = [Preference(t.messages[:1], a, b) for t, a, b in pairs if a != b]
print(f"{len(preferences)} pairs. The first ones:")
for pair in preferences[:4]:
    print(f"   {pair.messages[0]['content']:22} {pair.chosen!r:>6} rather than {pair.rejected!r}")

# %% [markdown] lang="en"
# How does one learn from a pair? The classical way has two steps: train a reward model that predicts which answer people prefer, then train the model to earn that reward without moving too far from where it started. Rafailov and colleagues noticed that the second step has a solution in closed form, and that one can solve it backwards. If a model is the best one for *some* reward, then that reward is
#
# $$ r(\text{answer}) = \beta \, \big(\log \pi(\text{answer}) - \log \pi_\text{ref}(\text{answer})\big) $$
#
# up to a constant for each question. So the model is its own reward model: what it has moved towards, it thinks well of. Put that into the reward model's loss, and one step is left. It needs the answers' log-probabilities under two models, and the reference never changes: its numbers are computed once.

# %% exercise="preference.dpo_loss"

# %%
preference_pictures.dpo_curve()

# %% [markdown] lang="en"
# The trainer is the one you know, and so is the task's shape: a batch is some pairs, the loss is a sum over them. Two runs, which differ in β alone.

# %%
use_mine(["13"])

# %%
learn, measure = (
    pairs_of(side, tokenizer, base, name="lesson-13", longest=128)
    for side in split(preferences, budget(smoke=0.4, cpu=0.1))
)
drift = Drift(base, tokenizer, questions[:100], longest)
dpo_runs, dpo_models = {}, {}
for beta in budget(smoke=(0.5,), cpu=(0.5, 0.05)):
    model = copy.deepcopy(base)
    task = PreferenceTask(
        train=learn,
        validation=measure,
        batch_size=budget(smoke=4, cpu=32),
        beta=beta,
        measures=[exam.measure, drift.measure],
    )
    dpo_models[beta] = model
    dpo_runs[f"β = {beta:g}"] = train(
        f"dpo-{beta:g}",
        model,
        task,
        steps=budget(smoke=4, cpu=60),
        optimizer="adamw",
        lr=3e-4,
        evaluations=budget(smoke=2, cpu=6),
    ).metrics()

# %%
preference_pictures.preference_curves(dpo_runs, before)

# %%
shown = {"the base": said(base)} | {f"DPO, β = {b:g}": said(m) for b, m in dpo_models.items()}
preference_pictures.what_it_says(shown, right, careless)

# %% [markdown] lang="en"
# Look at the left picture. DPO asks for one thing only: that the two rewards move apart. It does not ask that the chosen answer becomes more likely; both may fall, as long as the rejected one falls faster. What is taken from the rejected answer goes somewhere, and some of it to answers that nobody has looked at (grey). With a small β moving is cheap, so the model moves far for the same distance of rewards. Then the loss falls, more pairs are ranked rightly, and the exam may get worse all the same. The KL divergence in the middle is the warning.
#
# ## 4 · Learning by trying
#
# A pair is made once, from a model that soon exists no longer. GRPO goes on asking: in every step the model **as it is now** answers some questions, eight times each, and a program marks the answers. Whatever was better than its own group becomes more likely, whatever was worse less.
#
# That comparison with the group is the *advantage*.

# %% exercise="reinforcement.advantages"

# %% id="5963c31af70b"
policy = copy.deepcopy(base)
practising = GroupTask(
    policy=policy,
    reference=base,
    tokenizer=tokenizer,
    tasks=practice,
    exam=exam,
    batch_size=budget(smoke=4, cpu=16),
    max_new_tokens=longest,
    measures=[drift.measure],
)
tried = practising.answer(practice[:64], uniform_numbers(0, 0, min(64, len(practice)), 8, longest))
advantages = group_advantages(tried.rewards)
for number in range(3):
    marks = ", ".join(
        f"{answer.text}: {value:+.1f}"
        for answer, value in zip(tried.answers[number], advantages[number].tolist(), strict=True)
    )
    print(f"{tried.tasks[number].question:22} {marks}")
preference_pictures.group_rewards(tried.rewards.mean(dim=1).tolist(), advantages)

# %% [markdown] lang="en"
# Now the loss. For a token of an answer with advantage $A$, the *ratio* says how much more likely it is now than it was when the answer was given. To make $\text{ratio} \cdot A$ large is the whole idea; two things keep it from doing harm.
#
# **Clipping.** An answer's mark was found under the old weights. After a few updates on the same answers it means little, so there is nothing to gain beyond 20 %:

# %%
preference_pictures.clipped_gain()

# %% [markdown] lang="en"
# (In our runs every answer is used for one update, as in the paper. Then the ratio is 1 at the dot, and only its slope matters: that is the policy gradient.)
#
# **The price of moving.** Every token pays for its distance to the reference. The exact KL divergence would need the whole distribution at each token; but the token was drawn from the model, so one number estimates it. `kl_estimate` is the estimator that wavers little:

# %%
preference_pictures.kl_estimates()

# %% exercise="reinforcement.grpo_loss"

# %%
use_mine(["13"])

# %%
run = train(
    "grpo",
    policy,
    practising,
    callbacks=[RolloutLog(practising)],
    steps=budget(smoke=4, cpu=80),
    optimizer="adamw",
    lr=3e-4,
    floor=0.3,
    evaluations=budget(smoke=2, cpu=5),
)
preference_pictures.reward_curves(read_rollouts(run.path), run.metrics(), before)

# %%
preference_pictures.what_it_says(
    {"the base": said(base), "after GRPO": said(policy)}, right, careless
)
print("\nTry a sum of your own:", said(policy, "What is 38 + 47?").most_common(2))

# %% [markdown] lang="en"
# Nobody has shown it a right answer in this run. It found them itself, among its own, and sums that it never practised gain, too. That is also the limit: what it never says, it can never be rewarded for.
#
# A reward is all that counts here, so it had better be what we mean. If the program accepted any answer that *contains* the right number, the model would soon recite many numbers. And it has paid for its reward: the KL divergence is how far it is from everything else that the base knew.
#
# ## 5 · Learning from a teacher
#
# Now there is a model that adds well. It goes to school once more, with right answers this time, and becomes the teacher of a smaller one. How does one pass on what it knows? The plain way: show it sums with right answers. The better way: show it what the teacher *thinks*. Then every token teaches about all digits at once: which one is right, which ones are nearly right, and which are absurd.

# %%
teacher = copy.deepcopy(policy)
lessons = chat_corpus(
    f"tasks:{sums}&n={budget(smoke=120, cpu=8000)}",
    tokenizer,
    context=128,
    held_out=budget(smoke=0.2, cpu=0.02),
)
school = ChatTask(
    train=lessons.train,
    validation=lessons.validation,
    context=128,
    batch_size=budget(smoke=4, cpu=16),
    measures=[exam.measure],
)
train("teacher", teacher, school, steps=budget(smoke=2, cpu=150), evaluations=1)
with torch.no_grad():
    logits = teacher(torch.tensor([[*ids, *tokenizer.encode("4")]]))[0, -1]
names = [repr(tokenizer.decode([number]))[1:-1] for number in range(tokenizer.vocab_size)]
names[tokenizer.special["<|im_end|>"]] = "end"
preference_pictures.soft_targets(
    logits, names, (1.0, 2.0, 4.0), f"After “{QUESTION} 4”, the teacher finds likely"
)

# %% [markdown] lang="en"
# A temperature above 1 brings the small differences out. The student is softened the same way, and compared by a KL divergence. Which of the two divergences one takes matters when the student cannot do everything that the teacher does:

# %%
preference_pictures.two_directions()

# %% exercise="distillation.soft_targets"

# %% [markdown] lang="en"
# The student is much smaller, and has only 250 sums to learn from. With right answers alone it soon knows them by heart. The teacher's distributions say more about each of them. The same student, the same steps, three times: with the right answers alone, and with the teacher, in both directions.

# %%
use_mine(["13"])

# %%
few = chat_corpus(
    f"tasks:{sums}&n={budget(smoke=100, cpu=250)}",
    tokenizer,
    context=128,
    held_out=budget(smoke=0.2, cpu=0.05),
)
small = GPTConfig(
    vocab=tokenizer.vocab_size, d_model=48, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=12,
    d_ff=128, context=128,
)  # fmt: skip
students = {
    "right answers": {"hard": 1.0},
    "teacher, forward KL": {"direction": "forward"},
    "teacher, reverse KL": {"direction": "reverse"},
}
taught = {}
for name, how in students.items():
    torch.manual_seed(0)
    student = GPT(small)
    task = DistillationTask(
        train=few.train,
        validation=few.validation,
        context=128,
        batch_size=budget(smoke=4, cpu=16),
        teacher=teacher,
        measures=[exam.measure],
        **how,
    )
    taught[name] = train(
        f"student-{len(taught)}",
        student,
        task,
        steps=budget(smoke=4, cpu=200),
        evaluations=budget(smoke=1, cpu=5),
    ).metrics()
sizes = [sum(p.numel() for p in model.parameters()) for model in (teacher, student)]
print(f"teacher {sizes[0]:,} parameters, student {sizes[1]:,}")

# %%
preference_pictures.compare(taught, title="The same sums, the same steps")

# %% [markdown] lang="en"
# None of them gets far with so few sums; what differs is how much they make of them. With thousands of sums the right answers alone are as good, and free of the teacher's mistakes: a teacher is worth most where examples are few, or where there are questions without answers.

# %% [markdown] lang="en"
# ## 6 · More knowledge, the same work
#
# A student is small so that a token costs less. There is another way to that end: a large model of which each token uses only a part. In a **mixture of experts** every block has several feed-forward networks, and a small router sends each token to the one or two that suit it. The parameters grow with the number of experts; the work for a token does not.
#
# The router is a matrix: its logits have an entry for each expert. Your part is the choice.

# %% exercise="moe.route"

# %% [markdown] lang="en"
# What stops the router from sending everything to one expert? The expert that is chosen learns, so it gets better, so it is chosen more. Training therefore adds a small **balance loss**. For each expert $e$ of $n$, let $f_e$ be its share of the choices, and $P_e$ the mean of its probability:
#
# $$\text{balance} = n \sum_e f_e \, P_e$$
#
# It is 1 when all experts have equal shares. Where those that are chosen more often are also the more probable ones, as nearly always, it is more. $f$ is a count and has no gradient. $P$ has one, and the busier the expert, the more of it: the overworked are chosen less.

# %% exercise="moe.balance_loss"

# %% [markdown] lang="en"
# Here are two mixtures after a short training on the sums, without and with it.

# %%
use_mine(["13"])

# %%
mixtures = {}
for name, weight in {"without balance loss": 0.0, "with it": 0.02}.items():
    torch.manual_seed(0)
    mixture = GPT(replace(small, n_experts=4, top_k=1, balance=weight))
    task = ChatTask(
        train=few.train, validation=few.validation, context=128, batch_size=budget(smoke=4, cpu=16)
    )
    train(f"mixture-{len(mixtures)}", mixture, task, steps=budget(smoke=2, cpu=60), evaluations=1)
    mixtures[name] = expert_loads(mixture, task.batch(0, 0, 1)["tokens"])[0]
total, active = mixture.config.n_parameters(), mixture.config.n_active()
print(f"{total:,} parameters, of which a token is computed with {active:,};")
print(f"the dense model of the same width has {small.n_parameters():,}.")

# %%
moe_pictures.expert_shares(mixtures)

# %% [markdown] lang="en"
# ## 7 · At the size of the labs
#
# The same three methods at a million parameters, with a vocabulary of words. DPO and GRPO learn a task of reasoning-gym, sums and differences of two or three digits, after careless teachers again. The small student learns additions from few examples; its "before" is the same student without a teacher. They take minutes each. So **this cell shows figures that came with the course**, measured on two processor cores. They were made by the following commands; set `RUN_LABS = True` and the last one is run here, for figures of your own.
#
# ```
# python labs/pretrain.py --recipe nano
# python labs/sft.py --recipe sft-nano
# python labs/sft.py --recipe sft-careless
# python labs/preferences.py
# ```

# %%
RUN_LABS = False
file = course_root() / "lessons" / "measured" / "13_preferences.json"
if RUN_LABS:
    subprocess.run([sys.executable, course_root() / "labs" / "preferences.py"], check=True)
    file = runs_dir() / "lesson-13-labs.json"
measured = json.loads(file.read_text())
preference_pictures.before_and_after(
    {name: (lab["before"], lab["after"]) for name, lab in measured.items()},
    {name: lab["kl"] for name, lab in measured.items()},
)

# %% [markdown] lang="en"
# ## 8 · Play
#
# What does a reward cost that is *nearly* what we mean? Here it also pays half a point for an answer that is off by ten: right but for the carry. Predict what the model will do, then run it. Change the numbers: a larger `kl_weight` keeps it at home, none at all lets it run.

# %%
HALF_MARKS = True
KL_WEIGHT = 0.04
play_steps = budget(smoke=2, cpu=30)


class Generous:
    """A task whose marks are too kind."""

    def __init__(self, task) -> None:
        self.task, self.question, self.messages = task, task.question, task.messages

    def score(self, answer: str) -> float:
        off_by_ten = answer.isdigit() and abs(int(answer) - int(self.task.answer)) == 10
        return 0.5 if HALF_MARKS and off_by_ten else self.task.score(answer)


playing = copy.deepcopy(base)
play_task = GroupTask(
    policy=playing,
    reference=base,
    tokenizer=tokenizer,
    tasks=[Generous(task) for task in practice],
    exam=exam,
    batch_size=practising.batch_size,
    max_new_tokens=longest,
    kl_weight=KL_WEIGHT,
    measures=[drift.measure],
)
found = train(
    "play",
    playing,
    play_task,
    steps=play_steps,
    optimizer="adamw",
    lr=3e-4,
    floor=0.3,
    evaluations=1,
).metrics()[-1]
print(f"exam {found['val_exact_match']:.0%}, KL {found['val_kl']:.2f} nats per answer")
preference_pictures.what_it_says({"before": said(base), "after": said(playing)}, right, careless)

# %% [markdown] lang="en"
# ## What you have now
#
# - **Log-probabilities of answers**: the number that everything here is made of.
# - **DPO**: a loss on pairs. Its only brake is β, and its only promise a distance.
# - **GRPO**: the model's own answers, marked by a program, compared within a group; clipped, and priced by the KL divergence.
# - **Distillation**: a whole distribution for each token, at a temperature, in one of two directions.
# - A **mixture of experts**: many parameters, few of them for each token, and a router that has to be kept fair.
# - A habit: never report a reward without the KL divergence and a held-out exam beside it.
#
# **Where it lives.** `course_utils/alignment/` has the losses, `training/preference_task.py`, `group_task.py` and `distillation_task.py` what the trainer sees. The labs are `labs/dpo.py` (on your own pairs with `--data my_pairs.jsonl`), `labs/grpo.py` (`--tasks` takes any generator of reasoning-gym) and `labs/distill.py`. Experts are an option of the GPT, in `models/gpt/moe.py`: `labs/pretrain.py --recipe nano-moe`.
#
# **Next:** lesson 14, *Data parallel*: the same training on many processes.
#
# **Further reading**
# - R. Rafailov et al., *Direct Preference Optimization*, 2023.
# - Z. Shao et al., *DeepSeekMath*, 2024. GRPO. And Z. Liu et al., *Understanding R1-Zero-Like Training*, 2025, on what its normalisation does.
# - J. Schulman et al., *Proximal Policy Optimization Algorithms*, 2017; and his note *Approximating KL Divergence*, 2020.
# - G. Hinton, O. Vinyals, J. Dean, *Distilling the Knowledge in a Neural Network*, 2015.
# - Y. Gu et al., *MiniLLM*, 2023. Reverse KL for language models.
# - W. Fedus, B. Zoph, N. Shazeer, *Switch Transformers*, 2021. Experts, top-1.
# - L. Gao et al., *Scaling Laws for Reward Model Overoptimization*, 2022. What happens when one rewards too long.
