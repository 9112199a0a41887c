"""The training loop: it decides when to step, log, evaluate, save and stop.

    Task ──batches──► OptimizerStep ──loss, norm──► Trainer ──► metrics.jsonl, bar, wandb, callbacks
                                                       │
                           StopRequests ──────────────►├──────► Checkpoints ──► snapshots

All labs use this one loop. `loop.optimizer_step` defines a step, `storage.checkpoint` a checkpoint.

This module has more than 300 lines because it is one class whose methods share its state: dividing
it would put the path of a single step into more files.
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
from course_utils.training.loop.recompute import recomputing
from course_utils.training.loop.report import Report
from course_utils.training.loop.signals import (
    Stop,
    StopRequests,
    in_notebook,
    released_on_error,
)
from course_utils.training.loop.task import Task
from course_utils.training.loop.throughput import peak, training_flops_per_item
from course_utils.training.storage import rng, snapshots
from course_utils.training.storage.checkpoint import Checkpoints, Position
from course_utils.training.storage.run_folder import Record, RunFolder, Summary


class Trainer:
    """Trains a model on a task.

    On a CPU, and on a GPU with deterministic kernels, a run that was killed and resumed is
    bit-identical to an uninterrupted one. (Some CUDA kernels add numbers in the order in which
    threads finish; `torch.use_deterministic_algorithms(True)` avoids these kernels.)

    Args:
        model: Any module; it is trained in place and remains usable, on the trainer's device.
        optimizer: Its parameter groups' `lr` are the base learning rates.
        schedule: Maps a step (from 0) to the factor on the base learning rates.
        task: The data, the loss and the evaluation.
        config: The settings.
        recipe: Everything else that identifies the run (model size, augmentation, base weights), as
            nested dicts of TOML values. It is written to config.toml and compared on resume.
        callbacks: The trainer calls them in this order.
        files: Texts by file name, written to the run's folder. They hold what is needed to use the
            model elsewhere, such as its tokenizer.

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
        # Compare the recipe first: a changed recipe can also change the optimizer's parameter
        # groups.
        self._what = {"recipe": dict(recipe or {}), "optimizer": describe_optimizer(optimizer)}
        self._processes = Processes.start()
        self.device, self.is_main = self._processes.device, self._processes.is_main
        check_precision(config.precision, self.device)
        self._parts = config.parts(self._processes.count)
        self._folder, self._files = RunFolder(config.folder), dict(files or {})
        self._report = Report(self._folder, config, task.unit, self.is_main)
        self._position = Position()
        self._saved: Path | None = None  # the newest checkpoint
        self._result: StepResult | None = None  # the newest step's
        self._stops = StopRequests()
        self._stop: Stop | None = None
        self._resume_mode = config.resume

    def train(self) -> Summary:
        """Train to `config.steps`, from the newest checkpoint if there is one.

        The method returns when the run has finished, when a callback stopped it, or, in a notebook,
        when the stop button was pressed. A second call resumes from there, whatever
        `config.resume` is. A script that gets SIGINT or SIGTERM saves, and exits with 130 or 143.

        Raises:
            CourseError: when the run cannot continue: the disk is full, settings differ from the
                checkpoint's, the loss is not finite, or GPU memory is exhausted. Saved checkpoints
                are kept.
        """
        memory = released_on_error(self.config.batch_size // self._parts, self.config.accumulation)
        with memory, ExitStack() as stack:
            stack.enter_context(self._stops)
            self._processes.on_main(lambda: stack.enter_context(self._folder.lock()))
            self._open(stack)
            self._resume_mode = "must"  # from now on the model is not newly initialized
            self._loop()
            summary = self._finish()
        if self._stop and self._stop.exit_code and not in_notebook():
            raise SystemExit(self._stop.exit_code)
        return summary

    def request_stop(self, reason: str) -> None:
        """End the run after this step, with a checkpoint; `train` returns with `finished` False."""
        self._stops.request(reason)

    def _open(self, stack: ExitStack) -> None:
        """Prepare everything for the first step, or for the step after the newest checkpoint.

        Each resource registers its cleanup with `stack`: however the run ends, the model is usable
        afterwards and all memory of the run is freed.
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
        if self._engine.shards_weights and getattr(self.task, "generates", False):
            raise CourseError(
                f"{type(self.task).__name__} generates text during training, which needs all "
                f"weights on every rank; {self._engine.strategy} shards them. Launch with "
                "zero1.yaml or zero2.yaml."
            )
        # Not earlier: a run that raises an error above must not move an existing run.
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
        on_main(
            lambda: self._folder.write_files(self._files)
        )  # only after `_resume` has accepted the settings
        stack.callback(self._report.close)
        on_main(
            lambda: self._report.open(self._position, {"train": config.as_dict(), **self._what})
        )
        if config.checkpoint_activations:
            stack.enter_context(recomputing(self.model))
        if config.compile and self._engine.shards_state:
            self._report.say(
                f"--compile is ignored: it does not work with {self._engine.strategy}."
            )
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
                f"There is no checkpoint in {self._folder.checkpoints} to resume from. To "
                "start from the beginning, create a new model and trainer with resume='auto'."
            )
        where = f"resuming from {self._saved.name}" if self._saved else "from the beginning"
        how = describe(self._accelerator, self._engine.strategy, self.config.precision)
        self._report.say(f"Run {self.config.name}: {how}; {where}.")

    def _measure_flops(self) -> tuple[float, float]:
        """FLOPs per item, and a device's peak FLOP/s, before an engine shards the model."""
        self.model.to(self.device)
        batch = send_to_device(self.task.batch(0, 0, self._parts), self.device)
        precision = self.config.precision
        # Under DeepSpeed, accelerate does no autocast itself, and DeepSpeed has no model yet.
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
        """Whether the next step's number is a multiple of `every`, or it is the last step."""
        step = self._position.step + 1
        return step == self.config.steps or (every is not None and step % every == 0)

    def _agree(self, count: int) -> tuple[int, Stop | None]:
        """The item count of the global batch, and why to stop, if any rank asks for it.

        One all-reduce answers both, so checking in every step has no extra overhead, and all ranks
        stop after the same step.
        """
        items, failed, *votes = self._processes.sum(
            [count, self._checkpoints.failure is not None, *self._stops.votes]
        )
        if failed:
            self._checkpoints.wait()  # raises what went wrong
        return int(items), self._stops.verdict(votes) if any(votes) else None

    def _log(self, evaluating: bool) -> None:
        assert self._result is not None
        loss = self._mean_loss(self._result)  # waits for the GPU, so the time read next is right
        self._position.elapsed_s = self._report.seconds
        with self._report.clock_stopped():
            val = self._evaluate() if evaluating else {}
            record = self._report.line(self._position, loss, self._result, val)
            for callback in self.callbacks:
                callback.on_log(self, record)

    def measure(self) -> Record:
        """Evaluate the model now; for callbacks, while the run is open. Every rank must call it."""
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
        """A step's loss per item, over all ranks."""
        [total] = self._processes.sum([result.loss_sum.item()])
        loss = total / result.items
        if not math.isfinite(loss):
            raise self._divergence(f"loss is {loss}")
        return loss

    def _divergence(self, what: str) -> CourseError:
        saved = self._saved
        before = f"the last checkpoint is {saved.name}" if saved else "there is no checkpoint yet"
        return CourseError(
            f"The {what} at step {self._position.step} ({before}). "
            "Lower the learning rate, lengthen the warm-up, or clip gradients (clip=1.0)."
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
            raise self._divergence("weights are not all finite")  # do not let it replace good ones

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
                f"{saved}; to continue, run it again with resume='auto' (labs: --resume)."
            )
        return summary

    def _forget(self) -> None:
        for name in ("_accelerator", "_engine", "_step", "_checkpoints", "_result"):
            vars(self).pop(name, None)
