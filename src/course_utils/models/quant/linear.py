"""A linear layer whose weight is stored in few bits, and a model full of them."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from course_utils.base.errors import CourseError
from course_utils.models.lora import matches
from course_utils.models.quant.scheme import Scheme
from course_utils.models.quant.weight import Parts, dequantize_weight, quantize_weight

LOGITS = ("output", "lm_head")


class QuantizedLinear(nn.Module):
    """y = x · Wᵀ + b with a frozen weight in few bits: weight-only quantization.

    The weight is turned back into floating point for every product, and forgotten again; it is
    never kept. Gradients flow to the input, for which the weight is turned back once more, and not
    to the weight. So an adapter beside the layer, or anything before it, can be trained.

    Args:
        in_features, out_features: as in `nn.Linear`.
        scheme: how the weight is stored.
        parts: from `quantize_weight`.
        bias: kept as it is, without a gradient.
    """

    frozen_state = True  # a checkpoint of what is trained beside it leaves it out

    bias: Float[Tensor, "out"] | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        scheme: Scheme,
        parts: Parts,
        bias: Float[Tensor, "out"] | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.scheme = in_features, out_features, scheme
        self._parts = tuple(parts)
        for name, part in parts.items():
            self.register_buffer(name, part)
        self.register_buffer("bias", bias)
        # In the state dict, so that nf4's codes cannot be loaded as integers by mistake.
        spelled = torch.tensor(list(str(scheme).encode()), dtype=torch.uint8)
        self.register_buffer("scheme_name", spelled)

    @classmethod
    def from_linear(cls, linear: nn.Linear, scheme: str | Scheme) -> "QuantizedLinear":
        """The quantized layer that stands for a linear one, which stays as it is.

        Raises:
            CourseError: for an unknown scheme, or one that the number of inputs does not fit.
        """
        scheme = Scheme.parse(scheme)
        bias = None if linear.bias is None else linear.bias.detach().clone()
        parts = quantize_weight(linear.weight.detach(), scheme)
        return cls(linear.in_features, linear.out_features, scheme, parts, bias)

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "out inputs"]:
        """The weight that the codes stand for."""
        return dequantize_weight(self.parts, self.scheme, dtype)

    @property
    def parts(self) -> Parts:
        """What is stored of the weight."""
        return {name: getattr(self, name) for name in self._parts}

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch out"]:
        """The layer's output, computed in the dtype of `x`."""
        y: Tensor = _FrozenProduct.apply(x, self)
        return y

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"{self.in_features} → {self.out_features}, {self.scheme}, bias={bias}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedLinear":
        """What `to(...)` calls. Scales stay in float32 when the model becomes bfloat16: rounded,
        they would no longer be those that the codes were chosen for."""
        before = self.parts
        super()._apply(fn, recurse)
        for name, part in before.items():
            if part.is_floating_point():
                setattr(self, name, part.to(getattr(self, name).device))
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        name = state_dict.get(f"{prefix}scheme_name")
        stored = bytes(name.tolist()).decode() if name is not None else str(self.scheme)
        if stored != str(self.scheme):
            errors: list[str] = arguments[-1]
            errors.append(f"{prefix[:-1]} was stored as {stored}; this layer is {self.scheme}.")
            return
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class _FrozenProduct(torch.autograd.Function):
    """x · Wᵀ + b, which keeps nothing but the layer itself for the way back.

    Autograd would keep the floating-point weight of every layer until the backward pass: the whole
    model, unquantized.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer, ctx.dtype = layer, x.dtype
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        if _has_kernel(x, layer):
            scale = (
                layer.parts["scale"].flatten().to(x.dtype).expand(layer.out_features).contiguous()
            )
            y = torch._weight_int8pack_mm(x.flatten(0, -2), layer.parts["codes"], scale)
            y = y.view(*x.shape[:-1], -1)
            return y if bias is None else y + bias
        return F.linear(x, layer.dequantized(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        weight = ctx.layer.dequantized(gradient.dtype)
        return (gradient @ weight).to(ctx.dtype), None


def _has_kernel(x: Tensor, layer: QuantizedLinear) -> bool:
    """Whether PyTorch multiplies these codes as they are, and faster than turning them back."""
    scheme, rows = layer.scheme, x.numel() // x.shape[-1]
    whole = scheme.kind == "int8" and not scheme.group and not scheme.zero
    return whole and 0 < rows <= 16 and x.device.type == "cpu" and x.dtype == torch.bfloat16


def quantize_linears(
    model: nn.Module,
    scheme: str | Scheme,
    *,
    targets: Sequence[str] = ("*",),
    skip: Sequence[str] = (),
) -> list[str]:
    """Replace linear layers of a model by quantized ones, in place, one after another.

    The layer that makes the logits (`output` or `lm_head`) stays unless `targets` names it: nothing
    after it can even its errors out. So does a layer whose weight another module uses as well.

    Args:
        targets, skip: patterns for names, as in `lora.matches`: "attention.query", "blocks.0.*".

    Returns:
        The names of the layers that were replaced.

    Raises:
        CourseError: when no layer fits, or one does not fit the scheme; then nothing is replaced.
    """
    scheme = Scheme.parse(scheme)
    users = Counter(id(p) for m in model.modules() for p in m._parameters.values())
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and users[id(module.weight)] == 1
    }
    chosen = [
        name
        for name in linears
        if any(matches(name, pattern) for pattern in targets)
        and not any(matches(name, pattern) for pattern in skip)
        and (name not in LOGITS or name in targets)
    ]
    if not chosen:
        known = ", ".join(list(linears)[:4]) or "none at all"
        raise CourseError(f"No linear layer fits {', '.join(targets)}. There are: {known}, …")
    for name in chosen:
        try:
            scheme.check(linears[name].in_features)
        except CourseError as error:
            raise CourseError(f"{name}: {error}") from None
    for name in chosen:
        parent, _, last = name.rpartition(".")
        quantized = QuantizedLinear.from_linear(linears.pop(name), scheme)
        setattr(model.get_submodule(parent), last, quantized)
    return chosen


def dequantize_linears(model: nn.Module) -> None:
    """Put ordinary linear layers in the place of quantized ones, with the weights these stand for:
    rounded as they were, and in float32."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, QuantizedLinear)]
    for name, layer in layers:
        linear = nn.Linear(
            layer.in_features, layer.out_features, layer.bias is not None, device="meta"
        )
        linear.weight = nn.Parameter(layer.dequantized())
        if layer.bias is not None:
            linear.bias = nn.Parameter(layer.bias)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, linear)


def model_bytes(model: nn.Module) -> int:
    """Memory of a model's parameters and buffers; shared ones count once."""
    return sum(x.nbytes for x in (*model.parameters(), *model.buffers()))
