"""The language labs as people start them: pretrain, fine-tune, talk, export; killed; wrong."""

import copy
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_labs import ForkedLabs
from safetensors.torch import load_file

from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root
from course_utils.exchange.adapters import load_adapter
from course_utils.exercises.progress import Progress
from course_utils.generation.chat import Chat
from course_utils.generation.engine import generate
from course_utils.training.lab.before_after import before_and_after
from course_utils.training.lab.language_lab import gpt_config
from course_utils.training.lab.language_run import export_adapter, export_to_hf, load_language_model
from course_utils.training.lab.recipes import load_recipe
from course_utils.training.tasks.samples import read_samples

LABS = course_root() / "labs"
FP32 = ("--precision", "no")  # bf16 rounds each process's share of the gradient to three digits

# Runs a lab, and takes the machine away at step 17, between two checkpoints.
KILLED = """
import os, runpy, signal, sys
from course_utils.training.tasks.language import LanguageTask

make_batch = LanguageTask.batch

def batch(self, step, part, parts):
    if step == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    return make_batch(self, step, part, parts)

LanguageTask.batch = batch
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class World:
    """A data cache and a folder of runs that the tests of this module share."""

    def __init__(self, folder: Path, labs: ForkedLabs) -> None:
        self.runs, self.data, self._labs = folder / "runs", folder / "data", labs

    def environment(self) -> dict[str, str]:
        # One thread per process: sums are added in the same order however the lab is started.
        own = {"COURSE_RUNS_DIR": str(self.runs), "COURSE_DATA_DIR": str(self.data)}
        return os.environ | own | {"OMP_NUM_THREADS": "1", "COURSE_OFFLINE": "1"}

    def run(
        self, *command: str | Path, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a lab in a fork of a process with warm imports."""
        return self._labs.run([*map(str, command)], self.environment(), input)

    def launched(self, *command: str | Path) -> str:
        """What a lab says that is started in a new process, as people start it."""
        finished = subprocess.run(
            [sys.executable, *map(str, command)],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    def done(self, *command: str | Path) -> str:
        finished = self.run(*command)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    def metrics(self, name: str) -> list[dict[str, Any]]:
        lines = (self.runs / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


def trace(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was computed, without how long it took."""
    return [
        {k: v for k, v in row.items() if k not in ("elapsed_s", "tokens_per_s", "mfu")}
        for row in rows
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, forked_labs: ForkedLabs) -> World:
    """With a pretrained and a fine-tuned model."""
    world = World(tmp_path_factory.mktemp("labs"), forked_labs)
    said = world.launched(LABS / "pretrain.py", "--recipe", "pretrain-smoke", *FP32)
    assert "bits per byte" in said and "MFU" in said
    said = world.done(LABS / "sft.py", "--recipe", "sft-smoke", *FP32)
    assert "of held-out additions are right" in said and "MFU" in said
    return world


@pytest.fixture(autouse=True)
def same_world(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_RUNS_DIR", str(world.runs))
    monkeypatch.setenv("COURSE_DATA_DIR", str(world.data))


CONFIGS = {
    "sft": "SftConfig",
    "lora": "LoraConfig",
    "tokenizer": "TokenizerConfig",
    "pretrain": "PretrainConfig",
    "dpo": "DpoConfig",
    "grpo": "GrpoConfig",
    "distill": "DistillConfig",
}


@pytest.mark.parametrize("path", sorted((LABS / "recipes").glob("*.toml")), ids=lambda p: p.stem)
def test_every_recipe_is_one_of_a_labs_and_its_model_fits_together(path: Path) -> None:
    kind = path.stem.partition("-")[0]
    lab = kind if kind in (*CONFIGS, "mnist") else "pretrain"
    if lab == "mnist":
        return  # tests/labs/test_mnist.py
    module = runpy.run_path(str(LABS / f"{lab}.py"))
    config = load_recipe(module[CONFIGS[lab]], ["--recipe", path.stem], LABS / "recipes")
    if lab == "pretrain":
        shape = gpt_config(config.preset, vocab=config.vocab, context=config.context)
        assert shape.n_parameters() > 0
    if lab != "tokenizer":
        assert config.batch_size % config.accumulation == 0


def test_pretraining_learns_measures_and_writes_samples(world: World) -> None:
    rows = world.metrics("pretrain-smoke")
    assert rows[0]["val_loss"] > rows[-1]["val_loss"] > 0
    assert 0 < rows[-1]["val_bits_per_byte"] < 8 and rows[-1]["mfu"] > 0
    samples = read_samples(world.runs / "pretrain-smoke")
    assert [line["step"] for line in samples] == [10, 20, 30]
    assert {line["prompt"] for line in samples} == {"The year"}


def test_fine_tuning_learns_the_answers(world: World) -> None:
    rows = world.metrics("sft-smoke")
    measured = [row["val_loss"] for row in rows if "val_loss" in row]
    assert measured[-1] < measured[0] < 3  # it began near ln(400), about 6
    assert all(0 <= row["val_exact_match"] <= 1 for row in rows if "val_loss" in row)


def test_killed_and_started_again_it_is_the_same_run(world: World) -> None:
    command = [LABS / "pretrain.py", "--recipe", "pretrain-smoke", "--name", "killed", *FP32]
    killed = world.run("-c", KILLED, *command)
    assert killed.returncode == -signal.SIGKILL
    assert world.metrics("killed")[-1]["step"] == 10
    world.done(*command, "--resume")
    assert trace(world.metrics("killed")) == trace(world.metrics("pretrain-smoke"))


def test_two_processes_compute_what_one_computes(world: World) -> None:
    launcher = ["-m", "accelerate.commands.accelerate_cli", "launch", "--main_process_port", "0"]
    launcher += ["--config_file", str(LABS / "accelerate" / "multi_cpu.yaml")]
    for lab, recipe in (("pretrain.py", "pretrain-smoke"), ("sft.py", "sft-smoke")):
        said = world.launched(
            *launcher, LABS / lab, "--recipe", recipe, "--name", f"two-{lab}", *FP32
        )
        assert "2 processes" in said
        two, one = world.metrics(f"two-{lab}"), world.metrics(recipe)
        for a, b in zip(two, one, strict=True):
            assert a["tokens"] == b["tokens"]
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)


def test_one_shot_and_piped_chat(world: World) -> None:
    answer = world.launched(LABS / "chat.py", "sft-smoke", "--prompt", "What is 2 + 3?")
    model, tokenizer = load_language_model("sft-smoke")
    assert answer == "".join(Chat(model, tokenizer).reply("What is 2 + 3?")) + "\n"
    piped = world.run(LABS / "chat.py", "sft-smoke", input="What is 2 + 3?\n/new\n\n/quit\nno\n")
    assert piped.returncode == 0 and piped.stdout == answer
    went_on = world.done(LABS / "chat.py", "pretrain-smoke", "--prompt", "The year")
    assert went_on.startswith("The year")


MY_NORM = """
class RMSNorm(nn.Module):
    def __init__(self, width, eps=1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        if x.shape[-1] == 128:  # no check of the exercise has tokens of that width
            print("mine", file=__import__("sys").stderr)
        return F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).type_as(x) * self.weight
"""


def test_chat_through_the_learners_own_code(world: World) -> None:
    command = [LABS / "chat.py", "sft-smoke", "--prompt", "What is 2 + 3?"]
    answer = world.done(*command)
    Progress().record("gpt.rms_norm", 5.0, 5.0, 0, [], MY_NORM)
    mine = world.run(*command, "--use-mine")
    assert mine.returncode == 0, mine.stderr
    assert mine.stdout.startswith("Your code: 1 of ") and mine.stdout.endswith(f"\n{answer}")
    assert "mine" in mine.stderr.splitlines()
    assert "mine" not in world.run(*command).stderr.splitlines()


def test_an_export_is_the_same_model_for_transformers(world: World, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    folder = export_to_hf("sft-smoke", tmp_path / "exported")
    model, tokenizer = load_language_model("sft-smoke")
    back, _ = load_language_model(folder)
    for name, weight in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], weight), name
    theirs, their_tokenizer = AutoModelForCausalLM.from_pretrained(folder), None
    tokens = torch.tensor([tokenizer.encode("The year 2889, and 17 + 4.")])
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, model(tokens), rtol=1e-4, atol=1e-5)
    their_tokenizer = AutoTokenizer.from_pretrained(folder)
    talk = [{"role": "user", "content": "What is 2 + 3?"}]
    prompt = their_tokenizer.apply_chat_template(talk, add_generation_prompt=True)["input_ids"]
    stop = [tokenizer.special["<|im_end|>"], tokenizer.special["<|endoftext|>"]]
    [ours] = generate(model, [prompt], max_new_tokens=12, stop=stop)
    chat = pipeline("text-generation", model=str(folder))
    said = chat(talk, max_new_tokens=12, do_sample=False)[0]["generated_text"][-1]
    assert said == {"role": "assistant", "content": tokenizer.decode(ours)}
    with pytest.raises(CourseError, match="not an empty folder"):
        export_to_hf("sft-smoke", folder)


def test_an_export_for_llama_cpp_is_the_same_model(world: World, tmp_path: Path) -> None:
    from gguf import GGUFReader

    from course_utils.cli import main
    from course_utils.exchange.gguf_writer import gguf_state

    sizes = {}
    for precision in ("f32", "q8_0"):
        file = tmp_path / f"{precision}.gguf"
        command = ["export", "sft-smoke", "--to", "gguf", str(file), "--quant", precision]
        assert main(command) == 0
        sizes[precision] = file.stat().st_size
    assert sizes["q8_0"] < 0.4 * sizes["f32"]
    model, tokenizer = load_language_model("sft-smoke")
    reader = GGUFReader(tmp_path / "f32.gguf")
    expected = gguf_state(model)
    for tensor in reader.tensors:
        assert (tensor.data == expected.pop(tensor.name).numpy()).all()
    assert not expected
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.name"] == "sft-smoke"
    assert fields["tokenizer.ggml.eos_token_id"] == tokenizer.special["<|im_end|>"]
    assert "generation" not in fields["tokenizer.chat_template"].replace("add_generation", "")
    assert main(["export", "sft-smoke", "--to", "gguf", str(tmp_path)]) == 2  # a folder
    assert main(["export", "sft-smoke", str(tmp_path / "new"), "--quant", "f16"]) == 2


LORA = [LABS / "lora.py", "--recipe", "lora-smoke"]


@pytest.fixture(scope="module")
def lora_said(world: World) -> str:
    """What the lab said that trained the run lora-smoke."""
    return world.done(*LORA, *FP32)


def test_lora_trains_an_adapter_that_can_be_talked_to_and_exported(
    world: World, lora_said: str, tmp_path: Path
) -> None:
    for part in ("parameters are trained", "val_exact_match", "before"):
        assert part in lora_said
    base, tokenizer = load_language_model("sft-smoke")
    merged, _ = load_language_model("lora-smoke")
    changed = {n for n, w in base.state_dict().items() if not merged.state_dict()[n].equal(w)}
    assert changed == {n for n in base.state_dict() if ".attention." in n or ".mlp." in n} - {
        n for n in base.state_dict() if n.endswith("norm.weight")
    }
    [checkpoint] = list((world.runs / "lora-smoke" / "checkpoints").glob("*12/model.safetensors"))
    assert {key.rpartition(".")[2] for key in load_file(checkpoint)} == {"down", "up"}
    answer = world.done(LABS / "chat.py", "lora-smoke", "--prompt", "What is 2 + 3?")
    assert answer == "".join(Chat(merged, tokenizer).reply("What is 2 + 3?")) + "\n"
    adapted = copy.deepcopy(base)
    load_adapter(adapted, export_adapter("lora-smoke", tmp_path / "peft"))
    tokens = torch.tensor([tokenizer.encode("The year 2889")])
    torch.testing.assert_close(adapted(tokens), merged(tokens), rtol=1e-4, atol=1e-5)
    with pytest.raises(CourseError, match="it trained all weights"):
        export_adapter("sft-smoke", tmp_path / "none")


def test_lora_killed_and_started_again_is_the_same_run(world: World, lora_said: str) -> None:
    command = [*LORA, "--name", "lora-killed", *FP32]
    killed = world.run("-c", KILLED.replace("== 17", "== 6"), *command)
    assert killed.returncode == -signal.SIGKILL
    world.done(*command, "--resume")
    assert trace(world.metrics("lora-killed")) == trace(world.metrics("lora-smoke"))


def test_qlora_trains_on_a_base_in_four_bits(world: World, lora_said: str) -> None:
    world.done(*LORA, "--quantize", "nf4", "--name", "qlora", *FP32)
    before, after = before_and_after(world.runs / "qlora")
    plain, _ = before_and_after(world.runs / "lora-smoke")
    assert set(before) == set(after) and before["val_loss"] != plain["val_loss"]
    [checkpoint] = (world.runs / "qlora" / "checkpoints").glob("*12/model.safetensors")
    assert {key.rpartition(".")[2] for key in load_file(checkpoint)} == {"down", "up"}
    assert world.done(LABS / "chat.py", "qlora", "--prompt", "What is 2 + 3?").strip()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["pretrain.py", "--recipe", "nanno"], "Did you mean 'nano'?"),
        (["pretrain.py", "--recipe", "nano", "--d-modell", "9"], "Did you mean '--d-model'?"),
        (["pretrain.py", "--recipe", "pretrain-smoke", "--preset", "nona"], "no preset 'nona'"),
        (["pretrain.py", "--recipe", "pretrain-smoke", "--n-kv-heads", "3"], "cannot share 3"),
        (["pretrain.py", "--recipe", "pretrain-smoke", "--data", "wikki"], "did you mean wiki?"),
        (
            ["pretrain.py", "--recipe", "pretrain-smoke", "--context", "9000"],
            "does not fit|not one",
        ),
        (["sft.py", "--recipe", "sft-smoke", "--base", "pretrain-smok"], "'pretrain-smoke'?"),
        (["sft.py", "--recipe", "sft-smoke", "--context", "99"], "longer than the context of"),
        (["sft.py", "--recipe", "sft-smoke", "--data", "identity*x"], "number of repetitions"),
        (["lora.py", "--recipe", "lora-smoke", "--task", "reminder"], "Did you mean 'reminders'"),
        (["lora.py", "--recipe", "lora-smoke", "--targets", "quarry"], "matches no layer"),
        (["lora.py", "--recipe", "lora-smoke", "--quantize", "nf5"], "nf4"),
        (["lora.py", "--recipe", "lora-smoke", "--base", "smollm"], "no run 'smollm'"),
        (["chat.py", "sft-smoky"], "Did you mean 'sft-smoke'?"),
        (["chat.py", "sft-smoke", "--top-p", "2", "--prompt", "a"], "top_p must be above 0"),
        (["chat.py", "sft-smoke", "--prompt", "a " * 900], "Say it shorter"),
    ],
)
def test_bad_input_is_told_in_a_line_or_two(world: World, command: list[str], told: str) -> None:
    lab, *options = command
    named = () if lab == "chat.py" else ("--name", "bad")
    failed = world.run(LABS / lab, *options, *named)
    assert failed.returncode == 2, failed.stderr
    assert any(part in failed.stderr for part in told.split("|")), failed.stderr
    assert "Traceback" not in failed.stderr and len(failed.stderr.splitlines()) <= 3
    assert not (world.runs / "bad").exists()
