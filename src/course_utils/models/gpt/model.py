"""The blocks, and the model made of them."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from course_utils.models.gpt.attention import GroupedQueryAttention
from course_utils.models.gpt.cache import KVCache
from course_utils.models.gpt.config import GPTConfig
from course_utils.models.gpt.mlp import SwiGLU
from course_utils.models.gpt.norm import RMSNorm
from course_utils.models.gpt.rope import rope_frequencies, rotation_tables

INIT_STD = 0.02


class Block(nn.Module):
    """Attention, then feed-forward; each reads a normalised copy and adds to the stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = GroupedQueryAttention(config)
        self.mlp_norm = RMSNorm(config.d_model, config.norm_eps)
        self.mlp = SwiGLU(config.d_model, config.d_ff)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        rotation: tuple[Tensor, Tensor],
        visible: Bool[Tensor, "... seq total"] | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "batch seq d_model"]:
        """The stream after this block; arguments as in `GroupedQueryAttention`."""
        attended = self.attention(self.attention_norm(x), rotation, visible, cache, layer)
        x = x + self.dropout(attended)
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class GPT(nn.Module):
    """A decoder-only language model: from tokens to the logits of the next one."""

    frequencies: Float[Tensor, "half"]

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.output = nn.Linear(config.d_model, config.vocab, bias=False)
        if config.tied:
            self.output.weight = self.embedding.weight
        frequencies = rope_frequencies(config.head_dim, config.rope_theta, config.yarn)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Small normal weights, so that the first loss is about ln(vocab).

        What writes into the residual stream starts smaller by √(2·n_layers): that many updates
        add up, and the sum should not grow with the depth (Radford et al., 2019).
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                continue  # norms start at one
            writes = name.endswith(("attention.output.weight", "mlp.down.weight"))
            shrink = math.sqrt(2 * self.config.n_layers) if writes else 1.0
            nn.init.normal_(parameter, std=INIT_STD / shrink)

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        *,
        documents: Int[Tensor, "batch seq"] | None = None,
        first: Int[Tensor, "batch"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq vocab"]:
        """Logits of the token after each position.

        Args:
            tokens: ids below `vocab`.
            documents: for several documents packed into a row, the number of each token's own:
                no token sees another document. Distances are what RoPE encodes, so positions need
                not start again at zero.
            first: for rows padded on the left to one length, the column of each row's first real
                token: nothing before it is seen.
            cache: continue after what it holds; `tokens` are then only the new ones.
        """
        features = self.features(tokens, documents=documents, first=first, cache=cache)
        return self.output(features)

    def features(
        self,
        tokens: Int[Tensor, "batch seq"],
        *,
        documents: Int[Tensor, "batch seq"] | None = None,
        first: Int[Tensor, "batch"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """The normalised stream after the last block: what the output layer reads."""
        start, seq = cache.length if cache else 0, tokens.shape[1]
        positions = torch.arange(start, start + seq, device=tokens.device)
        rotation = rotation_tables(positions, self.frequencies, self.config.yarn)
        visible = visibility(start, seq, tokens.device, documents, first)
        x = self.embedding(tokens)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, visible, cache, layer)
        if cache is not None:
            cache.advance(seq)
        return self.norm(x)


def visibility(
    start: int,
    seq: int,
    device: torch.device,
    documents: Int[Tensor, "batch seq"] | None = None,
    first: Int[Tensor, "batch"] | None = None,
) -> Bool[Tensor, "... seq total"] | None:
    """Which of `start + seq` columns each of the last `seq` rows may look at.

    None where plain causal attention says it all; fused attention is fastest without a mask.
    """
    if documents is None and first is None and (start == 0 or seq == 1):
        return None
    total = start + seq
    visible = torch.ones(seq, total, dtype=torch.bool, device=device).tril(start)
    if documents is not None:
        same = documents[:, :, None] == documents[:, None, :]
        visible = (visible & same)[:, None]
    if first is not None:
        column, row = torch.arange(total, device=device), torch.arange(start, total, device=device)
        real = column >= first[:, None, None]
        # A padded row looks at itself: with nothing to look at, softmax would give NaN.
        itself = column == row[:, None]
        visible = visible & (real | itself)[:, None]
    return visible
