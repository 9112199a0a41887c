"""Texts that the model generates at each evaluation, stored in the run's folder."""

import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from course_utils.base.errors import CourseError
from course_utils.generation.engine import generate
from course_utils.generation.sampling import Sampling
from course_utils.tokenizer.fast import FastBPE
from course_utils.training.loop.callbacks import Callback, RunningTrainer
from course_utils.training.storage.run_folder import Record

FILE = "samples.jsonl"


class Samples(Callback):
    """Completes some prompts at every evaluation, prints the first completion, and stores all.

    They are written to runs/NAME/samples.jsonl, a line per prompt: step, prompt, text.

    Args:
        prompts: The prompts to complete.
        max_new_tokens: The maximum length of a completion.
        sampling: By default at temperature 0.8, the same random choices every time, so that what
            differs is the model.
        show: Whether to print as well.
        context: The model's context length: a prompt that does not fit is refused now, not only at
            the first evaluation.

    Raises:
        CourseError: for a prompt that is empty, or that leaves no room in `context`.
    """

    def __init__(
        self,
        tokenizer: FastBPE,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 40,
        sampling: Sampling | None = None,
        show: bool = True,
        context: int | None = None,
    ) -> None:
        self._tokenizer, self._prompts, self._show = tokenizer, list(prompts), show
        self._max_new_tokens = max_new_tokens
        self._sampling = sampling or Sampling(temperature=0.8, top_k=50, seed=0)
        self._ids = [tokenizer.encode(prompt) for prompt in self._prompts]
        for prompt, ids in zip(self._prompts, self._ids, strict=True):
            if not ids:
                raise CourseError(f"One of the prompts {self._prompts} is empty: leave it out.")
            if context is not None and len(ids) >= context:
                raise CourseError(
                    f"The prompt {prompt[:20]!r}… has {len(ids)} tokens, which leaves no room in a "
                    f"context of {context}: shorten it."
                )

    def on_eval(self, trainer: RunningTrainer, step: int, metrics: Record) -> None:
        if not trainer.is_main:
            return
        model = trainer.model
        model.eval()
        found = generate(
            model,  # type: ignore[arg-type]
            self._ids,
            max_new_tokens=self._max_new_tokens,
            sampling=self._sampling,
            stop=sorted(self._tokenizer.special.values()),
        )
        model.train()
        lines = [
            {"step": step, "prompt": prompt, "text": self._tokenizer.decode(ids)}
            for prompt, ids in zip(self._prompts, found, strict=True)
        ]
        with (trainer.config.folder / FILE).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        if self._show:
            first = lines[0]
            text = " ".join(f"{first['prompt']}{first['text']}".split())
            tqdm.write(f"step {step}, val_loss {metrics['val_loss']:.3f}: {text}")


def read_samples(folder: Path) -> list[dict[str, object]]:
    """The samples of a run, oldest first; those of steps that were trained again count once.

    Args:
        folder: runs/NAME.
    """
    path = folder / FILE
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    found = [json.loads(line) for line in lines if line.endswith("}")]
    return list({(line["step"], line["prompt"]): line for line in found}.values())
