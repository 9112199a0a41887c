"""However a global batch is divided, the step is the one of the whole batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_training import Toy, in_processes, toy_model, toy_trainer, trace, train

from course_utils.base.errors import CourseError
from course_utils.training.loop.callbacks import Callback
from course_utils.training.parts.schedule import warmup_cosine


def weights_after(runs: Path, **settings: Any) -> Tensor:
    trainer = toy_trainer(runs, **settings)
    trainer.train()
    return nn.utils.parameters_to_vector(trainer.model.parameters()).detach()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    # Linear in the gradient, unlike Adam, which would hide a wrong scale.
    return torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("accumulation", [2, 4, 8])
def test_accumulation_equals_the_big_batch(tmp_path: Path, masked: bool, accumulation: int) -> None:
    after = []
    for parts in (1, accumulation):
        model = toy_model()
        settings = {"model": model, "optimizer": sgd(model), "masked": masked, "clip": 1.0}
        after.append(weights_after(tmp_path, name=f"{parts}", accumulation=parts, **settings))
    torch.testing.assert_close(after[1], after[0], rtol=1e-6, atol=1e-6)


def go(runs: Path, settings: dict) -> None:
    model = toy_model()
    train(runs, model=model, optimizer=sgd(model), **settings)


@pytest.mark.parametrize("masked", [False, True])
def test_two_processes_equal_one(tmp_path: Path, masked: bool) -> None:
    settings = {"masked": masked, "clip": 1.0, "eval_every": 3}
    go(tmp_path / "one", settings)
    ended = in_processes(go, tmp_path / "two", settings, count=2, log=tmp_path / "log")
    assert ended.codes == [0, 0], ended.output
    one, two = trace(tmp_path / "one" / "toy"), trace(tmp_path / "two" / "toy")
    assert len(one) == len(two) == 6
    for line, other in zip(one, two, strict=True):
        assert other == pytest.approx(line, rel=1e-5)


class NotesSyncs(Toy):
    """Notes at each micro-batch whether its backward pass will exchange gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.syncs: list[bool | None] = []

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.syncs.append(getattr(model, "require_backward_grad_sync", None))
        return super().loss(model, batch)


def count_syncs(runs: Path) -> None:
    task = NotesSyncs()
    train(runs, task=task, steps=2, accumulation=4)
    # The main process ran one micro-batch more, unwrapped, to count its FLOPs.
    syncs = [sync for sync in task.syncs if sync is not None]
    assert syncs == [False, False, False, True] * 2, syncs


def test_gradients_are_exchanged_once_a_step(tmp_path: Path) -> None:
    ended = in_processes(count_syncs, tmp_path, count=2, log=tmp_path / "log")
    assert ended.codes == [0, 0], ended.output


def use_batch_norm(runs: Path) -> None:
    """Each process sees other data, so its running means differ until they are shared."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    seen: list[float] = []

    class Note(Callback):
        def on_eval(self, trainer: Any, step: int, metrics: dict) -> None:
            seen.append(metrics["val_loss"])

    trainer = toy_trainer(runs, model=model, eval_every=2, callbacks=[Note()])
    trainer.train()
    everywhere = trainer._processes.gather(seen)
    assert len(seen) == 3, seen
    assert everywhere[0] == everywhere[1], everywhere


def test_all_processes_evaluate_the_same_model(tmp_path: Path) -> None:
    ended = in_processes(use_batch_norm, tmp_path, count=2, log=tmp_path / "log")
    assert ended.codes == [0, 0], ended.output


def test_schedule_and_clipping_equal_torch(tmp_path: Path) -> None:
    """A loop of nothing but PyTorch ends with the same weights, bit for bit."""

    def schedule(step: int) -> float:
        return warmup_cosine(step, warmup=2, total=6)

    def groups(model: nn.Module) -> list[dict]:
        return [
            {"params": [p for p in model.parameters() if p.ndim == 2]},
            {"params": [p for p in model.parameters() if p.ndim == 1], "lr": 0.02},
        ]

    task, model = Toy(), toy_model()
    optimizer = torch.optim.AdamW(groups(model), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    norms, lrs = [], []
    for step in range(6):
        x, y = task.batch(step, 0, 1)
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y, reduction="sum") * (1 / len(y))).backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.3).item())
        lrs.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert min(norms) > 0.3, "nothing was clipped: the test proves nothing"

    ours = toy_model()
    trainer = toy_trainer(
        tmp_path,
        model=ours,
        optimizer=torch.optim.AdamW(groups(ours), lr=0.1),
        schedule=schedule,
        clip=0.3,
    )
    trainer.train()
    for own, expected in zip(ours.parameters(), model.parameters(), strict=True):
        assert torch.equal(own, expected)
    lines = trace(tmp_path / "toy")
    assert [line["grad_norm"] for line in lines] == norms
    assert [line["lr"] for line in lines] == lrs
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [0.1, 0.02]


def test_the_norm_is_logged_without_clipping(tmp_path: Path) -> None:
    train(tmp_path, name="free")
    train(tmp_path, name="clipped", clip=1e9)
    assert trace(tmp_path / "free") == trace(tmp_path / "clipped")


def test_bf16_computes_in_bf16_and_stays_close(tmp_path: Path) -> None:
    types: dict[str, set] = {}
    for precision in ("no", "bf16"):
        model = toy_model()
        seen = types.setdefault(precision, set())
        model[0].register_forward_hook(lambda _, __, output, seen=seen: seen.add(output.dtype))
        train(tmp_path, name=precision, precision=precision, model=model)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert types == {"no": {torch.float32}, "bf16": {torch.bfloat16}}
    exact = [line["loss"] for line in trace(tmp_path / "no")]
    rough = [line["loss"] for line in trace(tmp_path / "bf16")]
    assert rough == pytest.approx(exact, rel=0.02)
    assert rough != exact


def test_gradients_from_before_and_of_strangers_do_not_add_up(tmp_path: Path) -> None:
    expected = weights_after(tmp_path, name="clean")
    model = toy_model()
    model(torch.ones(1, 6)).sum().backward()
    torch.testing.assert_close(weights_after(tmp_path, name="stale", model=model), expected)

    grads: list[Tensor] = []

    class Note(Callback):
        def on_step(self, trainer: Any, step: int) -> None:
            grads.append(trainer.model[3].weight.grad.clone())

    model = toy_model()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.0)
    train(tmp_path, name="stranger", model=model, optimizer=optimizer, callbacks=[Note()])
    model, task = toy_model(), Toy()
    x, y = task.batch(5, 0, 1)
    F.cross_entropy(model(x), y).backward()
    torch.testing.assert_close(grads[5], model[3].weight.grad)


class Wrong(Toy):
    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self._loss = loss

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self._loss(model(batch[0]), batch[1])


def test_a_loss_per_item_is_refused(tmp_path: Path) -> None:
    task = Wrong(lambda logits, y: F.cross_entropy(logits, y, reduction="none"))
    task.count = lambda batch: 8  # type: ignore[method-assign]
    model = toy_model()
    with pytest.raises(CourseError, match=r"Wrong.loss must return one number.* shape \[8\]"):
        train(tmp_path, task=task, model=model)


def test_a_batch_that_is_masked_altogether(tmp_path: Path) -> None:
    task = Toy()
    task.y[:] = -100
    with pytest.raises(CourseError, match="Step 0 has no images to train on"):
        train(tmp_path, task=task)
