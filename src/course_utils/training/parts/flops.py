"""FLOPs of training, computed from the model's shape before anything runs."""

from course_utils.models.gpt.config import GPTConfig


def training_flops_per_token(config: GPTConfig, context: int) -> int:
    """Floating-point operations to train on one token of rows of `context` tokens.

    Only matrix products count; everything else together is a few per cent.

    - A matrix of n × m weights costs 2·n·m for a token: a multiplication and an addition for each
      weight. There are, in each block, the query and output matrices (d_model by n_heads·head_dim),
      key and value (d_model by n_kv_heads·head_dim), and SwiGLU's three (d_model by d_ff); and once
      the output layer (d_model by vocab). The embedding is a look-up and costs nothing.
    - Attention costs, for each block and query head, 2·context·head_dim to compare the token with
      `context` keys, and as much to add up their values. (That is how it is counted by convention:
      as if every token saw the whole row, though a causal one sees half of it on average.)
    - The backward pass costs twice the forward pass: for each product, the gradients of both
      factors.

    Returns:
        A whole number.

    Papers: Kaplan et al. (2020), "Scaling Laws for Neural Language Models"; Chowdhery et al.
    (2022), "PaLM", appendix B.
    """
    heads = config.n_heads + config.n_kv_heads
    block = 2 * config.d_model * config.head_dim * heads + 3 * config.d_model * config.d_ff
    weights = config.n_layers * block + config.vocab * config.d_model
    attention = config.n_layers * config.n_heads * 2 * context * config.head_dim
    return 3 * 2 * (weights + attention)
