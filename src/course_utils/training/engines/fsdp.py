"""PyTorch's fully sharded data parallelism (FSDP2), which shards the whole training state.

Every parameter becomes a DTensor; each rank holds a shard of its rows. FSDP all-gathers a block's
parameters before the block runs and frees them afterwards. In the backward pass it reduce-scatters
the gradients.

accelerate supports FSDP only on GPUs. torch's `fully_shard` also works over gloo, so this module
calls it directly, on GPUs and on CPUs.

Paper: Zhao et al. (2023), "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel",
arXiv:2304.11277.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

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
from course_utils.training.engines.processes import release
from course_utils.training.engines.weights import frozen_names


class FSDPEngine(Engine):
    """Each of the model's blocks is one FSDP unit; the remaining parameters are another one."""

    shards_state = shards_weights = True

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
    ) -> None:
        refuse_whole_matrices(optimizer, "FSDP")
        refuse_other_precisions(config.precision, "FSDP")
        self._accelerator, self._own, self._optimizer = accelerator, model, optimizer
        model.to(accelerator.device)
        before, self._aliases = unique_parameters(model)
        self._frozen = frozen_names(model)
        self._restores = _restores_of(model)
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        half = config.precision == "bf16"
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if half else None,
            reduce_dtype=torch.float32 if half else None,
        )
        make_contiguous(model)
        for unit in [*getattr(model, "blocks", []), model]:
            fully_shard(unit, mesh=mesh, mp_policy=policy)
        self._parameters, _ = unique_parameters(model)
        now = {id(before[name]): self._parameters[name] for name in before}
        for parameter in before.values():
            _release_memory(parameter)  # FSDP has copied this rank's shard of it
        for group in optimizer.param_groups:
            group["params"] = [now[id(parameter)] for parameter in group["params"]]
        assert isinstance(model, FSDPModule)
        # Gloo has no reduction for means: reduce a sum, and divide it afterwards.
        if accelerator.device.type == "cpu":
            model.set_force_sum_reduction_for_comms(True)
        self.model = model
        self.strategy = f"FSDP over {dist.get_backend()}"

    @property
    def groups(self) -> list[dict[str, Any]]:
        return self._optimizer.param_groups

    def backward(self, loss: Float[Tensor, ""], last: bool) -> None:
        self._own.set_requires_gradient_sync(last)  # type: ignore[operator]
        loss.backward()

    def step(self, clip: float | None, want_norm: bool) -> Float[Tensor, ""] | float:
        norm: Any = math.nan
        if clip is not None or want_norm:
            gradients = [p.grad for p in self._trained() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            if isinstance(norm, DTensor):
                norm = norm.full_tensor()
            if clip is not None:
                torch.nn.utils.clip_grads_with_norm_(self._trained(), clip, norm)
        self._optimizer.step()
        return norm

    def clear(self) -> None:
        for parameter in self._parameters.values():
            parameter.grad = None

    def whole(self) -> Whole | None:
        is_main = self._accelerator.is_main_process
        weights: dict[str, Tensor] = {}
        for name, value in self._own.state_dict().items():
            if name in self._aliases or name in self._frozen:
                continue
            full = _full(value)
            if is_main:
                weights[name] = to_main_memory(full)
        saved = self._optimizer.state_dict()
        state: dict[int, dict[str, Any]] = {}
        for number, entry in saved["state"].items():
            complete = {key: _full(value) for key, value in entry.items()}
            if is_main:
                state[number] = {
                    key: to_main_memory(value) if isinstance(value, Tensor) else value
                    for key, value in complete.items()
                }
        if not is_main:
            return None
        aliases = {n: f for n, f in self._aliases.items() if f in weights}
        return Whole(weights, aliases, {**saved, "state": state})

    def load(self, weights: dict[str, Tensor], optimizer: dict[str, Any]) -> None:
        own = {**self._parameters, **dict(self._own.named_buffers())}
        with torch.no_grad():
            for name, value in weights.items():
                if name in own:
                    own[name].copy_(_like(value, own[name]))
        parameters = numbered(self._optimizer)
        state = {
            number: {
                key: _like(value, parameters[number]) if _is_sharded(value) else value
                for key, value in entry.items()
            }
            for number, entry in optimizer["state"].items()
        }
        self._optimizer.load_state_dict({**optimizer, "state": state})

    @contextlib.contextmanager
    def whole_model(self) -> Iterator[None]:
        # FSDP's hooks start collectives in every forward pass, also where nothing is left to
        # gather. So that a rank can run the model alone, the modules become plain ones meanwhile.
        sharded = _restores_of(self._own)
        plain = self._make_plain()
        try:
            yield
        finally:
            for restore in sharded:
                restore()
            for parameter in plain.values():
                _release_memory(parameter)

    def close(self) -> None:
        sharded = self._parameters
        plain = self._make_plain()
        swapped = {id(sharded[name]): plain[name] for name in plain}
        for group in self._optimizer.param_groups:
            group["params"] = [swapped.get(id(p), p) for p in group["params"]]
        self._optimizer.state.clear()
        release(self._accelerator, self._own)

    def _make_plain(self) -> dict[str, nn.Parameter]:
        """Give the modules their own classes, hooks and parameters back, with the full weights."""
        full = {name: _full(parameter) for name, parameter in self._parameters.items()}
        for restore in self._restores:
            restore()
        plain, _ = unique_parameters(self._own)
        for name, parameter in plain.items():
            # No copy: a second set of full weights would stay through every evaluation.
            parameter.data = full[name].detach()
            parameter.grad = None
        return plain

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self._parameters.values() if p.requires_grad]


def _release_memory(parameter: nn.Parameter) -> None:
    parameter.data = parameter.data.new_empty(0)


def _full(value: Any) -> Any:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _like(value: Tensor, other: Tensor) -> Tensor:
    """Shard a full tensor in the same way as `other`."""
    if isinstance(other, DTensor):
        return distribute_tensor(
            value.to(other.device, torch.float32).contiguous(), other.device_mesh, other.placements
        )
    return value


def _is_sharded(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _restores_of(model: nn.Module) -> list[Callable[[], None]]:
    """Functions that restore every module's present class, parameters and hooks."""
    restores: list[Callable[[], None]] = []
    for module in model.modules():
        kind, kept = module.__class__, {}
        for name, value in vars(module).items():
            if isinstance(value, dict) and name != "_modules":
                kept[name] = type(value)(value)

        def restore(module: nn.Module = module, kind: type = kind, kept: dict = kept) -> None:
            module.__class__ = kind
            vars(module).update(kept)

        restores.append(restore)
    return restores
