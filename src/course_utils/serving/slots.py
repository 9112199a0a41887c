"""Keys and values of many texts at once, each of its own length, in one allocation.

    row 0  ██████████████▒          ▒ where the next token goes
    row 1  ████▒
    row 2  ████████▒                                       │ one more column, never looked at:
    row 3  (free)                                          │ where padding goes

The rows in use are always the first ones, so that a step reads a view of them and copies nothing:
when a text in the middle leaves, the last one moves into its row.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_utils.generation.fused import FusedGPT
from course_utils.models.gpt import GPTConfig


class Slots:
    """Room for `n_slots` texts of up to `capacity` tokens."""

    def __init__(
        self,
        config: GPTConfig,
        n_slots: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.n_layers, n_slots, config.n_kv_heads, capacity + 1, config.head_dim)
        # Zeros, not whatever is in memory: hidden columns get weight 0, and 0 times NaN is NaN.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.capacity = capacity

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one row to another."""
        for stored in (self.keys, self.values):
            stored[:, target, :, :length] = stored[:, source, :, :length]


@dataclass(frozen=True)
class Places:
    """Where the tokens of one step belong; the model takes it for its cache.

    Args:
        rows: the row of each text, in the order of the batch.
        positions: of each token; `capacity` for padding.
        total: columns that are looked at.
    """

    slots: Slots
    rows: Int[Tensor, "batch"]
    positions: Int[Tensor, "batch seq"]
    total: int
    first_rows: bool  # whether `rows` are 0, 1, 2, …: then a view will do

    def write(
        self,
        layer: int,
        keys: Float[Tensor, "batch n_kv_heads seq head_dim"],
        values: Float[Tensor, "batch n_kv_heads seq head_dim"],
    ) -> tuple[Tensor, Tensor]:
        """Store the new ones in their places; returns each text's so far."""
        found = []
        rows = slice(len(self.rows)) if self.first_rows else self.rows
        for stored, new in ((self.slots.keys[layer], keys), (self.slots.values[layer], values)):
            stored[self.rows[:, None], :, self.positions] = new.transpose(1, 2)
            found.append(stored[rows, :, : self.total])
        return found[0], found[1]

    @property
    def mask(self) -> Bool[Tensor, "batch 1 queries keys"]:
        """A token sees its own position and all before it."""
        column = torch.arange(self.total, device=self.positions.device)
        return (column <= self.positions[..., None])[:, None]


def features_of(
    model: FusedGPT,
    slots: Slots,
    rows: list[int],
    tokens: list[list[int]],
    starts: list[int],
) -> Float[Tensor, "batch d_model"]:
    """Features of the last new token of every text.

    Args:
        rows: of the slots. When they are 0, 1, 2, …, nothing is copied.
        tokens: the new tokens of each text; none for a row that is only computed along.
        starts: how many tokens each text has already.
    """
    device, longest = slots.keys.device, max(map(len, tokens))
    padded = torch.tensor([[*new, *[0] * (longest - len(new))] for new in tokens], device=device)
    count = torch.tensor([len(new) for new in tokens], device=device)
    column = torch.arange(longest, device=device)
    position = torch.tensor(starts, device=device)[:, None] + column
    position = position.where(column < count[:, None], slots.capacity)
    total = max(start + len(new) for start, new in zip(starts, tokens, strict=True))
    places = Places(
        slots, torch.tensor(rows, device=device), position, total, rows == [*range(len(rows))]
    )
    turned = position.clamp(max=len(model.cos) - 1)
    cos, sin = model.cos[turned][:, None], model.sin[turned][:, None]
    features = model.through_blocks(padded, cos, sin, places.mask, places)
    return features[torch.arange(len(rows), device=device), (count - 1).clamp(min=0)]
