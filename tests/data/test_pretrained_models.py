"""Pretrained models by name: from the hub's stand-in, from a folder, out of a GGUF file."""

import json
from pathlib import Path

import pytest
import torch
from standins import COMMIT, FileServer

from course_utils.base.errors import CourseError
from course_utils.data.chat import SPECIAL, TEMPLATE
from course_utils.exchange.gguf_reader import convert_gguf, read_tokenizer
from course_utils.exchange.gguf_writer import write_gguf
from course_utils.exchange.hf import to_hf
from course_utils.exchange.pretrained import load_pretrained, pretrained_folder
from course_utils.models.gpt import GPT, GPTConfig
from course_utils.tokenizer.fast import FastBPE

REPO = "someone/tiny"
TOKENS = torch.tensor([[5, 99, 7, 280, 31]])


def tiny(**changes) -> tuple[GPT, FastBPE]:
    tokenizer = FastBPE.train(["hello world, hello " * 9], 300, SPECIAL)
    torch.manual_seed(0)
    shape = {
        "vocab": 300, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8,
        "d_ff": 48, "context": 64,
    }  # fmt: skip
    return GPT(GPTConfig(**shape | changes)).eval(), tokenizer


def written(folder: Path, **changes) -> tuple[Path, GPT]:
    model, tokenizer = tiny(**changes)
    to_hf(model).save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")
    return folder, model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", [{}, {"qk_norm": False}, {"qk_norm": False, "qkv_bias": True}])
def test_a_folder_of_transformers_is_the_same_model(tmp_path, kind, tied) -> None:
    folder, model = written(tmp_path, tied=tied, **kind)
    back, tokenizer = load_pretrained(folder)
    assert torch.equal(back(TOKENS), model(TOKENS)) and not back.training
    assert (back.output.weight is back.embedding.weight) == tied
    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"
    assert load_pretrained(folder, torch.bfloat16)[0].embedding.weight.dtype == torch.bfloat16


def put_on(hub: FileServer, folder: Path) -> None:
    names = ["config.json", "model.safetensors", "tokenizer.json", "README.md"]
    about = {"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
    hub.files[f"api/models/{REPO}/revision/main"] = json.dumps(about).encode()
    tree = [
        {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": "0" * 40}
        for name in names[:3]
    ]
    hub.files[f"api/models/{REPO}/tree/{COMMIT}"] = json.dumps(tree).encode()
    for name in names[:3]:
        hub.files[f"{REPO}/resolve/{COMMIT}/{name}"] = (folder / name).read_bytes()


def test_a_model_of_the_hub_is_fetched_once(tmp_path, hub: FileServer, monkeypatch) -> None:
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "cache"))
    folder, model = written(tmp_path / "model")
    put_on(hub, folder)
    back, _ = load_pretrained(f"hf:{REPO}")
    assert torch.equal(back(TOKENS), model(TOKENS))
    fetched = {path for path in hub.hits if "resolve" in path}
    assert {path.rpartition("/")[2] for path in fetched} == {
        "config.json", "model.safetensors", "tokenizer.json"
    }  # fmt: skip
    hub.files.clear()
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    again, _ = load_pretrained(f"hf:{REPO}")
    assert torch.equal(again(TOKENS), model(TOKENS))


def test_what_the_hub_does_not_give_is_told(tmp_path, hub: FileServer, monkeypatch) -> None:
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "cache"))
    with pytest.raises(CourseError, match="The Hub does not give someone/tiny"):
        load_pretrained(f"hf:{REPO}")
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    with pytest.raises(CourseError, match=r"not on this machine.*COURSE_OFFLINE is set"):
        load_pretrained(f"hf:{REPO}")


def test_unknown_names_and_other_architectures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match="Did you mean 'smollm2-135m'"):
        pretrained_folder("smollm2-135")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    tiny()[1].save(tmp_path / "tokenizer.json")
    with pytest.raises(CourseError, match=r"model_type .'gpt2'. is not one of"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_damaged_weights_are_told(tmp_path: Path, damage: str) -> None:
    folder, _ = written(tmp_path)
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        weights.unlink()
    with pytest.raises(CourseError, match=r"cannot be read|holds no weights"):
        load_pretrained(folder)


@pytest.mark.parametrize("precision", ["f32", "q8_0"])
def test_a_gguf_file_unpacks_to_the_model_in_it(tmp_path: Path, precision: str) -> None:
    model, tokenizer = tiny(qk_norm=False, rope_theta=5e4)
    file = write_gguf(
        model, tokenizer, tmp_path / "m.gguf", precision=precision, chat_template=TEMPLATE
    )
    convert_gguf(file, tmp_path)
    back, its_tokenizer = load_pretrained(tmp_path)
    text = "Hello, wörld 1234! <|im_end|>"
    assert its_tokenizer.encode(text) == tokenizer.encode(text)
    error = (back(TOKENS) - model(TOKENS)).abs().max() / model(TOKENS).abs().max()
    assert error < (1e-5 if precision == "f32" else 0.05)


def test_digits_are_cut_as_the_file_says(tmp_path: Path) -> None:
    from gguf import GGUFWriter

    _, tokenizer = tiny()
    vocab = sorted(tokenizer.tokenizer.get_vocab().items(), key=lambda item: item[1])
    state = json.loads(tokenizer.tokenizer.to_str())["model"]
    for name, expected in (("smollm", 4), ("strange", None)):
        writer = GGUFWriter(tmp_path / f"{name}.gguf", "llama")
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name)
        writer.add_token_list([token for token, _ in vocab])
        writer.add_token_types([3 if token in SPECIAL else 1 for token, _ in vocab])
        writer.add_token_merges([" ".join(pair) for pair in state["merges"]])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        if expected is None:
            with pytest.raises(CourseError, match=r"'strange'. not understood"):
                read_tokenizer(tmp_path / f"{name}.gguf")
            continue
        read = read_tokenizer(tmp_path / f"{name}.gguf")
        assert read.special == tokenizer.special
        assert len(read.encode("1234")) == expected
        assert read.decode(read.encode("hello, wörld <|im_end|>")) == "hello, wörld <|im_end|>"
        assert read.encode("<|im_end|>") == [tokenizer.special["<|im_end|>"]]
        assert len(read.encode("<|im_end|>", special=False)) > 1


def test_a_file_that_is_no_gguf_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUX" + bytes(100))
    with pytest.raises(CourseError, match="not a readable GGUF file"):
        convert_gguf(tmp_path / "m.gguf", tmp_path)
