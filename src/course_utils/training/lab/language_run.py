"""Load the model and the tokenizer of a language model's run from its folder.

    runs/NAME/
      config.toml       holds the model's shape in [recipe.model]
      tokenizer.json    the model's tokenizer
      checkpoints/      the weights

A folder written by `course export`, or a Qwen3 model downloaded from the Hub, can be used instead.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from course_utils.base.errors import CourseError, did_you_mean
from course_utils.base.paths import runs_dir
from course_utils.exchange.pretrained import is_pretrained, load_pretrained, read_model
from course_utils.models.fingerprint import fingerprint
from course_utils.models.gpt import GPT, GPTConfig, YaRN
from course_utils.models.lora import LoRAConfig, inject, merge_and_unload
from course_utils.tokenizer.fast import FastBPE
from course_utils.training.storage.checkpoint import load_run
from course_utils.training.storage.run_reader import list_runs

if TYPE_CHECKING:
    from course_utils.exchange.gguf_writer import Precision

TOKENIZER = "tokenizer.json"


def shape_of(config: GPTConfig) -> dict[str, Any]:
    """A model's shape as config.toml stores it."""
    return {name: value for name, value in asdict(config).items() if value is not None}


def config_of(shape: Mapping[str, Any]) -> GPTConfig:
    """The shape that `shape_of` wrote."""
    yarn = shape.get("yarn")
    return GPTConfig(**{**shape, "yarn": YaRN(**yarn) if yarn else None})


def load_language_model(run: str | Path) -> tuple[GPT, FastBPE]:
    """The model and tokenizer of a run, by its name or folder, or of a pretrained model.

    A LoRA run's adapter is merged into its base.

    Args:
        run: A run's name or folder, an exported model's folder, or a name that `load_pretrained`
            knows.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        CourseError: when the run does not exist, is damaged, or did not train a language model.
    """
    model, tokenizer = _load(run)
    return merge_and_unload(model).eval(), tokenizer


def load_base(run: str | Path) -> tuple[GPT, FastBPE, str]:
    """Load a base model to fine-tune, with a fingerprint of its weights to compare on resume.

    The fingerprint of a LoRA run is taken before the adapter is merged: merging rounds differently
    on different machines, and a run must be able to resume on another machine.
    """
    model, tokenizer = _load(run)
    weights = fingerprint(model)
    return merge_and_unload(model).eval(), tokenizer, weights


def _load(run: str | Path) -> tuple[GPT, FastBPE]:
    """Load a model as it was saved: a LoRA run's adapter is not merged."""
    if is_pretrained(str(run)):
        return load_pretrained(run)
    folder = folder_of_run(run)
    tokenizer = FastBPE.load(folder / TOKENIZER)
    if (folder / "config.json").is_file():
        return read_model(folder), tokenizer
    try:
        recipe = tomllib.loads((folder / "config.toml").read_text("utf-8"))["recipe"]
        config = config_of(recipe["model"])
        lora = LoRAConfig(**recipe["lora"]) if "lora" in recipe else None
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise CourseError(
            f"{folder} is not a language model's run ({error}). `course runs` lists the runs."
        ) from None
    if lora is not None:
        return load_adapted(folder, recipe, lora), tokenizer
    model = GPT(config)
    load_run(model, folder)
    return model, tokenizer


def load_adapted(folder: Path, recipe: Mapping[str, Any], config: LoRAConfig) -> GPT:
    """Load the base model of a LoRA run together with the run's trained adapter.

    If the run quantized its base, the weights are rounded in the same way and dequantized to full
    precision: the adapter was trained on the rounded weights, and it can then be merged.

    Raises:
        CourseError: when the base has been trained again since: an adapter works only with the
            weights that it was trained on.
    """
    base = recipe["base"]
    model, _, weights = load_base(base)
    if recipe.get("base_weights", weights) != weights:  # older runs have no fingerprint
        replaced = runs_dir() / ".previous" / Path(base).name
        back = f", or put the earlier {base} back: see {replaced}" if replaced.is_dir() else ""
        raise CourseError(
            f"{folder.name} is an adapter for {base}, which has other weights now. "
            f"Train {folder.name} again{back}."
        )
    if "quantize" in recipe:
        from course_utils.models.quant import dequantize_linears, quantize_linears

        quantize_linears(model, recipe["quantize"])
        dequantize_linears(model)
    inject(model, config)
    load_run(model, folder)
    return model


def folder_of_run(run: str | Path) -> Path:
    """The folder of a run that is given by name or path.

    Raises:
        CourseError: when there is none; it suggests the nearest name.
    """
    for folder in (runs_dir() / str(run), Path(run).expanduser()):
        if (folder / "config.toml").is_file() or (folder / "config.json").is_file():
            return folder
    known = [found.name for found in list_runs(runs_dir())]
    raise CourseError(
        f"There is no run {str(run)!r} in {runs_dir()}.{did_you_mean(str(run), known)} "
        "(`course runs` lists them)"
    )


def full_name(run: str) -> str:
    """A model's name or folder such that another working directory does not change its meaning."""
    if is_pretrained(run) or (runs_dir() / run).is_dir():
        return run
    return str(folder_of_run(run).resolve())


def is_chat_model(run: str | Path) -> bool:
    """Whether a run fine-tuned a model for conversations; an exported model is taken for one."""
    if is_pretrained(str(run)):
        return True
    folder = folder_of_run(run)
    if (folder / "config.json").is_file():
        return True
    return "base" in tomllib.loads((folder / "config.toml").read_text("utf-8"))["recipe"]


def export_adapter(run: str | Path, target: Path) -> Path:
    """Write the adapter of a LoRA run, without its base, in PEFT's format.

    Raises:
        CourseError: when the run does not exist or has no adapter, or `target` is not an empty
            folder.
    """
    from course_utils.exchange.adapters import save_adapter

    _refuse_used(target)
    folder = folder_of_run(run)
    recipe = tomllib.loads((folder / "config.toml").read_text("utf-8"))["recipe"]
    if "lora" not in recipe:
        raise CourseError(
            f"{folder.name} has no adapter: it trained all weights. Export it with --to hf."
        )
    model = load_adapted(folder, recipe, LoRAConfig(**recipe["lora"]))
    return save_adapter(model, target, recipe["base"])


def _refuse_used(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CourseError(f"{target} is not an empty folder: name a new one.")


def export_to_hf(run: str | Path, target: Path) -> Path:
    """Write a run as a transformers model: weights, configuration, tokenizer, chat template.

    Raises:
        CourseError: when there is no such run, or `target` is not an empty folder.
    """
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    from course_utils.data.chat import END, END_OF_TEXT, TEMPLATE
    from course_utils.exchange.hf import to_hf

    _refuse_used(target)
    model, tokenizer = load_language_model(run)
    if not torch.cuda.is_available():
        # transformers asks DeepSpeed, which would print that it found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    theirs = to_hf(model)
    special = tokenizer.special
    theirs.generation_config = GenerationConfig(
        eos_token_id=[special[END], special[END_OF_TEXT]], pad_token_id=special[END_OF_TEXT]
    )
    theirs.save_pretrained(target)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.tokenizer,
        eos_token=END,
        pad_token=END_OF_TEXT,
        model_max_length=model.config.context,
        chat_template=TEMPLATE,
    ).save_pretrained(target)
    return target


def export_to_gguf(run: str | Path, file: Path, precision: "Precision" = "f16") -> Path:
    """Write a run as one GGUF file for llama.cpp: weights, tokenizer, chat template.

    Raises:
        CourseError: when there is no such run, `file` is a folder, or GGUF has no room for what it
            is.
    """
    from course_utils.data.chat import END, END_OF_TEXT, TEMPLATE
    from course_utils.exchange.gguf_writer import write_gguf

    if file.is_dir():
        raise CourseError(f"{file} is a folder: name a file, such as {file / 'model.gguf'}.")
    model, tokenizer = load_language_model(run)
    return write_gguf(
        model,
        tokenizer,
        file,
        precision=precision,
        name=Path(run).name,
        chat_template=TEMPLATE,
        start=END_OF_TEXT,
        end=END,
    )
