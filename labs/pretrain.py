"""Pretrain a GPT on text: from random weights to a model that continues a text.

    python labs/pretrain.py --recipe nano
    python labs/pretrain.py --recipe nano --data shakespeare --steps 500 --name bard
    accelerate launch --config_file labs/accelerate/multi_gpu.yaml labs/pretrain.py \
        --recipe minimind-26m --resume

labs/README.md explains recipes, launching and resuming.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from course_utils.models import gpt
from course_utils.tokenizer.fast import FastBPE
from course_utils.training.lab.language_lab import LanguageConfig, gpt_config, language_trainer
from course_utils.training.lab.language_run import folder_of_run
from course_utils.training.lab.recipes import open_lab, run_lab
from course_utils.training.loop.trainer import Trainer
from course_utils.training.storage.rng import seed_everything
from course_utils.training.tasks.corpora import text_corpus, tokenizer_for
from course_utils.training.tasks.expert_loads import ExpertLoads
from course_utils.training.tasks.language import CorpusTask, bytes_of_tokens
from course_utils.training.tasks.samples import Samples


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(LanguageConfig):
    """Pretrain a GPT on text.

    Attributes:
        preset: The preset that sets the model's shape: nano, minimind-26m, minimind-64m or
            gpt2-124m.
        d_model: Override the preset's model width.
        n_layers: Override the preset's number of blocks.
        n_heads: Override the preset's number of query heads.
        n_kv_heads: Override the preset's number of key and value heads.
        head_dim: Override the preset's width of each attention head.
        d_ff: Override the preset's hidden width of the feed-forward network, or of each expert.
        n_experts: Override the preset's number of experts per block; 0 is one feed-forward network
            without a router.
        top_k: Override the preset's number of experts that the router chooses for each token.
        balance: Override the preset's weight of the load-balancing loss.
        dropout: The dropout rate on residual branches during training.
        data: The text sets to train on, separated by commas: names, paths or hf:owner/name.
        max_documents: Read at most this many documents.
        held_out: The share of the documents in the validation set.
        vocab: The vocabulary size. A tokenizer of this size is trained on the data if the data
            cache has none.
        tokenizer: Use this tokenizer.json instead, given by its path or by a run's name.
        prompts: Prompts to complete at every evaluation, separated by |.
    """

    recipe: str = "nano"
    preset: str = "nano"
    d_model: int | None = None
    n_layers: int | None = None
    n_heads: int | None = None
    n_kv_heads: int | None = None
    head_dim: int | None = None
    d_ff: int | None = None
    n_experts: int | None = None
    top_k: int | None = None
    balance: float | None = None
    dropout: float = 0.0
    data: str = "wiki"
    max_documents: int | None = None
    held_out: float = 0.05
    vocab: int = 2048
    tokenizer: str | None = None
    prompts: str = "The city of|In physics,"


def load_tokenizer(config: PretrainConfig) -> FastBPE:
    if config.tokenizer is None:
        return tokenizer_for(config.data, config.vocab, config.held_out)
    path = Path(config.tokenizer).expanduser()
    return FastBPE.load(
        path if path.is_file() else folder_of_run(config.tokenizer) / "tokenizer.json"
    )


def make_trainer(config: PretrainConfig) -> Trainer:
    """Everything a run needs, ready for `train()`."""
    tokenizer = load_tokenizer(config)
    corpus = text_corpus(
        config.data, tokenizer, held_out=config.held_out, max_documents=config.max_documents
    )
    task = CorpusTask(
        train=corpus.train,
        validation=corpus.validation,
        context=config.context,
        batch_size=config.batch_size,
        bytes_of=bytes_of_tokens(tokenizer),
        seed=config.seed,
        evaluation_rows=config.evaluation_rows,
    )
    shape = gpt_config(
        config.preset,
        vocab=tokenizer.vocab_size,
        context=config.context,
        d_model=config.d_model,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        n_kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        d_ff=config.d_ff,
        n_experts=config.n_experts,
        top_k=config.top_k,
        balance=config.balance,
        dropout=config.dropout,
    )
    if shape.n_experts:
        held_out = torch.arange(min(8, task.n_validation_rows))
        task.measures = [ExpertLoads(task.rows(task.validation, held_out, 0)["tokens"])]
    prompts = config.prompts.split("|") if config.prompts else []
    samples = [Samples(tokenizer, prompts, context=config.context)] if prompts else []
    seed_everything(config.seed)
    identity = {name: getattr(config, name) for name in ("data", "held_out", "max_documents")}
    identity["corpus"] = corpus.fingerprint
    return language_trainer(
        gpt.GPT(shape),
        task,
        tokenizer,
        config,
        identity=identity,
        callbacks=samples,
    )


def size(shape: gpt.GPTConfig) -> str:
    active = f", {shape.n_active():,} of them active per token" if shape.n_experts else ""
    return f"{shape.n_parameters():,} parameters{active}."


def train(argv: Sequence[str]) -> None:
    config = open_lab(PretrainConfig, argv, __file__)
    trainer = make_trainer(config)
    if trainer.is_main:
        print(size(trainer.model.config))
    summary = trainer.train()
    if trainer.is_main:
        found = summary.metrics
        print(
            f"{found['val_loss']:.3f} nats per token, {found['val_bits_per_byte']:.3f} bits per "
            f"byte on held-out text, after {summary.elapsed_s:.0f} s of training at "
            f"{found['tokens_per_s']:,.0f} tokens/s (MFU {found['mfu']:.1%}).\n"
            f"Talk to it: python labs/chat.py {summary.folder.name}"
        )


if __name__ == "__main__":
    run_lab(train)
