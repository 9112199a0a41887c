"""Keys and values that were computed once and are needed for every token to come."""

import torch
from jaxtyping import Float
from torch import Tensor

from course_utils.models.gpt.config import GPTConfig


class KVCache:
    """Room for `capacity` positions of every layer, allocated once.

    Growing a tensor by one position copies all of it for every token; here a token's keys and
    values are written into their place, and attention reads a view of what is filled.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.n_layers, batch, config.n_kv_heads, capacity, config.head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.length = 0

    def write(
        self,
        layer: int,
        keys: Float[Tensor, "batch n_kv_heads seq head_dim"],
        values: Float[Tensor, "batch n_kv_heads seq head_dim"],
    ) -> tuple[
        Float[Tensor, "batch n_kv_heads total head_dim"],
        Float[Tensor, "batch n_kv_heads total head_dim"],
    ]:
        """Append to one layer; returns all keys and values of that layer so far.

        The new ones go into the places after the first `length`. They are written into the room
        that is there already, and what is returned is a view of it: nothing is copied twice.
        `length` itself stays, because the layers after this one write at the same places.

        Args:
            layer: the layer's number.
            keys, values: of `seq` new positions.

        Returns:
            The first `length` + seq positions of this layer: keys, values.
        """
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, seq: int) -> None:
        """Count `seq` more positions as filled; called once, after the last layer has written."""
        self.length += seq

    def rewind(self, length: int) -> None:
        """Forget everything after the first `length` positions."""
        self.length = length

    @property
    def nbytes(self) -> int:
        """Bytes of the allocated room."""
        return self.keys.nbytes + self.values.nbytes
