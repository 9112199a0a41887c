# ---
# jupyter:
#   course:
#     number: "09"
#     title: "A chat model"
#     minutes: 100
#     prerequisites: ["07", "08"]
# ---

# %% [markdown] lang="en"
# # 09 · A chat model
#
# A pretrained model goes on with a text. Ask it something, and it may go on with three more questions, because that is what lists of questions look like. It knows language, and has no idea that it is being talked to.
#
# **Supervised fine-tuning** (SFT) teaches it that. The loss is the same, the training loop is the same, the model is the same. What changes is the data: conversations, in a format that says who speaks, and a mask that says which words are the model's to learn. At the end of this lesson you talk to a model of your own. It knows its name, it adds numbers that nobody ever added for it, and it stops by itself.
#
# **About 100 minutes. You need** lesson 07: rows, pretraining. If you have its run, this lesson builds on your own pretrained model.
#
# After this lesson you can
# - write conversations the way chat models read them, and read their templates,
# - decide which tokens a model learns to say, and check it by eye,
# - pack conversations into rows so that none sees another, and prove it,
# - tell whether a model learned to do something or only learned its examples by heart.

# %% tags=["setup"] id="819554f3b026"
from collections.abc import Mapping, Sequence
from dataclasses import replace
from heapq import heappop, heappush

import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from course_utils import budget, check, verified
from course_utils.base.errors import CourseError
from course_utils.base.ignored import IGNORED
from course_utils.data.chat import END, SPECIAL, START, TEMPLATE, Tokenizer
from course_utils.data.chat_sets import stream_chats
from course_utils.data.packing import fill_rows
from course_utils.data.tasks import additions
from course_utils.exercises.mine import use_mine
from course_utils.generation.chat import Chat, complete
from course_utils.generation.exam import Exam
from course_utils.models import gpt
from course_utils.models.gpt import PRESETS
from course_utils.models.gpt.model import attention_mask
from course_utils.pictures import text as text_pictures
from course_utils.training.lab.language_lab import LanguageConfig, language_trainer
from course_utils.training.lab.language_run import load_language_model
from course_utils.training.storage.run_reader import Run
from course_utils.training.tasks.corpora import chat_corpus, text_corpus, tokenizer_for
from course_utils.training.tasks.language import ChatTask, CorpusTask, bytes_of_tokens

# %% [markdown] lang="en"
# ## 1 · Before
#
# Here is the pretrained model: the one of lesson 07 if you have run it, or else one that is trained now for a minute.

# %%
context = 128


def pretrain_now():
    """A small pretrained model, for those who come here without one."""
    data = budget(smoke="sample", cpu="wiki")
    tokenizer = tokenizer_for(data, budget(smoke=512, cpu=2048))
    corpus = text_corpus(data, tokenizer)
    torch.manual_seed(0)
    model = gpt.GPT(replace(PRESETS["nano"], vocab=tokenizer.vocab_size, context=context))
    task = CorpusTask(
        train=corpus.train,
        validation=corpus.validation,
        context=context,
        batch_size=budget(smoke=4, cpu=32),
    )
    config = LanguageConfig(
        recipe="lesson-09-base",
        context=context,
        steps=budget(smoke=10, cpu=150, gpu=2000),
        batch_size=task.batch_size,
        evaluations=2,
        checkpoints=1,
    )
    language_trainer(model, task, tokenizer, config, identity={"data": data}).train()
    return model.cpu().eval(), tokenizer  # the trainer took it to the GPU, if there is one


try:
    base, tokenizer = load_language_model(budget(smoke="none", cpu="lesson-07"))
    print("This is the model that you pretrained in lesson 07.")
except CourseError:
    base, tokenizer = pretrain_now()

# %%
questions = ["Who are you?", "What is 27 + 15?", "Add 8 and 64.", "How are you today?"]
before = ["".join(complete(base, tokenizer, question, max_new_tokens=24)) for question in questions]
text_pictures.conversations({"it goes on with": before}, questions)

# %% [markdown] lang="en"
# ## 2 · A format
#
# A conversation is a list of messages, each with a role and a content. The model reads one stream of tokens. So we need a way to write the list as a text, and a way that cannot be confused with anything that people write. That is what **special tokens** are for: `<|im_start|>` and `<|im_end|>` are single tokens, numbers that no ordinary text turns into.
#
# The most widespread format is called ChatML. A system message, a question, an answer:
#
# ```
# <|im_start|>system⏎You are kind.<|im_end|>⏎<|im_start|>user⏎Hello!<|im_end|>⏎<|im_start|>assistant⏎…
# ```

# %% exercise="chat.render"

# %%
talk = [
    {"role": "user", "content": "What is 20 + 22?"},
    {"role": "assistant", "content": "42"},
    {"role": "user", "content": "Thank you!"},
    {"role": "assistant", "content": "You're welcome."},
]
print(render_chat(talk))

# %% [markdown] lang="en"
# Every model on the Hub brings its format along, as a small program in the template language Jinja. Wherever you load it, `apply_chat_template` writes conversations the way it was trained. A model that is asked in another format than its own answers much worse, and nothing warns you. This is ours; does it agree with your function?

# %%
print(TEMPLATE.replace("{%", "\n{%"), "\n")

theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizer.tokenizer, chat_template=TEMPLATE)
print("equal:", theirs.apply_chat_template(talk, tokenize=False) == render_chat(talk))

# %% [markdown] lang="en"
# ## 3 · What is to be learned
#
# Pretraining learns every token. Here that would be a mistake: the model is to learn how to **answer**, not how to ask. So only the assistant's words count in the loss. The rest is there to be read.
#
# And the `<|im_end|>` after an answer counts. It is the most important token of all: a model that never learned to say it never stops.
#
# One more thing. What if a user types `<|im_end|>⏎<|im_start|>assistant` into a message? If the tokenizer takes that for the special tokens, then users can put words into your model's mouth. So contents are encoded with special tokens switched off.

# %% exercise="chat.encode"

# %%
ids, learn = encode_chat(tokenizer, talk)
text_pictures.learned_tokens([tokenizer.decode([number]) for number in ids], learn)

# %% [markdown] lang="en"
# Does transformers agree on the ids and on the mask?

# %%
found = theirs.apply_chat_template(talk, return_assistant_tokens_mask=True, return_dict=True)
print("ids: ", found["input_ids"] == ids)
print("mask:", [bool(yes) for yes in found["assistant_masks"]] == learn)

# %% [markdown] lang="en"
# ## 4 · Conversations side by side
#
# Conversations are short, and of all lengths. Laying them end to end and cutting, as in lesson 07, would cut some between question and answer. Giving each a row of its own would leave most places empty. So we **pack**: several whole conversations share a row.
#
# Which with which? This is bin packing, and the best solution is hard to find. A simple rule comes close: take the longest first, and put each where the least room is left that suffices.

# %% exercise="chat.pack"

# %%
tasks = additions(2000, "train", seed=0)
encoded = [encode_chat(tokenizer, task.messages) for task in tasks[:400]]
lengths = [len(ids) for ids, _ in encoded]
rows = pack(lengths, context)
print(
    f"{len(lengths)} conversations of {min(lengths)} to {max(lengths)} tokens in {len(rows)} rows"
)
print(f"A row each: {sum(lengths) / (len(lengths) * context):.0%} of the places are used.")
print(f"Packed:     {sum(lengths) / (len(rows) * context):.0%}")

# %% [markdown] lang="en"
# Now several conversations stand in one row, and attention would let the second one look at the first. Then the answer to one question could be read off the answer to another. The cure is a mask: a token sees the tokens before it **in its own document**. (Positions need no cure: RoPE encodes distances, and within a document they are the same.)
#
# The targets have the same border. The last token of a document must not predict the first one of the next.

# %% exercise="chat.next_tokens"

# %% [markdown] lang="en"
# The mask of one row, with the border of each document:

# %% id="791ca5de1af7"
flat = [token for ids, _ in encoded for token in ids]
flags = [yes for _, learn in encoded for yes in learn]
starts = torch.tensor([0, *lengths]).cumsum(0).numpy()
tokens, learned, documents = fill_rows(
    rows[:2], torch.tensor(flat).numpy(), torch.tensor(flags).numpy(), starts, context
)
mask = attention_mask(0, context, tokens.device, documents)
text_pictures.who_sees_whom(mask[0, 0, :64, :64], documents[0, :64].tolist())

# %% [markdown] lang="en"
# **Proof.** Change every token of the first document, and look at the logits of the others. If anything leaks, they move.

# %%
base.eval()
with torch.no_grad():
    here = documents[:1] == 0
    changed = torch.where(here, (tokens[:1] + 7) % tokenizer.vocab_size, tokens[:1])
    for name, kept_apart in (("with the mask", documents[:1]), ("without", None)):
        moved = base(changed, documents=kept_apart) - base(tokens[:1], documents=kept_apart)
        print(f"{name:14} the other documents' logits move by {moved[~here].abs().max():.2g}")

# %% [markdown] lang="en"
# ## 5 · What to teach
#
# A million parameters do not make a conversationalist. But they are enough to do one thing well. We mix
#
# - **who it is**: questions about itself, with the name that you choose,
# - **additions** of two numbers up to 99, in five phrasings, made by a program.
#
# A model that has only ever seen one question at a time is lost at the second, so up to three exchanges are joined into a conversation.
#
# Sums are a fair exam, because there are 5050 of them and a fifth is **held out**: which ones follows from the numbers alone (3 + 4 and 4 + 3 go together), so no seed can put one on both sides. Who gets those right has learned to add. Who only gets the others right has learned a table by heart.

# %%
name, author = "Nano", "you"
n_sums = budget(smoke=200, cpu=20_000, gpu=50_000)
data = budget(smoke="", cpu="identity*20")
corpus = chat_corpus(
    data,
    tokenizer,
    context=context,
    sums=n_sums,
    turns=3,
    fill={"name": name, "author": author},
)
trained_on = {task.key for task in additions(n_sums, "train", seed=0)}
exam = Exam(tokenizer, additions(budget(smoke=20, cpu=200), "held_out", seed=0))
print(f"{len(corpus.train.lengths):,} conversations to learn from, {len(trained_on):,} of the sums")
print(
    f"{len(exam.tasks)} sums in the exam, {sum(t.key in trained_on for t in exam.tasks)} of them seen"
)

# %% [markdown] lang="en"
# ## 6 · Fine-tuning
#
# The trainer is the one that you know, and so are its settings. (Large models are fine-tuned with a learning rate ten to a hundred times lower than in pretraining, so that what they have learned there stays. Ours has not much to lose, and a new skill to learn.)

# %%
use_mine(["05", "06", "09"])

# %%
task = ChatTask(
    train=corpus.train,
    validation=corpus.validation,
    context=context,
    batch_size=budget(smoke=4, cpu=32),
    bytes_of=bytes_of_tokens(tokenizer),
    measures=[exam.measure],
)
config = LanguageConfig(
    recipe="lesson-09",
    context=context,
    steps=budget(smoke=12, cpu=450, gpu=2000),
    batch_size=task.batch_size,
    evaluations=budget(smoke=2, cpu=9),
    checkpoints=1,
    weight_decay=0.0,
)
torch.manual_seed(0)
model = gpt.GPT(base.config)
model.load_state_dict(base.state_dict())
identity = {"base": "lesson-07", "data": data, "sums": n_sums}
summary = language_trainer(model, task, tokenizer, config, identity=identity).train()

# %%
model.eval()
rows = Run(summary.folder).metrics()
text_pictures.chat_curves(rows)

# %% [markdown] lang="en"
# Look at the right picture. For a while nothing happens, and the loss falls all the same: the model learns the format, how long answers are, which digits are likely. Then the exam rises steeply. It has found out how carrying works, and *that* is worth the same for sums it has never seen.
#
# ## 7 · After


# %%
def answers(model: torch.nn.Module) -> list[str]:
    """Greedy answers to the questions above, each in a conversation of its own."""
    return ["".join(Chat(model, tokenizer, max_new_tokens=40).reply(q)) for q in questions]


text_pictures.conversations({"before": before, "after": answers(model)}, questions)

# %%
given = exam.answers(model)
wrong = [(t, a) for t, a in zip(exam.tasks, given, strict=True) if t.score(a) < 1]
stopped = sum(not answer.endswith("…") for answer in given)
print(
    f"{1 - len(wrong) / len(given):.1%} of {len(given)} held-out sums are right to the last digit;"
)
print(f"{stopped} of {len(given)} answers ended by themselves.")
for task_, answer in wrong[:5]:
    print(f"   {task_.question:28} {answer!r}, not {task_.answer}")

# %% [markdown] lang="en"
# ## 8 · Talk to it
#
# Change the line and run the cell, as often as you like; the conversation goes on. In a terminal: `python labs/chat.py lesson-09`.

# %%
chat = Chat(model, tokenizer)

# %%
for piece in chat.reply("What is 48 + 39?"):
    print(piece, end="")

# %% [markdown] lang="en"
# It is easy to find its limits. Three-digit numbers to add? It has seen them in answers only, never in a question, and fails. "What is 12 plus 12 plus 12?" The same. It has learned exactly what it was shown, and a bit of what follows from it. Larger models are shown more.
#
# ## 9 · Play
#
# What happens without the mask, when it learns the questions as well? Does it matter whether the model was pretrained? Choose one, and predict before you run it. And with fewer sums (`n_sums` in section 5; run on from there), when does it stop understanding and start learning by heart?

# %%
variants = {
    "as above": {},
    "from random weights": {"pretrained": False},
    "learning the questions too": {"mask": False},
}
play_steps = budget(smoke=4, cpu=40, gpu=500)

for variant, choice in variants.items():
    learner = gpt.GPT(base.config)
    if choice.get("pretrained", True):
        learner.load_state_dict(base.state_dict())
    train_side = corpus.train
    if not choice.get("mask", True):
        train_side = replace(train_side, learn=train_side.learn | True)
    called = f"lesson-09-{variant.replace(' ', '-')}"
    settings = replace(config, name=called, steps=play_steps, evaluations=1)
    variant_task = replace(task, train=train_side)
    run = language_trainer(learner, variant_task, tokenizer, settings, identity={"play": variant})
    found = run.train().metrics
    print(f"{variant:28} loss {found['val_loss']:.3f}, {found['val_exact_match']:.0%} of the exam")

# %% [markdown] lang="en"
# ## What you have now
#
# - A **chat format** with special tokens that nobody can type, and its template in Jinja.
# - A **mask**: the model learns the assistant's words and the token that ends them.
# - **Packing** without leaks: whole conversations in a row, each seeing itself alone.
# - A **held-out exam**, marked by a program. It tells computing from remembering.
# - A chat model of your own, from text to talk: your tokenizer, your attention, your training.
#
# **Where it lives.** `course_utils/data/chat.py`, `packing.py` and `tasks.py`, `generation/chat.py` and `exam.py`. The labs: `python labs/sft.py --recipe sft-nano` on your own data (`--data my_chats.jsonl`), `python labs/chat.py`, and `course export lesson-09 --to hf my-model` writes it for transformers, with its template.
#
# **Next:** lesson 10 trains in 16 bits, lesson 11 fine-tunes a real pretrained model with a hundredth of its weights, and lesson 13 teaches by preference and reward.
#
# **Further reading**
# - L. Ouyang et al., *Training language models to follow instructions with human feedback*, 2022. InstructGPT.
# - R. Taori et al., *Stanford Alpaca*, 2023. Instructions made by a larger model.
# - C. Zhou et al., *LIMA: Less Is More for Alignment*, 2023. How little data it takes.
# - N. Lee et al., *Teaching Arithmetic to Small Transformers*, 2023.
# - D. Johnson, *Near-optimal bin packing algorithms*, 1973.
