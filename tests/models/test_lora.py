"""LoRA equals PEFT: outputs, gradients, files; and its own promises."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from course_utils.base.errors import CourseError
from course_utils.exchange.adapters import load_adapter, save_adapter
from course_utils.exchange.hf import from_hf, to_hf
from course_utils.models import lora
from course_utils.models.gpt import GPT, GPTConfig
from course_utils.models.lora import LoRAConfig, LoRALinear, inject, matches
from course_utils.models.quant import QuantizedLinear, dequantize_linears, quantize_linears

SHAPE = GPTConfig(
    vocab=61, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=48, context=32,
    qk_norm=False,
)  # fmt: skip
CONFIG = LoRAConfig(rank=4, alpha=10, targets=("attention.*", "mlp.down"))


def model(seed: int = 0, **changes) -> GPT:
    torch.manual_seed(seed)
    return GPT(replace(SHAPE, **changes)).eval()


def adapted(config: LoRAConfig = CONFIG) -> GPT:
    """With an adapter that does something."""
    one = model()
    inject(one, config)
    for _, layer in lora.adapters(one):
        nn.init.normal_(layer.up, std=0.2)
    return one


def tokens() -> torch.Tensor:
    return torch.randint(SHAPE.vocab, (3, 9), generator=torch.Generator().manual_seed(1))


def theirs_of(ours: GPT, folder: Path) -> PeftModel:
    """PEFT's model with our adapter, through the files."""
    plain = model()
    plain.load_state_dict(
        {n: p for n, p in copy.deepcopy(ours).state_dict().items() if n in plain.state_dict()}
        | {n.replace(".base.", "."): p for n, p in ours.state_dict().items() if ".base." in n}
    )
    save_adapter(ours, folder)
    return PeftModel.from_pretrained(to_hf(plain), folder, is_trainable=True)


# --- PEFT ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_outputs_and_gradients_equal_pefts_with_our_files(tmp_path, rslora, qk_norm, monkeypatch):
    monkeypatch.setitem(globals(), "SHAPE", replace(SHAPE, qk_norm=qk_norm))
    ours = adapted(replace(CONFIG, rslora=rslora))
    theirs = theirs_of(ours, tmp_path)
    expected = theirs(tokens()).logits
    found = ours(tokens())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    found.square().sum().backward()
    expected.square().sum().backward()
    gradients = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    mine = {n: p.grad for n, p in ours.named_parameters() if p.grad is not None}
    assert len(gradients) == len(mine) == 2 * len(list(lora.adapters(ours)))
    for name, layer in lora.adapters(ours):
        for matrix, kind in ((layer.down, "lora_A"), (layer.up, "lora_B")):
            block, end = name.split(".")[1], name.rpartition(".")[2]
            end = {"output": "o_proj", "down": "down_proj"}.get(end, f"{end[0]}_proj")
            [grad] = [
                g
                for n, g in gradients.items()
                if f"layers.{block}." in n and end in n and kind in n
            ]
            torch.testing.assert_close(matrix.grad, grad, rtol=1e-4, atol=1e-4)


def test_an_adapter_that_peft_saved_computes_the_same_here(tmp_path):
    hf = to_hf(model())
    described = LoraConfig(
        r=3, lora_alpha=5, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM",
        init_lora_weights=False,
    )  # fmt: skip
    theirs = get_peft_model(hf, described)
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs(tokens()).logits
    ours = model()
    config = load_adapter(ours, tmp_path)
    assert config.rank == 3 and "blocks.1.mlp.up" in config.targets and len(config.targets) == 4
    torch.testing.assert_close(ours(tokens()), expected, rtol=1e-5, atol=1e-5)


def test_on_a_model_of_transformers_the_names_are_its_own(tmp_path):
    one, other = to_hf(model()), to_hf(model())
    inject(one, LoRAConfig(targets=("q_proj",)))
    for _, layer in lora.adapters(one):
        nn.init.normal_(layer.up)
    theirs = PeftModel.from_pretrained(other, save_adapter(one, tmp_path))
    torch.testing.assert_close(one(tokens()).logits, theirs(tokens()).logits)


def test_an_adapter_comes_back_from_its_file_bit_equal(tmp_path):
    ours = adapted()
    save_adapter(ours, tmp_path)
    back = model()
    load_adapter(back, tmp_path)
    assert torch.equal(back(tokens()), ours(tokens()))
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) < 60_000


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"bias": "all"}, "bias"),
        ({"r": 5}, "of another model"),
    ],
)
def test_what_is_not_plain_lora_is_refused(tmp_path, change, says):
    import json

    save_adapter(adapted(), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    fresh = model()
    with pytest.raises(CourseError, match=says):
        load_adapter(fresh, tmp_path)
    assert not list(lora.adapters(fresh))


def test_a_damaged_or_missing_file_is_named(tmp_path):
    with pytest.raises(CourseError, match="no readable LoRA adapter"):
        load_adapter(model(), tmp_path)
    save_adapter(adapted(), tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(CourseError, match="no readable LoRA adapter"):
        load_adapter(model(), tmp_path)
    with pytest.raises(CourseError, match="which this model has not"):
        save_adapter(adapted(), tmp_path)
        load_adapter(model(n_layers=1), tmp_path)


# --- the layer ------------------------------------------------------------------------------------


def test_it_begins_as_the_model_was_and_trains_nothing_else():
    plain, one = model(), model()
    names = inject(one, CONFIG)
    assert len(names) == 2 * 5 and "blocks.0.attention.output" in names
    assert torch.equal(one(tokens()), plain(tokens()))
    trained = {name for name, p in one.named_parameters() if p.requires_grad}
    assert trained == {f"{name}.{side}" for name in names for side in ("down", "up")}
    mine, all_of_them = lora.trainable_share(one)
    assert all_of_them == SHAPE.n_parameters() + mine
    # attention: 32 → 32, 16, 16, and 32 → 32; mlp.down: 48 → 32
    assert mine == 2 * 4 * ((32 + 32) + (32 + 16) * 2 + (32 + 32) + (48 + 32))


def test_the_first_step_changes_up_and_not_down():
    one = model()
    inject(one, CONFIG)
    one(tokens()).square().sum().backward()
    for _, layer in lora.adapters(one):
        assert layer.up.grad.any() and not layer.down.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merging_changes_the_weights_and_not_the_outputs(dtype):
    one = adapted()
    lora.narrow(one, dtype)
    before = {n: p.clone() for n, p in one.state_dict().items()}
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        expected = one(tokens()).float()
        lora.merge(one)
        lora.merge(one)  # twice is once
        torch.testing.assert_close(one(tokens()).float(), expected, rtol=tolerance, atol=tolerance)
    name, layer = next(lora.adapters(one))
    assert not torch.equal(layer.base.weight, before[f"{name}.base.weight"])
    lora.unmerge(one)
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=tolerance, atol=tolerance)


def test_merged_and_unloaded_it_is_a_plain_model_that_can_be_exported():
    one = adapted()
    expected = one(tokens())
    plain = lora.merge_and_unload(one)
    assert plain is one and not list(lora.adapters(plain))
    assert set(plain.state_dict()) == set(model().state_dict())
    torch.testing.assert_close(from_hf(to_hf(plain))(tokens()), expected, rtol=1e-5, atol=1e-5)


def test_dropout_hides_inputs_from_the_product_only_and_only_in_training():
    base = nn.Linear(64, 8)
    layer = LoRALinear(base, LoRAConfig(rank=2, dropout=0.5))
    x = torch.randn(5, 64)
    assert torch.equal(layer.train()(x), base(x))  # up is zero
    nn.init.normal_(layer.up)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


def test_weight_is_what_the_layer_computes_with():
    one = adapted()
    for _, layer in lora.adapters(one):
        x = torch.randn(3, layer.in_features)
        torch.testing.assert_close(nn.functional.linear(x, layer.weight, layer.bias), layer(x))


def test_on_a_base_in_four_bits_the_adapter_learns_and_the_codes_stay():
    one = model(d_model=64, d_ff=128, head_dim=16)
    quantize_linears(one, "nf4")
    quantized = {n for n, m in one.named_modules() if isinstance(m, QuantizedLinear)}
    assert inject(one, LoRAConfig(targets=("attention.*", "mlp.*"))) and quantized
    with pytest.raises(CourseError, match="quantized layer has no room"):
        lora.merge(one)
    codes = {n: t.clone() for n, t in one.state_dict().items() if ".base." in n}
    optimizer = torch.optim.AdamW([p for p in one.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = one(tokens(), targets=tokens().roll(-1, 1))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(one.state_dict()[n], t) for n, t in codes.items())
    expected = one(tokens())
    dequantize_linears(one)
    plain = lora.merge_and_unload(one)
    torch.testing.assert_close(plain(tokens()), expected, rtol=1e-4, atol=1e-4)


def test_a_tied_output_layer_stays_as_it_is():
    assert "output" not in inject(model(tied=True), LoRAConfig(targets=("*",)))
    assert "output" in inject(model(tied=False), LoRAConfig(targets=("*",)))


def test_under_autocast_nothing_is_kept_twice():
    """The base and the product share one rounded input."""
    layer = LoRALinear(nn.Linear(256, 256), LoRAConfig(rank=4))
    lora.narrow(layer, torch.bfloat16)
    x = torch.randn(64, 256, requires_grad=True)
    kept: list[torch.Tensor] = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
        torch.autocast("cpu", torch.bfloat16),
    ):
        layer(x)
    activations = {t.data_ptr(): t.nbytes for t in kept if t.shape[0] == 64 and t.shape[-1] == 256}
    assert sum(activations.values()) == 64 * 256 * 2


@pytest.mark.parametrize(
    ("name", "pattern", "meant"),
    [
        ("blocks.3.attention.query", "query", True),
        ("blocks.3.attention.query", "attention.query", True),
        ("blocks.3.attention.query", "ry", False),
        ("blocks.3.attention.query", "attention.*", True),
        ("blocks.3.attention.query", "blocks.3.*", True),
        ("blocks.13.attention.query", "blocks.3.*", False),
        ("blocks.3.attention.query", "Query", False),
        ("query", "query", True),
        ("blocks.3.mlp.up", "*", True),
    ],
)
def test_patterns(name, pattern, meant):
    assert matches(name, pattern) is meant


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"rank": 0}, "rank is 0"), ({"dropout": 1.0}, "dropout"), ({"targets": ()}, "no targets")],
)
def test_settings_that_make_no_sense_are_refused(wrong, says):
    with pytest.raises(CourseError, match=says):
        LoRAConfig(**wrong)


def test_a_target_that_matches_nothing_is_refused_and_the_model_unchanged():
    one = model()
    with pytest.raises(CourseError, match=r"'quarry' matches no layer.*gate, key, output, query"):
        inject(one, LoRAConfig(targets=("query", "quarry")))
    assert not list(lora.adapters(one)) and all(p.requires_grad for p in one.parameters())
    inject(one, CONFIG)
    with pytest.raises(CourseError, match="already"):
        inject(one, CONFIG)
