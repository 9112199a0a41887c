"""LoRA: fine-tuning a model by adding a small product of two low-rank matrices to its large ones.

                    ┌── weight, out × in, frozen ──────────────────────┐
    x ── dropout ───┤                                                  ├─ + ── y
                    └── down, rank × in ── · scale ── up, out × rank ──┘

`up` starts at zero, so the model begins as it was. A matrix of 576 × 576 has 331,776 numbers; its
two thin ones of rank 8 have 9,216, and only they need gradients and an optimizer's state.

Paper: Hu et al. (2021), "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685.
The files other programs read are in `adapters`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from course_utils.base.errors import CourseError
from course_utils.models.autocast import in_compute_dtype

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """What is added, and where.

    Attributes:
        rank: Inner width of the product.
        alpha: The product's weight, relative to the rank: see `lora_scale`.
        dropout: Share of the inputs that the low-rank matrices do not see in training.
        targets: Patterns for the names of the layers: see `matches`.
        rslora: Whether the scale falls with the root of the rank instead of the rank itself.

    Raises:
        CourseError: when a number makes no sense.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("attention.query", "attention.value")
    rslora: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        if self.rank < 1:
            raise CourseError(f"LoRA's rank is {self.rank}, not at least 1.")
        if not 0 <= self.dropout < 1:
            raise CourseError(f"LoRA's dropout is {self.dropout}: from 0 to below 1.")
        if not self.targets:
            raise CourseError("LoRA has no targets: name some layers, or * for all of them.")

    @property
    def scale(self) -> float:
        """The factor on the product."""
        return lora_scale(self.rank, self.alpha, self.rslora)


def lora_scale(rank: int, alpha: float, rslora: bool = False) -> float:
    """The factor on LoRA's product.

        alpha / rank           as Hu et al. (2021) do it
        alpha / √rank          rank-stabilised, with `rslora`

    With the first, a higher rank learns more slowly, because each of its directions counts less;
    with the second, the size of the update does not shrink as the rank grows.

    Paper: Kalajdzievski (2023), "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA",
    arXiv:2312.03732.
    """
    return alpha / (math.sqrt(rank) if rslora else rank)


class LoRALinear(nn.Module):
    """A linear layer that is frozen, with a trainable low-rank product beside it.

    Args:
        base: The layer; anything with `in_features`, `out_features` and a `weight`, so that it may
            be a quantized one.
        config: Rank, scale and dropout.
    """

    def __init__(self, base: nn.Module, config: LoRAConfig) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.in_features, self.out_features = features_of(base)
        self.config, self.scale = config, config.scale
        self.dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        device = next(iter([*base.parameters(), *base.buffers()])).device
        # In float32 whatever the base is in: small updates to 16-bit numbers would be rounded away.
        self.down = nn.Parameter(torch.empty(config.rank, self.in_features, device=device))
        self.up = nn.Parameter(torch.empty(self.out_features, config.rank, device=device))
        self.merged = False
        self.reset()

    def reset(self) -> None:
        """Start anew: `down` random, `up` zero, so that their product is zero.

        `down` gets PyTorch's own initialisation of a linear layer, uniform between ±1/√in_features
        (`nn.init.kaiming_uniform_` with a = √5). If both were zero, neither would ever get a
        gradient: each one's is a product with the other.
        """
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        nn.init.zeros_(self.up)

    def forward(self, x: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out"]:
        """The base's output plus the scaled product's.

            y = base(x) + up · (scale · (down · dropout(x)))

        From right to left: the rank × in matrix first. So only vectors of `rank` numbers lie in
        between, and the out × in product of the two is never made. Dropout applies to what the thin
        matrices see, not to what the base sees. A layer that is `merged` has the product in its
        base's weight already.
        """
        x = in_compute_dtype(x)
        y = self.base(x)
        if self.merged:
            return y
        narrow = F.linear(self.dropout(x), self.down.to(x.dtype))
        return y + F.linear(narrow * self.scale, self.up.to(x.dtype)).to(y.dtype)

    def delta(self) -> Float[Tensor, "out_features in_features"]:
        """What the two low-rank matrices amount to: scale · up · down, in float32."""
        return self.scale * (self.up.float() @ self.down.float())

    @property
    def weight(self) -> Float[Tensor, "out_features in_features"]:
        """The weight that this layer computes with, the product included."""
        weight = weight_of(self.base)
        return weight if self.merged else (weight.float() + self.delta()).to(weight.dtype)

    @property
    def bias(self) -> Tensor | None:
        """The base's."""
        return getattr(self.base, "bias", None)

    @torch.no_grad()
    def merge(self) -> None:
        """Add the product to the base's weight: from here on the layer costs what it did before.

        In 16 bits the sum is rounded. Merging twice adds once.

        Raises:
            CourseError: when the base is quantized: its weight has no room for the product.
        """
        if not self.merged:
            self._add_to_base(self.delta())
            self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the product out of the base's weight again, up to rounding."""
        if self.merged:
            self._add_to_base(-self.delta())
            self.merged = False

    def _add_to_base(self, delta: Tensor) -> None:
        weight = getattr(self.base, "weight", None)
        if not isinstance(weight, nn.Parameter):
            raise CourseError(
                "A quantized layer has no room for an adapter: merge into the full-precision model."
            )
        weight.copy_(weight.float() + delta)


def matches(name: str, pattern: str) -> bool:
    """Whether a layer is meant by a pattern.

    A pattern is the end of a dotted name, cut at a dot, or all of it; `*` stands for any characters
    and `?` for one, dots included, and upper and lower case differ. `query` and `attention.query`
    mean the queries of all blocks, `blocks.0.*` all of block 0, `*` everything. `ry` means nothing.

    Args:
        name: such as `blocks.3.attention.query`.
    """
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def inject(model: nn.Module, config: LoRAConfig) -> list[str]:
    """Freeze a model, and put a `LoRALinear` in the place of every layer that `config` targets.

    The output layer is left alone even where a pattern matches, if it shares its weight with the
    embedding: both would change.

    Returns:
        The names of the layers.

    Raises:
        CourseError: when a pattern matches no linear layer (it lists what there is), or the model
            has adapters already. The model is then unchanged.
    """
    if any(adapters(model)):
        raise CourseError("This model has LoRA layers already: merge them first.")
    linear = {name: layer for name, layer in model.named_modules() if _is_linear(layer)}
    tied = _embedded(model)
    linear = {name: layer for name, layer in linear.items() if id(_raw(layer)) not in tied}
    for pattern in config.targets:
        if not any(matches(name, pattern) for name in linear):
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise CourseError(
                f"LoRA's target {pattern!r} matches no layer of this model. "
                f"Its linear layers end in {', '.join(known)}."
            )
    chosen = [name for name in linear if any(matches(name, p) for p in config.targets)]
    model.requires_grad_(False)
    for name in chosen:
        _replace(model, name, LoRALinear(linear[name], config))
    return chosen


def adapters(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """The LoRA layers of a model, by name."""
    return ((name, m) for name, m in model.named_modules() if isinstance(m, LoRALinear))


def merge(model: nn.Module) -> None:
    """Add all products to the weights; the layers stay, so that `unmerge` can take them out."""
    for _, layer in adapters(model):
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Undo `merge`."""
    for _, layer in adapters(model):
        layer.unmerge()


def merge_and_unload(model: Model) -> Model:
    """Merge, and put the plain layers back: a model of the original class, without a trace."""
    merge(model)
    for name, layer in list(adapters(model)):
        _replace(model, name, layer.base)
    return model


def narrow(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep the frozen matrices of linear layers in `dtype`: under autocast, what would else be
    rounded again at every step. What is trained, norms and embeddings stay as they are."""
    embedded = _embedded(model)
    for layer in model.modules():
        weight = _raw(layer) if isinstance(layer, nn.Linear) else None
        if weight is not None and not weight.requires_grad and id(weight) not in embedded:
            weight.data = weight.data.to(dtype)


def nearest_low_rank(
    matrix: Float[Tensor, "out_features in_features"], rank: int
) -> tuple[Float[Tensor, "out_features rank"], Float[Tensor, "rank in_features"]]:
    """The two low-rank matrices whose product comes closest to a matrix.

    With the singular value decomposition U · diag(s) · V, where s goes from large to small, keep
    the `rank` largest singular values, and give each of the two an equal share of them:

        up   = U[:, :rank] · √s          column j times √sⱼ
        down = √s · V[:rank]             row j times √sⱼ

    No other product of that rank has a smaller sum of squared differences. So an update that was
    learned in full becomes an adapter.

    Returns:
        (up, down).

    Paper: Eckart and Young (1936), "The approximation of one matrix by another of lower rank".
    """
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * v[:rank]


def trainable_share(model: nn.Module) -> tuple[int, int]:
    """How many parameters are trained, and how many there are; shared ones count once.

    Returns:
        (trainable, all).
    """
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


def features_of(layer: nn.Module) -> tuple[int, int]:
    """Numbers of inputs and outputs of a linear layer."""
    return int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]


def _is_linear(layer: nn.Module) -> bool:
    wide = hasattr(layer, "in_features") and hasattr(layer, "out_features")
    return wide and not isinstance(layer, nn.Bilinear | LoRALinear)


def _raw(layer: nn.Module) -> Tensor | None:
    return layer._parameters.get("weight")


def weight_of(layer: nn.Module) -> Tensor:
    """The matrix of a linear layer, in full when it is quantized."""
    dequantized = getattr(layer, "dequantized", None)
    return dequantized() if dequantized else layer.weight  # type: ignore[return-value]


def _embedded(model: nn.Module) -> set[int]:
    return {id(_raw(layer)) for layer in model.modules() if isinstance(layer, nn.Embedding)}


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layer)
