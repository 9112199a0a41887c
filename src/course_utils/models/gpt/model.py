"""The blocks, and the model made of them."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from course_utils.models.gpt.attention import GroupedQueryAttention, causal_mask
from course_utils.models.gpt.cache import KVCache
from course_utils.models.gpt.config import GPTConfig
from course_utils.models.gpt.init import initialise
from course_utils.models.gpt.loss import next_token_loss
from course_utils.models.gpt.mlp import SwiGLU
from course_utils.models.gpt.moe import MoE, balance_term
from course_utils.models.gpt.norm import RMSNorm
from course_utils.models.gpt.rope import rope_frequencies, rotation_tables


class Block(nn.Module):
    """Attention, then feed-forward; each reads a normalised copy and adds to the stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = GroupedQueryAttention(config)
        self.mlp_norm = RMSNorm(config.d_model, config.norm_eps)
        self.mlp: SwiGLU | MoE
        if config.n_experts:  # lesson 13
            self.mlp = MoE(config.d_model, config.d_ff, config.n_experts, config.top_k)
        else:
            self.mlp = SwiGLU(config.d_model, config.d_ff)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        rotation: tuple[Tensor, Tensor],
        mask: Bool[Tensor, "... queries keys"] | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "batch seq d_model"]:
        """The residual stream after this block.

            x ← x + dropout( attention( attention_norm(x) ) )
            x ← x + dropout( mlp( mlp_norm(x) ) )

        Args:
            x: the stream. What a block computes is added to it, and nothing else happens to it.
            rotation, mask, cache, layer: passed to the attention, in this order and unchanged.
        """
        attended = self.attention(self.attention_norm(x), rotation, mask, cache, layer)
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
        initialise(self, config.n_layers)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GPT":
        """What `to(...)` calls. Frequencies stay in float32 when the weights become bfloat16: times
        a position in the hundreds, the rounding would be an angle of more than a radian."""
        super()._apply(fn, recurse)
        config, device = self.config, self.embedding.weight.device
        frequencies = rope_frequencies(config.head_dim, config.rope_theta, config.yarn)
        self.frequencies = frequencies.to(device)
        return self

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        *,
        targets: Int[Tensor, "batch seq"] | None = None,
        documents: Int[Tensor, "batch seq"] | None = None,
        first: Int[Tensor, "batch"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq vocab"] | Float[Tensor, ""]:
        """Logits of the token after each position, or, given `targets`, the sum of their losses.

        Args:
            tokens: ids below `vocab`.
            targets: the token that comes after each position, or −100 where it does not count: see
                `loss.next_token_loss`. In training, a mixture of experts adds its `balance_term`.
            documents: for several documents packed into a row, the number of each token's own:
                no token sees another document. Distances are what RoPE encodes, so positions need
                not start again at zero.
            first: for rows padded on the left to one length, the column of each row's first real
                token: nothing before it is seen.
            cache: continue after what it holds; `tokens` are then only the new ones.
        """
        features = self.features(tokens, documents=documents, first=first, cache=cache)
        if targets is None:
            return self.output(features)
        loss = next_token_loss(features, self.output.weight, targets)
        if self.training and self.config.n_experts:
            loss = loss + self.config.balance * balance_term(self.blocks, targets, documents)
        return loss

    def features(
        self,
        tokens: Int[Tensor, "batch seq"],
        *,
        documents: Int[Tensor, "batch seq"] | None = None,
        first: Int[Tensor, "batch"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """The normalised stream after the last block: what the output layer reads.

        1. The new tokens' positions count on from `cache.length`, or from 0 without a cache.
           `rotation_tables(positions, self.frequencies, self.config.yarn)` has their angles.
        2. `attention_mask(start, seq, device, documents, first)` is the mask of `seq` tokens after
           `start` earlier ones.
        3. The tokens' embeddings are the stream. Each block takes the stream, the rotation, the
           mask, the cache and the block's own number, counted from 0.
        4. After the last block, `cache.advance(seq)` tells the cache once that it has grown.
        5. Return `self.norm` of the stream.

        Arguments as for `forward`.
        """
        start, seq = cache.length if cache else 0, tokens.shape[1]
        positions = torch.arange(start, start + seq, device=tokens.device)
        rotation = rotation_tables(positions, self.frequencies, self.config.yarn)
        mask = attention_mask(start, seq, tokens.device, documents, first)
        x = self.embedding(tokens)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, mask, cache, layer)
        if cache is not None:
            cache.advance(seq)
        return self.norm(x)


def attention_mask(
    start: int,
    seq: int,
    device: torch.device,
    documents: Int[Tensor, "batch seq"] | None = None,
    first: Int[Tensor, "batch"] | None = None,
) -> Bool[Tensor, "... queries keys"] | None:
    """The attention mask of `seq` new tokens after `start` cached ones.

    Args:
        documents: Tokens attend only within their own document.
        first: Column of each row's first real token in a left-padded batch.

    Returns:
        True where a query attends to a key; None where plain causal attention does the same,
        because fused attention is fastest without a mask.
    """
    if documents is None and first is None and (start == 0 or seq == 1):
        return None
    total = start + seq
    mask = causal_mask(seq, total, device)
    if documents is not None:
        same = documents[:, :, None] == documents[:, None, :]
        mask = (mask & same)[:, None]
    if first is not None:
        column, row = torch.arange(total, device=device), torch.arange(start, total, device=device)
        real = column >= first[:, None, None]
        # A padding token attends to itself: a softmax over no key at all would give NaN.
        itself = column == row[:, None]
        mask = mask & (real | itself)[:, None]
    return mask
