"""DeepSpeed's ZeRO: optimizer state, gradients and weights are sharded over the ranks.

    weights in the model     bf16, replicated (stages 1, 2) or sharded (stage 3)
    master weights           fp32, sharded: rank r holds shard r of each flattened group
    optimizer state          fp32, sharded the same way

A checkpoint holds the unsharded state (see `Whole`): saving gathers each parameter from its shards,
and loading shards it again.

Paper: Rajbhandari et al. (2020), "ZeRO: Memory Optimizations Toward Training Trillion Parameter
Models", arXiv:1910.02054.
"""

import contextlib
import io
import logging
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import deepspeed
import torch
from accelerate import Accelerator
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)
from jaxtyping import Float
from torch import Tensor, nn

from course_utils.training.config import TrainConfig
from course_utils.training.engines.base import (
    Engine,
    Whole,
    make_contiguous,
    numbered,
    refuse_other_precisions,
    refuse_whole_matrices,
    to_main_memory,
    unique_parameters,
)
from course_utils.training.engines.precision import COMPUTE_DTYPE
from course_utils.training.engines.processes import release
from course_utils.training.engines.weights import frozen_names


class ZeroEngine(Engine):
    """A DeepSpeed engine; the launch configuration sets its ZeRO stage."""

    shards_state = True

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
    ) -> None:
        stage = accelerator.deepspeed_plugin.zero_stage
        refuse_whole_matrices(optimizer, f"ZeRO-{stage}")
        refuse_other_precisions(config.precision, "DeepSpeed")
        self._accelerator, self._own = accelerator, model
        self._numbered = numbered(optimizer)
        self._groups_as_saved = optimizer.state_dict()["param_groups"]
        self._parameters, self._aliases = unique_parameters(model)
        self._buffers = {name: buffer.dtype for name, buffer in model.named_buffers()}
        self._frozen = frozen_names(model)
        make_contiguous(model)
        _configure(accelerator.deepspeed_plugin.deepspeed_config, model, config)
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()):  # DeepSpeed prints its whole configuration
            self._engine, _ = accelerator.prepare(model, optimizer)
        self._zero = self._engine.optimizer
        self.shards_weights = self._engine.zero_optimization_stage() == 3
        self.model = self._engine
        self.strategy = f"DeepSpeed ZeRO-{stage} over {torch.distributed.get_backend()}"
        self._hook = model.register_forward_pre_hook(_cast_inputs(COMPUTE_DTYPE[config.precision]))

    @property
    def groups(self) -> list[dict[str, Any]]:
        return self._zero.param_groups

    def backward(self, loss: Float[Tensor, ""], last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(is_boundary=last)
        self._engine.backward(loss)

    def step(self, clip: float | None, want_norm: bool) -> Float[Tensor, ""] | float:
        self._engine.step()  # also clips (see `_configure`) and frees the gradients
        norm = self._engine.get_global_grad_norm()
        return math.nan if norm is None else norm

    def clear(self) -> None:
        pass

    def whole(self) -> Whole | None:
        is_main = self._accelerator.is_main_process
        weights: dict[str, Tensor] = {}
        for name, parameter in self._parameters.items():
            if parameter.requires_grad:
                full = safe_get_full_fp32_param(parameter)
                if is_main:
                    weights[name] = to_main_memory(full).view(self._shape(parameter))
        state: dict[int, dict[str, Any]] = {}
        self._link_state()
        keys = self._sharded_keys()
        for number, parameter in enumerate(self._numbered):
            # A copy for each parameter: the optimizer would increment a common step tensor once
            # per parameter.
            entry = self._common_state()
            for key in keys:
                full = safe_get_full_optimizer_state(parameter, key)
                if is_main:
                    entry[key] = to_main_memory(full).view(self._shape(parameter))
            if entry:
                state[number] = entry
        if not is_main:
            return None
        saved = self._own.state_dict().keys() & self._buffers.keys() - self._frozen
        buffers = dict(self._own.named_buffers())
        weights |= {n: to_main_memory(buffers[n]).to(self._buffers[n]) for n in sorted(saved)}
        now = iter(self.groups)  # DeepSpeed leaves out empty groups
        groups = [
            {**group, "lr": next(now)["lr"]} if group["params"] else group
            for group in self._groups_as_saved
        ]
        aliases = {n: f for n, f in self._aliases.items() if f in weights}
        return Whole(weights, aliases, {"state": state, "param_groups": groups})

    def load(self, weights: dict[str, Tensor], optimizer: dict[str, Any]) -> None:
        for name, parameter in self._parameters.items():
            if name in weights:
                self._set_weight(parameter, weights[name])
        for name, buffer in self._own.named_buffers():
            if name in weights:
                buffer.copy_(weights[name])
        if optimizer["state"]:
            self._make_state(optimizer["state"][0])
            self._link_state()
        keys = self._sharded_keys()
        for number, parameter in enumerate(self._numbered):
            for key in keys:
                value = optimizer["state"][number][key].to(self._accelerator.device)
                safe_set_full_optimizer_state(parameter, value, key)

    @contextlib.contextmanager
    def whole_model(self) -> Iterator[None]:
        if not self.shards_weights:
            yield
            return
        with (
            deepspeed.zero.GatheredParameters(list(self._own.parameters())),
            _without_hooks(self._own, but=self._hook.id),
        ):
            yield

    def close(self) -> None:
        self._hook.remove()
        full = {}
        for name, parameter in self._parameters.items():
            if parameter.requires_grad:
                full[name] = safe_get_full_fp32_param(parameter).view(self._shape(parameter))
            elif self.shards_weights:
                with deepspeed.zero.GatheredParameters([parameter]):
                    full[name] = parameter.data.clone()
            else:
                full[name] = parameter.data
        self._engine.destroy()
        for name, parameter in self._parameters.items():
            _forget_partition(parameter)
            parameter.data = full[name].clone()
        for name, buffer in self._own.named_buffers():
            buffer.data = buffer.data.to(self._buffers.get(name, buffer.dtype))
        release(self._accelerator, self._own)

    def _set_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        value = value.to(self._accelerator.device)
        if parameter.requires_grad:
            safe_set_full_fp32_param(parameter, value.float())
        if self.shards_weights:
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                if self._accelerator.is_main_process:
                    parameter.data.copy_(value)
        else:
            parameter.data.copy_(value)

    def _shape(self, parameter: nn.Parameter) -> torch.Size:
        return getattr(parameter, "ds_shape", parameter.shape)

    def _shards(self) -> list[Tensor]:
        """This rank's shards of the master weights: the inner optimizer's parameters."""
        if self.shards_weights:
            return self._zero.fp32_partitioned_groups_flat
        return self._zero.single_partition_of_fp32_groups

    def _state_of_a_shard(self) -> dict[str, Any]:
        state = self._zero.optimizer.state
        return next((state[shard] for shard in self._shards() if shard in state), {})

    def _sharded_keys(self) -> list[str]:
        return [k for k, v in self._state_of_a_shard().items() if not _is_common(v)]

    def _common_state(self) -> dict[str, Any]:
        """The state that is the same for all parameters: Adam's step count."""
        entry = self._state_of_a_shard()
        common = {k: v for k, v in entry.items() if _is_common(v)}
        # With offload, DeepSpeed substitutes its own Adam, whose `step` is a Python int.
        return {
            k: to_main_memory(v) if isinstance(v, Tensor) else torch.tensor(float(v))
            for k, v in common.items()
        }

    def _make_state(self, example: dict[str, Any]) -> None:
        """Create the inner optimizer's state as its first step would, filled with zeros."""
        inner = self._zero.optimizer
        counts_in_python = type(inner).__name__ == "DeepSpeedCPUAdam"
        for shard in self._shards():
            inner.state[shard] = {
                key: torch.zeros_like(shard) if not _is_common(value)
                else int(value) if counts_in_python
                else value.to(shard.device, copy=True)
                for key, value in example.items()
            }  # fmt: skip

    def _link_state(self) -> None:
        """Link the parameters to their slices of the optimizer state again.

        In stages 1 and 2, DeepSpeed links them after it has updated the first group. At that time
        the other groups have no state yet.
        """
        if not self.shards_weights:
            self._zero._hp_optimizer_states_linked = False
            self._zero._lazy_init_hp_params_optimizer_state()


def _configure(settings: dict[str, Any], model: nn.Module, config: TrainConfig) -> None:
    """Set the DeepSpeed settings that follow from the run's settings.

    The trainer divides batches and losses itself; a micro-batch size of 1 keeps DeepSpeed from
    dividing them again. DeepSpeed's default buffers and thresholds are for billions of parameters:
    with a small model the buffers would dominate the memory, and stage 3 would shard nothing.
    """
    settings |= {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.clip or 0.0,
        "bf16": {"enabled": config.precision == "bf16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": math.inf,
    }
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    settings["zero_optimization"] |= {
        "reduce_bucket_size": min(500_000_000, max(trained // 4, 1)),
        "allgather_bucket_size": min(500_000_000, max(trained // 4, 1)),
        "stage3_param_persistence_threshold": min(100_000, trained // 1000),
    }


@contextlib.contextmanager
def _without_hooks(model: nn.Module, but: int) -> Iterator[None]:
    """Disable DeepSpeed's forward hooks, which gather and free a module's weights.

    These hooks are collective operations, so ranks could not run the model independently.
    """
    kept = [
        (module, name, getattr(module, name))
        for module in model.modules()
        for name in ("_forward_pre_hooks", "_forward_hooks")
    ]
    for module, name, hooks in kept:
        setattr(module, name, OrderedDict((k, v) for k, v in hooks.items() if k == but))
    try:
        yield
    finally:
        for module, name, hooks in kept:
            setattr(module, name, hooks)


def _cast_inputs(dtype: torch.dtype) -> Any:
    def hook(module: nn.Module, inputs: tuple) -> tuple:
        return tuple(
            x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs
        )

    return hook


def _is_common(value: Any) -> bool:
    return not isinstance(value, Tensor) or value.ndim == 0


def _forget_partition(parameter: nn.Parameter) -> None:
    for name in [name for name in vars(parameter) if name.startswith(("ds_", "_hp_", "_z3_"))]:
        delattr(parameter, name)
