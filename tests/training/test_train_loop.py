"""What the trainer does around a step: report, evaluate, save, resume, stop, clean up."""

import copy
import gc
import json
import signal
import tomllib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_training import Toy, toy_model, toy_trainer, trace, train

from course_utils.base.errors import CourseError
from course_utils.training.loop import throughput
from course_utils.training.loop import trainer as trainer_module
from course_utils.training.loop.callbacks import Callback
from course_utils.training.loop.signals import StopRequests
from course_utils.training.loop.trainer import Trainer
from course_utils.training.storage import snapshots
from course_utils.training.storage.run_folder import Record


def steps(folder: Path) -> list[int]:
    return [int(line["step"]) for line in trace(folder)]


# ------------------------------------------------------------------ reporting


def test_lines_of_metrics(tmp_path: Path) -> None:
    train(tmp_path, steps=11, log_every=4, eval_every=5, save_every=6)
    lines = [
        json.loads(line) for line in (tmp_path / "toy" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == [4, 5, 6, 8, 10, 11]
    common = ["step", "images", "loss", "lr", "grad_norm", "images_per_s", "mfu", "elapsed_s"]
    assert list(lines[0]) == common
    assert list(lines[1]) == [*common, "val_loss", "val_accuracy"]
    assert [line["step"] for line in lines if "val_loss" in line] == [5, 10, 11]
    assert lines[1]["images"] == 40
    assert all(line["images_per_s"] > 0 and line["mfu"] > 0 for line in lines)


def test_time_is_that_of_training_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def spend(seconds: float, result: Any = None) -> Any:
        nonlocal now
        now += seconds
        return result

    class Spend(Callback):
        def on_step(self, trainer: Trainer, step: int) -> None:
            spend(1)

        def on_log(self, trainer: Trainer, record: Record) -> None:
            spend(100)  # drawing

    monkeypatch.setattr(throughput, "measured_peak", lambda device, dtype: 1e9)
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now)
    write = snapshots.write
    monkeypatch.setattr(snapshots, "write", lambda *a: spend(1000, write(*a)))
    task = Toy()
    task.evaluate = lambda model: spend(10000, {"val_loss": 1.0})  # type: ignore[method-assign]
    summary = train(tmp_path, task=task, eval_every=2, save_every=2, callbacks=[Spend()])
    lines = (tmp_path / "toy" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["elapsed_s"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {json.loads(line)["images_per_s"] for line in lines} == {8.0}
    assert summary.elapsed_s == 6


def test_masked_items_are_not_counted(tmp_path: Path) -> None:
    train(tmp_path, masked=True, steps=1)
    task = Toy(masked=True)
    count = task.count(task.batch(0, 0, 1))
    assert count < 8
    assert trace(tmp_path / "toy")[0]["images"] == count


def test_the_run_folder(tmp_path: Path) -> None:
    summary = train(tmp_path, recipe={"model": {"width": 8}}, clip=1.0)
    folder = tmp_path / "toy"
    assert {path.name for path in folder.iterdir()} == {
        "checkpoints",
        "config.toml",
        "metrics.jsonl",
        "summary.json",
    }
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["train"]["steps"] == 6
    assert config["optimizer"]["type"] == "AdamW"
    assert config["optimizer"]["groups"][0]["lr"] == 0.05
    assert config["recipe"]["model"]["width"] == 8
    written = json.loads((folder / "summary.json").read_text())
    assert written["finished"] is summary.finished is True
    assert summary.step == 6
    assert summary.checkpoint == folder / "checkpoints" / "step-00000006"
    assert summary.metrics["val_loss"] == trace(folder)[-1]["val_loss"]


def test_quiet_where_nobody_watches(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, name="off", progress="off")
    assert capfd.readouterr() == ("", "")
    train(tmp_path, name="auto", progress="auto")
    shown = capfd.readouterr()
    assert shown.err == ""
    assert len(shown.out.splitlines()) == 2
    assert "1 process (cpu, " in shown.out
    assert "precision no" in shown.out


def test_the_bar_never_writes_to_standard_error(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    train(tmp_path, progress="bar")
    shown = capfd.readouterr()
    assert shown.err == ""  # nbgrader gives a cell with such output no points
    assert "6/6" in shown.out
    for number in ("loss", "lr", "images/s", "MFU"):
        assert number in shown.out


def test_the_bar_is_not_drawn_for_every_line(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    train(tmp_path, progress="bar", steps=300)
    assert capfd.readouterr().out.count("\r") < 300
    assert len(trace(tmp_path / "toy")) == 300


def test_callbacks(tmp_path: Path) -> None:
    heard: list[tuple] = []

    class Listen(Callback):
        def on_step(self, trainer: Trainer, step: int) -> None:
            assert trainer.model[0].weight.grad is not None
            heard.append(("step", step))

        def on_eval(self, trainer: Trainer, step: int, metrics: Record) -> None:
            heard.append(("eval", step, sorted(metrics)))

        def on_log(self, trainer: Trainer, record: Record) -> None:
            heard.append(("log", record["step"]))

    train(tmp_path, steps=3, log_every=2, callbacks=[Listen()])
    assert heard == [
        ("step", 1),
        ("step", 2),
        ("log", 2),
        ("step", 3),
        ("eval", 3, ["val_accuracy", "val_loss"]),
        ("log", 3),
    ]


# ------------------------------------------------------------------ evaluation


def test_evaluating_more_often_changes_nothing_else(tmp_path: Path) -> None:
    """Neither dropout's random numbers nor its mode: the toy's evaluation draws numbers itself."""
    train(tmp_path, name="often", dropout=0.5, eval_every=1)
    train(tmp_path, name="once", dropout=0.5)
    often, once = trace(tmp_path / "often"), trace(tmp_path / "once")
    assert [line["loss"] for line in often] == [line["loss"] for line in once]


def test_evaluation_without_dropout_and_gradients(tmp_path: Path) -> None:
    class Look(Toy):
        def evaluate(self, model: nn.Module) -> dict[str, float]:
            assert not model.training
            assert not torch.is_grad_enabled()
            assert type(model) is nn.Sequential
            return {"val_loss": 1.0}

    trainer = toy_trainer(tmp_path, task=Look(), dropout=0.5)
    assert trainer.train().metrics["val_loss"] == 1.0


def test_an_evaluation_must_return_val_loss(tmp_path: Path) -> None:
    task = Toy()
    task.evaluate = lambda model: {"accuracy": 1.0}  # type: ignore[method-assign]
    with pytest.raises(
        CourseError, match=r'must return a "val_loss"; it returned \[\'accuracy\'\]'
    ):
        train(tmp_path, task=task)


# ------------------------------------------------------------------ going on, or not


def test_a_longer_run_goes_on_from_a_finished_one(tmp_path: Path) -> None:
    train(tmp_path, name="whole", steps=9, dropout=0.5)
    train(tmp_path, steps=5, dropout=0.5)
    assert train(tmp_path, steps=9, dropout=0.5, log_every=1, keep=1).step == 9
    losses = [[line["loss"] for line in trace(tmp_path / name)] for name in ("toy", "whole")]
    assert losses[0] == losses[1]


def test_the_seed_alone_decides_what_is_random(tmp_path: Path) -> None:
    for name, drawn_before, seed in (("a", 0, 0), ("b", 7, 0), ("other", 0, 1)):
        model = toy_model(dropout=0.5)
        torch.rand(drawn_before)  # what a notebook did before
        train(tmp_path, name=name, model=model, seed=seed)
    a, b, other = (trace(tmp_path / name) for name in ("a", "b", "other"))
    assert a == b
    assert [line["loss"] for line in a] != [line["loss"] for line in other]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = train(tmp_path)

    class Fail(Callback):
        def on_step(self, trainer: Trainer, step: int) -> None:
            raise AssertionError("trained again")

    model = toy_model()
    nn.init.zeros_(model[0].weight)
    again = train(tmp_path, model=model, callbacks=[Fail()])
    assert (again.step, again.metrics, again.elapsed_s) == (
        first.step,
        first.metrics,
        first.elapsed_s,
    )
    assert model[0].weight.any(), "the trained weights were not loaded"


def test_never_sets_the_earlier_run_aside(tmp_path: Path) -> None:
    train(tmp_path, lr=0.05)
    before = trace(tmp_path / "toy")
    train(tmp_path, lr=0.01, resume="never")
    assert trace(tmp_path / "toy") != before
    assert trace(tmp_path / ".previous" / "toy") == before
    train(tmp_path, lr=0.02, resume="never")  # a third takes the place of the first
    assert trace(tmp_path / ".previous" / "toy") != before


def test_must_insists_on_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"no checkpoint in .*toy/checkpoints to resume from"):
        train(tmp_path, resume="must")
    train(tmp_path)
    assert train(tmp_path, resume="must", steps=7).step == 7


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"precision": "bf16"}, "train.precision = 'no'; now it is 'bf16'"),
        ({"clip": 0.5}, "train.clip = None; now it is 0.5"),
        ({"seed": 7}, "train.seed = 0; now it is 7"),
        (
            {"batch_size": 16, "task": Toy(batch_size=16)},
            "train.batch_size = 8; now it is 16",
        ),
        ({"recipe": {"model": {"width": 9}}}, "recipe.model.width = 8; now it is 9"),
        ({"recipe": {"model": {}}}, "recipe.model.width = 8; now it is None"),
        ({"lr": 0.06}, r"optimizer.groups.0.lr = 0.05; now it is 0.06"),
    ],
)
def test_another_run_under_the_same_name_is_refused(
    tmp_path: Path, changed: dict, message: str
) -> None:
    recipe = {"model": {"width": 8}}
    train(tmp_path, recipe=recipe)
    before = (tmp_path / "toy" / "config.toml").read_text(), trace(tmp_path / "toy")
    with pytest.raises(CourseError, match=f"Run toy was started with {message}"):
        train(tmp_path, **{"recipe": recipe, "steps": 9} | changed)
    assert before == ((tmp_path / "toy" / "config.toml").read_text(), trace(tmp_path / "toy"))


def test_what_a_name_stands_for_must_be_the_same_but_older_checkpoints_do_not_say(
    tmp_path: Path,
) -> None:
    train(tmp_path, recipe={"data": "my.txt"})  # as an older version of the course wrote it
    kept = {"data": "my.txt", "max_documents": 9, "corpus": "c0ffee"}
    assert train(tmp_path, recipe=kept, steps=9).step == 9
    with pytest.raises(
        CourseError, match=r"other data .* \(recipe.corpus was c0ffee, now it is bad"
    ):
        train(tmp_path, recipe=kept | {"corpus": "bad"}, steps=12)
    with pytest.raises(CourseError, match=r"max_documents = 9; now it is 8"):
        train(tmp_path, recipe=kept | {"max_documents": 8}, steps=12)
    with pytest.raises(CourseError, match=r"recipe.quantize = None; now it is 'nf4'"):
        train(tmp_path, recipe=kept | {"quantize": "nf4"}, steps=12)  # left out where it is None


def test_another_optimizer_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    model = toy_model()
    with pytest.raises(CourseError, match=r"optimizer.type = 'AdamW'; now it is 'SGD'"):
        train(tmp_path, model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.05))


def test_what_only_decides_where_and_how_long_may_change(tmp_path: Path) -> None:
    train(tmp_path)
    settings = {"accumulation": 2, "log_every": 3, "eval_every": 2, "save_every": 1, "keep": 3}
    assert train(tmp_path, steps=8, **settings).step == 8


def test_the_task_and_the_settings_agree_on_the_batch(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"task makes batches of 16 and .* is 8"):
        toy_trainer(tmp_path, task=Toy(batch_size=16))


def test_one_process_at_a_time_trains_a_run(tmp_path: Path) -> None:
    class Intrude(Callback):
        def on_step(self, trainer: Trainer, step: int) -> None:
            with pytest.raises(CourseError, match="Run toy is being trained by another process"):
                train(tmp_path)

    train(tmp_path, steps=1, callbacks=[Intrude()])


# ------------------------------------------------------------------ stopping


class StopAt(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step(self, trainer: Trainer, step: int) -> None:
        if step == self.at:
            trainer.request_stop("good enough")


def test_a_callback_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    trainer = toy_trainer(tmp_path, callbacks=[StopAt(3)])
    summary = trainer.train()
    assert (summary.step, summary.finished, summary.reason) == (3, False, "good enough")
    assert summary.checkpoint.name == "step-00000003"
    assert not (tmp_path / "toy" / "summary.json").exists()
    assert "stopped at step 3 of 6: good enough" in capsys.readouterr().out
    assert trainer.train().finished
    train(tmp_path, name="whole")
    assert trace(tmp_path / "toy") == trace(tmp_path / "whole")


class Poison(Callback):
    def on_step(self, trainer: Trainer, step: int) -> None:
        if step == 4:
            with torch.no_grad():
                trainer.model[0].weight.fill_(torch.nan)


def test_calling_train_again_goes_on(tmp_path: Path) -> None:
    """What a notebook's reader does after the stop button."""

    class Press(Callback):
        pressed = False

        def on_step(self, trainer: Trainer, step: int) -> None:
            if step == 2 and not self.pressed:
                self.pressed = True
                signal.raise_signal(signal.SIGINT)

    trainer = toy_trainer(tmp_path, callbacks=[Press()], resume="never", dropout=0.3)
    with pytest.raises(SystemExit):
        trainer.train()
    assert trainer.train().finished
    train(tmp_path, name="whole", dropout=0.3)
    assert trace(tmp_path / "toy") == trace(tmp_path / "whole")


def test_a_model_that_is_no_longer_new_does_not_start_from_the_beginning(tmp_path: Path) -> None:
    class Fail(Callback):
        def on_step(self, trainer: Trainer, step: int) -> None:
            raise ValueError("a mistake in a callback")

    trainer = toy_trainer(tmp_path, callbacks=[Fail()])
    with pytest.raises(ValueError, match="a mistake"):
        trainer.train()
    with pytest.raises(CourseError, match=r"no checkpoint .* create a new model and trainer"):
        trainer.train()


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        CourseError, match=r"loss is nan at step 5 \(the last checkpoint is step-00000003"
    ):
        train(tmp_path, save_every=3, steps=9, callbacks=[Poison()], log_every=5)
    assert train(tmp_path, save_every=3, steps=9).finished


def test_weights_that_diverged_are_not_saved(tmp_path: Path) -> None:
    """The step's loss was computed before the update that ruined them."""
    with pytest.raises(
        CourseError,
        match=r"weights are not all finite at step 4 \(the last checkpoint is step-00000002",
    ):
        train(tmp_path, save_every=2, callbacks=[Poison()])
    left = [path.name for path in (tmp_path / "toy" / "checkpoints").iterdir()]
    assert left == ["step-00000002"]


# ------------------------------------------------------------------ notebooks


def test_trainers_of_several_precisions_take_turns(tmp_path: Path) -> None:
    expected = {
        precision: train(tmp_path / "alone", name=precision, precision=precision).metrics["loss"]
        for precision in ("no", "bf16")
    }
    trainers = {
        precision: toy_trainer(tmp_path / "turns", name=precision, precision=precision)
        for precision in ("no", "bf16")
    }
    for precision, trainer in trainers.items():
        assert trainer.train().metrics["loss"] == expected[precision]


def test_the_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model = toy_model()
    train(tmp_path, model=model, precision="bf16")
    assert vars(model).keys() == vars(toy_model()).keys()
    assert model(torch.ones(1, 6)).dtype == torch.float32
    inner: list[torch.dtype] = []
    model[0].register_forward_hook(lambda _, __, output: inner.append(output.dtype))
    model(torch.ones(1, 6))
    assert inner == [torch.float32]
    assert all(p.grad is None for p in model.parameters())
    copy.deepcopy(model)
    train(tmp_path, name="again", model=model, precision="bf16")


def test_a_trainer_that_is_kept_keeps_nothing_of_the_run(tmp_path: Path) -> None:
    kept: list[weakref.ref] = []

    class Note(Callback):
        def on_step(self, trainer: Trainer, step: int) -> None:
            kept.extend(map(weakref.ref, (trainer._accelerator, trainer._step)))

    trainer = toy_trainer(tmp_path, callbacks=[Note()])
    trainer.train()
    gc.collect()
    assert len(kept) == 12
    assert not [ref for ref in kept if ref() is not None]


def test_compiled(tmp_path: Path) -> None:
    """The compiler itself is not run: what counts is that the trainer asks for it, in place."""
    calls: list[bool] = []

    class Compiled(nn.Sequential):
        def compile(self, *arguments: Any, **options: Any) -> None:
            calls.append(True)

    model = Compiled(*toy_model())
    train(tmp_path, model=model, compile=True)
    assert calls == [True]


class Broken(Toy):
    """Keeps an eye on its batches; at the third step something happens."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__()
        self._happens = happens
        self.alive: list[weakref.ref] = []

    def batch(self, step: int, part: int, parts: int) -> tuple[Tensor, Tensor]:
        self._step = step
        return super().batch(step, part, parts)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        activations = model(batch[0])
        self.alive += [weakref.ref(batch[0]), weakref.ref(activations)]
        if self._step == 3:
            self._happens()
        return super().loss(model, batch)


def interrupt() -> None:
    raise KeyboardInterrupt


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize("happens", [interrupt, out_of_memory])
def test_an_error_keeps_no_tensors_alive(tmp_path: Path, happens: Callable[[], None]) -> None:
    task = Broken(happens)
    model = toy_model()
    with pytest.raises((KeyboardInterrupt, CourseError)) as kept:  # as a notebook keeps it
        train(tmp_path, task=task, model=model)
    gc.collect()
    assert kept.value is not None
    assert len(task.alive) > 6
    assert not [ref for ref in task.alive if ref() is not None]
    assert all(p.grad is None for p in model.parameters())


def test_out_of_memory_says_what_helps(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"micro-batches of 4: double accumulation \(now 2\)"):
        train(tmp_path, task=Broken(out_of_memory), accumulation=2)


def test_the_stop_button_of_a_notebook_saves_and_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Press(Callback):
        def on_step(self, trainer: Trainer, step: int) -> None:
            if step == 2:
                signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(trainer_module, "in_notebook", lambda: True)
    summary = train(tmp_path, callbacks=[Press()])
    assert (summary.step, summary.finished, summary.reason) == (2, False, "interrupted (Ctrl-C)")
    assert signal.getsignal(signal.SIGINT) is before
    assert train(tmp_path).finished


def test_the_second_interrupt_does_not_wait() -> None:
    with StopRequests(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
