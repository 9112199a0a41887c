"""Pretraining a mixture of experts as people start it, and using what comes out."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from course_utils.base.paths import course_root
from course_utils.training.lab.language_run import export_to_hf, load_language_model

LAB = course_root() / "labs" / "pretrain.py"


def test_a_mixture_is_trained_measured_loaded_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COURSE_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "data"))
    shape = (
        "--n-experts",
        "4",
        "--top-k",
        "2",
        "--n-layers",
        "1",
        "--steps",
        "8",
        "--accumulation",
        "2",
    )
    command = ("--recipe", "pretrain-smoke", *shape, "--precision", "no", "--name", "mixture")
    monkeypatch.setattr(sys, "argv", [str(LAB), *command])
    runpy.run_path(str(LAB), run_name="__main__")

    model, _ = load_language_model("mixture")
    config = model.config
    counted = sum(parameter.numel() for parameter in model.parameters())
    active = counted - sum(p.numel() for p in model.parameters() if p.ndim == 3) // 2
    said = capsys.readouterr().out
    assert f"{counted:,} parameters, {active:,} of them active per token." in said
    assert (config.n_experts, config.top_k) == (4, 2)

    lines = (tmp_path / "runs" / "mixture" / "metrics.jsonl").read_text().splitlines()
    measured = [row for row in map(json.loads, lines) if "val_loss" in row]
    assert measured[-1]["val_loss"] < measured[0]["val_loss"]
    assert all(0.9 < row["val_balance"] < 2 for row in measured)
    assert all(0.25 <= row["val_busiest"] <= 0.5 for row in measured)

    folder = export_to_hf("mixture", tmp_path / "hf")
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    tokens = torch.randint(config.vocab, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=1e-3, atol=1e-4)
    again, _ = load_language_model(folder)
    with torch.no_grad():
        assert torch.equal(again(tokens), model(tokens))
