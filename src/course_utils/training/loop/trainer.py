"""The training loop: when to step, measure, evaluate, save and stop.

    Task ──batches──► OptimizerStep ──loss, norm──► Trainer ──► metrics.jsonl, bar, wandb, callbacks
                                                       │
                           StopRequests ──────────────►├──────► Checkpoints ──► snapshots

One loop for every lab. What a step is stands in `step`, what a checkpoint is in `checkpoint`.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn

from course_utils.base.errors import CourseError
from course_utils.training.config import TrainConfig
from course_utils.training.engines import Whole, make_engine
from course_utils.training.engines.precision import (
    COMPUTE_DTYPE,
    check_precision,
    own_layers_afterwards,
)
from course_utils.training.engines.processes import Processes, describe, start_accelerator
from course_utils.training.engines.weights import Inventory
from course_utils.training.loop.callbacks import Callback
from course_utils.training.loop.evaluation import evaluate
from course_utils.training.loop.optimizer_step import (
    OptimizerStep,
    Schedule,
    StepResult,
    describe_optimizer,
)
from course_utils.training.loop.out_of_memory import released_on_error
from course_utils.training.loop.recompute import recomputing
from course_utils.training.loop.report import Report
from course_utils.training.loop.signals import Stop, StopRequests, in_notebook
from course_utils.training.loop.task import Task
from course_utils.training.loop.throughput import peak, training_flops_per_item
from course_utils.training.storage import rng, snapshots
from course_utils.training.storage.checkpoint import Checkpoints, Position
from course_utils.training.storage.run_folder import Record, RunFolder, Summary


class Trainer:
    """Trains a model on a task.

    On a CPU, and on a GPU whose kernels are deterministic, a run that was killed and started again
    goes on bit for bit. (Some CUDA kernels add in the order in which threads arrive;
    `torch.use_deterministic_algorithms(True)` avoids them.)

    Args:
        model: Any module; it is trained in place and stays usable, on the trainer's device.
        optimizer: Over the model's parameters. Its groups' `lr` are the base learning rates.
        schedule: Step (from 0) to the factor on the base learning rates.
        task: Data, loss and evaluation.
        config: The settings.
        recipe: Whatever else identifies the run (model size, augmentation, base weights), as
            nested dicts of TOML values: written to config.toml, and compared on resume.
        callbacks: Called in order.
        files: Texts by file name, kept in the run's folder: what somebody needs to use the model
            elsewhere, such as its tokenizer.

    Raises:
        CourseError: when the settings do not fit the machine, the task or each other.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        task: Task,
        config: TrainConfig,
        *,
        recipe: Mapping[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
        files: Mapping[str, str] | None = None,
    ) -> None:
        if task.batch_size != config.batch_size:
            raise CourseError(
                f"The task makes batches of {task.batch_size} and TrainConfig.batch_size is "
                f"{config.batch_size}: give both the same."
            )
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.task, self.config, self.callbacks = task, config, callbacks
        # The recipe first: where it differs from a checkpoint's, the optimiser's list may for that.
        self._what = {"recipe": dict(recipe or {}), "optimizer": describe_optimizer(optimizer)}
        self._processes = Processes.start()
        self.device, self.is_main = self._processes.device, self._processes.is_main
        check_precision(config.precision, self.device)
        self._parts = config.parts(self._processes.count)
        self._folder, self._files = RunFolder(config.folder), dict(files or {})
        self._report = Report(self._folder, config, task.unit, self.is_main)
        self._position = Position()
        self._saved: Path | None = None  # the newest checkpoint
        self._result: StepResult | None = None  # of the newest step
        self._stops = StopRequests()
        self._stop: Stop | None = None
        self._resume_mode = config.resume

    def train(self) -> Summary:
        """Train to `config.steps`, from the newest checkpoint if there is one.

        Returns when finished, or stopped by a callback, or, in a notebook, by the stop button;
        called again, it goes on from there, whatever `config.resume` says. A script that is
        interrupted or terminated exits with 130 or 143, after saving.

        Raises:
            CourseError: when the run cannot go on (a full disk, other settings than before, a loss
                that is no number, no GPU memory left); what was saved stays.
        """
        memory = released_on_error(self.config.batch_size // self._parts, self.config.accumulation)
        with memory, ExitStack() as stack:
            stack.enter_context(self._stops)
            self._processes.on_main(lambda: stack.enter_context(self._folder.lock()))
            self._open(stack)
            self._resume_mode = "must"  # the model is no longer new
            self._loop()
            summary = self._finish()
        if self._stop and self._stop.exit_code and not in_notebook():
            raise SystemExit(self._stop.exit_code)
        return summary

    def request_stop(self, reason: str) -> None:
        """End the run after this step, with a checkpoint; `train` returns with `finished` False."""
        self._stops.request(reason)

    def _open(self, stack: ExitStack) -> None:
        """Make everything ready for the first step, or for the one after the newest checkpoint.

        Each thing registers with `stack` how it is undone: however the run ends, the model is
        usable afterwards and nothing of the run stays in memory.
        """
        on_main, config = self._processes.on_main, self.config
        rng.seed_everything(config.seed, self._processes.index)
        stack.callback(self._forget)
        self._accelerator = start_accelerator(config.precision)
        inventory = Inventory.of(self.model)
        flops, peak_flops = on_main(self._measure_flops)
        stack.enter_context(own_layers_afterwards(self.model))
        self._engine = stack.enter_context(
            make_engine(self._accelerator, self.model, self.optimizer, config)
        )
        if self._engine.splits_weights and getattr(self.task, "writes", False):
            raise CourseError(
                f"{type(self.task).__name__} lets the model write, which needs all its weights, "
                f"and {self._engine.together} splits them: launch with zero1.yaml or zero2.yaml."
            )
        # Only now: a run that is refused must not have moved an earlier one.
        if self._resume_mode == "never" and (aside := on_main(self._folder.set_aside)):
            self._report.say(f"The earlier run {config.name} was moved to {aside}.")
        on_main(self._folder.create)
        self._step = OptimizerStep(
            self._accelerator, self._engine, self.schedule, self.task, config
        )
        stack.callback(self._step.reset)
        self._checkpoints = Checkpoints(
            self._folder.checkpoints,
            config.keep,
            {"train": config.identity(), **self._what},
            inventory,
            self._engine,
            self._accelerator.scaler,
            self._processes,
        )
        stack.callback(self._checkpoints.drain)
        self._resume()
        on_main(lambda: self._folder.write_files(self._files))  # those of a run that may go on
        stack.callback(self._report.close)
        on_main(
            lambda: self._report.open(self._position, {"train": config.as_dict(), **self._what})
        )
        if config.checkpoint_activations:
            stack.enter_context(recomputing(self.model))
        if config.compile and self._engine.splits_anything:
            self._report.say(f"Not compiled: that does not go with {self._engine.together}.")
        elif config.compile:
            self.model.compile()
        self.model.train()
        self._step.clear()
        for callback in self.callbacks:
            callback.on_start(self, self._position.step)
        self._report.start(self._position, flops, peak_flops * self._processes.count)

    def _resume(self) -> None:
        self._saved, damage = self._checkpoints.newest()
        for problem in damage:
            self._report.warn(f"Skipped a damaged checkpoint: {problem}.")
        if self._saved is not None:
            self._position = self._checkpoints.load(self._saved)
        elif self._resume_mode == "must":
            raise CourseError(
                f"There is no checkpoint in {self._folder.checkpoints} to resume from: "
                "a new model and trainer with resume='auto' start from the beginning."
            )
        where = f"going on from {self._saved.name}" if self._saved else "from the beginning"
        how = describe(self._accelerator, self._engine.together, self.config.precision)
        self._report.say(f"Run {self.config.name}: {how}; {where}.")

    def _measure_flops(self) -> tuple[float, float]:
        """FLOPs per item, and a device's peak; before an engine splits the model."""
        self.model.to(self.device)
        batch = send_to_device(self.task.batch(0, 0, self._parts), self.device)
        precision = self.config.precision
        # Under DeepSpeed, accelerate leaves autocast to it, and it has not got the model yet.
        with torch.autocast(self.device.type, COMPUTE_DTYPE[precision], enabled=precision != "no"):
            flops = training_flops_per_item(self.model, self.task, batch)
        return flops, peak(self.device, self.config.precision).flops

    def _loop(self) -> None:
        config, position = self.config, self._position
        while position.step < config.steps:
            batches = self._step.batches(position.step)
            items, self._stop = self._agree(self._step.count(batches))
            if self._stop:
                return
            evaluating, saving = self._due(config.eval_every), self._due(config.save_every)
            logging = evaluating or saving or self._due(config.log_every)
            self._result = self._step(position.step, batches, items, want_norm=logging)
            position.step += 1
            position.items += items
            for callback in self.callbacks:
                callback.on_step(self, position.step)
            self._step.clear()
            self._report.advance()
            if logging:
                self._log(evaluating)
            if saving:
                self._save()

    def _due(self, every: int | None) -> bool:
        """Whether the step about to be taken is an `every`-th one, or the last."""
        step = self._position.step + 1
        return step == self.config.steps or (every is not None and step % every == 0)

    def _agree(self, count: int) -> tuple[int, Stop | None]:
        """The items of all processes' micro-batches, and why to stop, if any process asks for it.

        One sum answers both, so asking every step costs nothing extra, and all processes stop
        after the same step.
        """
        items, failed, *votes = self._processes.sum(
            [count, self._checkpoints.failure is not None, *self._stops.votes]
        )
        if failed:
            self._checkpoints.wait()  # raises what went wrong
        return int(items), self._stops.verdict(votes) if any(votes) else None

    def _log(self, evaluating: bool) -> None:
        assert self._result is not None
        loss = self._mean_loss(self._result)  # waits for the GPU; only then is the clock right
        self._position.elapsed_s = self._report.seconds
        with self._report.clock_stopped():
            val = self._evaluate() if evaluating else {}
            record = self._report.line(self._position, loss, self._result, val)
            for callback in self.callbacks:
                callback.on_log(self, record)

    def measure(self) -> Record:
        """What an evaluation finds now; for callbacks, while the run is open."""
        with self._engine.whole_model():
            return self._measure()

    def _measure(self) -> Record:
        self._processes.share_buffers(self.model)
        return evaluate(self.task, self.model, self._accelerator)

    def _evaluate(self) -> Record:
        with self._engine.whole_model():
            val = self._measure()
            for callback in self.callbacks:
                callback.on_eval(self, self._position.step, val)
        return val

    def _mean_loss(self, result: StepResult) -> float:
        """A step's loss per item, over all processes."""
        [total] = self._processes.sum([result.loss_sum.item()])
        loss = total / result.items
        if not math.isfinite(loss):
            raise self._divergence(f"loss is {loss}")
        return loss

    def _divergence(self, what: str) -> CourseError:
        before = f"{self._saved.name} is from before" if self._saved else "nothing was saved before"
        return CourseError(
            f"The {what} at step {self._position.step} ({before}): "
            "lower the learning rate, warm up longer, or clip gradients (clip=1.0)."
        )

    def _save(self) -> Path:
        self._position.elapsed_s = self._report.seconds
        with self._report.clock_stopped():
            self._report.flush()
            whole = self._engine.whole()
            self._processes.on_main(lambda: self._refuse_infinite(whole))
            self._saved = self._checkpoints.save(self._position, whole)
        return self._saved

    def _refuse_infinite(self, whole: Whole | None) -> None:
        assert whole is not None
        if not all(tensor.isfinite().all() for tensor in whole.weights.values()):
            raise self._divergence("weights are not all finite")  # they would push out good ones

    def _finish(self) -> Summary:
        step, steps, name = self._position.step, self.config.steps, self.config.name
        saved = self._saved
        if saved is None or snapshots.step_of(saved) != step:
            saved = self._save()
        self._checkpoints.wait()
        _, self._stop = self._agree(0)  # a signal may have come during the last step
        self._report.close()
        summary = Summary(
            folder=self._folder.path,
            step=step,
            finished=step >= steps,
            reason=self._stop.reason if self._stop and step < steps else "",
            metrics=self._processes.on_main(self._folder.metrics.last),
            elapsed_s=self._position.elapsed_s,
            checkpoint=saved,
        )
        if summary.finished:
            self._processes.on_main(lambda: self._folder.write_summary(summary))
            self._report.say(
                f"Run {name} finished: step {step}, {summary.elapsed_s:.1f} s of training, "
                f"val_loss {summary.metrics.get('val_loss', math.nan):.4f}. It is saved in {saved}."
            )
        else:
            self._report.warn(
                f"Run {name} stopped at step {step} of {steps}: {summary.reason}. It is saved in "
                f"{saved}; start it again with resume='auto' to go on from there."
            )
        return summary

    def _forget(self) -> None:
        for name in ("_accelerator", "_engine", "_step", "_checkpoints", "_result"):
            vars(self).pop(name, None)
