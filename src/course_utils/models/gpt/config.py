"""The numbers that define a model, checked, and the presets of the course."""

from dataclasses import dataclass

from course_utils.base.errors import CourseError


@dataclass(frozen=True)
class YaRN:
    """Stretching a trained model's context: see `rope.rope_frequencies`.

    Args:
        factor: how many times longer the context becomes.
        original_context: the length the model was trained on.
        fast, slow: rotations within `original_context` above which a frequency is kept as it is,
            and below which it is slowed down by `factor`; between them the two are blended.
    """

    factor: float
    original_context: int
    fast: float = 32.0
    slow: float = 1.0


@dataclass(frozen=True)
class GPTConfig:
    """Shape of a model.

    Args:
        vocab: number of different tokens.
        d_model: width of the residual stream.
        n_layers: blocks.
        n_heads, n_kv_heads: query heads, and the key/value heads they share.
        head_dim: width of one head.
        d_ff: hidden width of the feed-forward network, or of each expert.
        context: longest sequence.
        rope_theta: base of the rotary wavelengths.
        yarn: context extension, or None.
        norm_eps: added to the mean square under RMSNorm's root.
        tied: whether the output layer uses the embedding's weights.
        dropout: share of residual updates set to zero in training.
        qk_norm: whether queries and keys are normalised, as in Qwen3; Llama does not.
        qkv_bias: whether queries, keys and values have a bias, as in Qwen2.
        n_experts: feed-forward networks in each block, of which a router chooses (see `moe`); with
            0 there is one, and no router.
        top_k: experts that each token uses.
        balance: how much uneven experts add to the loss in training.

    Raises:
        CourseError: when the numbers contradict each other.
    """

    vocab: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    context: int = 2048
    rope_theta: float = 1e6
    yarn: YaRN | None = None
    norm_eps: float = 1e-6
    tied: bool = True
    dropout: float = 0.0
    qk_norm: bool = True
    qkv_bias: bool = False
    n_experts: int = 0
    top_k: int = 1
    balance: float = 0.01

    def __post_init__(self) -> None:
        sizes = ("vocab", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff", "context")
        for name in sizes:
            if getattr(self, name) < 1:
                raise CourseError(f"GPTConfig: {name} is {getattr(self, name)}, not at least 1.")
        if self.n_heads % self.n_kv_heads:
            raise CourseError(
                f"GPTConfig: {self.n_heads} query heads cannot share {self.n_kv_heads} key/value "
                "heads evenly. Make n_heads a multiple of n_kv_heads."
            )
        if self.head_dim % 2:
            raise CourseError(
                f"GPTConfig: head_dim is {self.head_dim}; RoPE turns pairs, so it must be even."
            )
        if self.n_experts and not 1 <= self.top_k <= self.n_experts:
            raise CourseError(
                f"GPTConfig: a token cannot use {self.top_k} of {self.n_experts} experts."
            )

    @property
    def group(self) -> int:
        """Query heads that share one key/value head."""
        return self.n_heads // self.n_kv_heads

    def n_parameters(self) -> int:
        """Parameters of the model, counted from the shape alone."""
        queries_and_keys = 0 if self.qk_norm else -2 * self.head_dim
        heads = self.n_heads + 2 * self.n_kv_heads
        biases = heads * self.head_dim if self.qkv_bias else 0
        of_qwen3 = sum(count_parameters(self).values())
        experts = self._beyond_one_expert(self.n_experts)
        return of_qwen3 + self.n_layers * (queries_and_keys + biases) + experts

    def n_active(self) -> int:
        """Parameters that a single token is computed with: of the experts only its own."""
        unused = self._beyond_one_expert(self.n_experts) - self._beyond_one_expert(self.top_k)
        return self.n_parameters() - unused

    def _beyond_one_expert(self, n: int) -> int:
        """What `n` experts and a router have more than the network of a dense model."""
        if not self.n_experts:
            return 0
        expert, router = 3 * self.d_model * self.d_ff, self.d_model * self.n_experts
        return self.n_layers * ((n - 1) * expert + router)


def count_parameters(config: GPTConfig) -> dict[str, int]:
    """How many parameters the parts of a Qwen3-shaped model have, counted from its shape alone.

    No layer has a bias. Matrices that are shared are counted once.

    Returns:
        "embedding": the table, a vector of d_model for each token of the vocabulary. When it is
            not tied, the output layer's matrix of the same size counts here as well.
        "attention": of all blocks. Queries and the output connect d_model with n_heads heads of
            head_dim; keys and values have n_kv_heads heads.
        "mlp": of all blocks; SwiGLU has three matrices between d_model and d_ff.
        "norms": RMSNorm has one weight for each feature it normalises. A block has two of d_model,
            and two of head_dim that all its query heads, and all its key heads, share. After the
            last block there is one more of d_model.
    """
    tables = 1 if config.tied else 2
    heads = config.n_heads + config.n_kv_heads
    return {
        "embedding": tables * config.vocab * config.d_model,
        "attention": config.n_layers * 2 * config.d_model * config.head_dim * heads,
        "mlp": config.n_layers * 3 * config.d_model * config.d_ff,
        "norms": config.n_layers * 2 * (config.d_model + config.head_dim) + config.d_model,
    }


PRESETS = {
    # For two CPU cores: seconds to minutes.
    "nano": GPTConfig(
        vocab=2048, d_model=128, n_layers=4, n_heads=4, n_kv_heads=2, head_dim=32, d_ff=384,
        context=512,
    ),
    # The two sizes of minimind (Jingyao Gong, 2024): an evening on one GPU.
    "minimind-26m": GPTConfig(
        vocab=6400, d_model=512, n_layers=8, n_heads=8, n_kv_heads=2, head_dim=64, d_ff=1408
    ),
    "minimind-64m": GPTConfig(
        vocab=6400, d_model=768, n_layers=8, n_heads=8, n_kv_heads=4, head_dim=96, d_ff=2432
    ),
    # GPT-2 small's size (Radford et al., 2019) with today's parts; two thirds of the feed-forward
    # width, because SwiGLU has three matrices where GPT-2 has two.
    "gpt2-124m": GPTConfig(
        vocab=50304, d_model=768, n_layers=12, n_heads=12, n_kv_heads=12, head_dim=64, d_ff=2048,
        context=1024,
    ),
}  # fmt: skip
