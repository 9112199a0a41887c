"""The memory footprint of training, computed before anything is trained.

Three things grow with the model, and ZeRO divides them: parameters, gradients, optimizer states.
One grows with the batch, and only smaller micro-batches and recomputing help: activations, what the
backward pass needs of the forward pass.

Papers: Rajbhandari et al. (2020), "ZeRO: Memory Optimizations Toward Training Trillion Parameter
Models"; Korthikanti et al. (2022), "Reducing Activation Recomputation in Large Transformer Models".
"""

from dataclasses import asdict, dataclass

from course_utils.models.gpt import GPTConfig


@dataclass(frozen=True)
class Widths:
    """Bytes per parameter: of itself, of its gradient, and of all that the optimizer keeps."""

    parameter: int
    gradient: int
    optimizer: int


# 16 bits to compute with. The optimizer has the same weights in fp32, and AdamW's two means.
MIXED = Widths(parameter=2, gradient=2, optimizer=4 + 4 + 4)
# Everything in fp32, as under autocast too, whose narrow copies last for one product each.
FULL = Widths(parameter=4, gradient=4, optimizer=4 + 4)


@dataclass(frozen=True)
class EngineMemory:
    """What a launch configuration of labs/accelerate means for the memory.

    Attributes:
        config: its name; None is a script that is started by itself.
        stage: of ZeRO.
        deepspeed: whether the engine is DeepSpeed's. It has a copy of the weights for the update
            in fp32, also of weights that are in fp32 already.
    """

    config: str | None
    stage: int
    deepspeed: bool

    def widths(self, precision: str) -> Widths:
        """Bytes per parameter with the labs' precision "no" or "bf16"."""
        if not self.deepspeed:
            return FULL
        return MIXED if precision == "bf16" else Widths(4, 4, 4 + 4 + 4)

    def predict(self, n_parameters: int, ranks: int, precision: str) -> dict[str, int]:
        """Bytes per rank, before anything is trained."""
        return bytes_per_rank(n_parameters, ranks, self.stage, **asdict(self.widths(precision)))


ENGINES = {
    "one process, two threads": EngineMemory(None, 0, deepspeed=False),
    "DDP": EngineMemory("multi_cpu", 0, deepspeed=False),
    "ZeRO-1": EngineMemory("zero1", 1, deepspeed=True),
    "ZeRO-2": EngineMemory("zero2", 2, deepspeed=True),
    "ZeRO-3": EngineMemory("zero3", 3, deepspeed=True),
}


def bytes_per_rank(
    n_parameters: int,
    ranks: int,
    stage: int,
    *,
    parameter: int = 2,
    gradient: int = 2,
    optimizer: int = 12,
) -> dict[str, int]:
    """What a rank keeps of a model during training with ZeRO, in bytes.

    Stage 0 is plain data parallelism: every rank keeps everything. Stage 1 divides the optimizer's
    states among the ranks, stage 2 the gradients as well, stage 3 also the parameters. What is
    divided goes in shards of equal size, so a rank keeps ⌈n_parameters / ranks⌉ values of it: the
    last shard is filled up.

    Args:
        n_parameters: of the model.
        ranks: that share the work.
        stage: 0, 1, 2 or 3.
        parameter, gradient, optimizer: bytes for each parameter. By default those of mixed
            precision with Adam: 16 bits to compute with, and 32 bits each for the optimizer's own
            weights, the mean and the mean square.

    Returns:
        Bytes by name, as whole numbers: "parameters", "gradients" and "optimizer".

    Raises:
        ValueError: when there is no such stage.
    """
    if stage not in (0, 1, 2, 3):
        raise ValueError(f"ZeRO has the stages 0 to 3; found {stage}.")
    shard = -(-n_parameters // ranks)
    return {
        "parameters": parameter * (shard if stage >= 3 else n_parameters),
        "gradients": gradient * (shard if stage >= 2 else n_parameters),
        "optimizer": optimizer * (shard if stage >= 1 else n_parameters),
    }


def plan(
    n_parameters: int, ranks: int, memory: int, row: int, rows: int, *, offload: bool = False
) -> tuple[int, int, int] | None:
    """How to train a model on these ranks: the ZeRO stage, micro-batch and accumulation.

    Mixed precision, with the bytes of `bytes_per_rank(n_parameters, ranks, stage)`. What is left of
    the memory is for activations, `row` bytes for each row of a micro-batch.

    - The lowest stage is best with which there is room for at least one row: the higher ones
      communicate more, or at more times.
    - With that stage, the largest micro-batch that fits is best. It must divide `rows`, so that
      the same number of equal micro-batches, the accumulation, makes the batch.

    Args:
        n_parameters: of the model.
        ranks: that share the work.
        memory: bytes that each of them has.
        row: bytes of activations that a row of the micro-batch needs.
        rows: of the global batch that one rank has to do in a step.
        offload: the optimizer's states are kept in the computer's main memory instead, and do not
            count. It is ZeRO's, so the stage is at least 1.

    Returns:
        (stage, micro-batch, accumulation), or None when not even stage 3 leaves room for a row.
    """
    for stage in range(1 if offload else 0, 4):
        kept = bytes_per_rank(n_parameters, ranks, stage)
        if offload:
            kept["optimizer"] = 0
        room = (memory - sum(kept.values())) // row
        sizes = [size for size in range(1, rows + 1) if rows % size == 0 and size <= room]
        if sizes:
            return stage, sizes[-1], rows // sizes[-1]
    return None


def traffic_per_step(
    n_parameters: int, ranks: int, stage: int, *, parameter: int = 2, gradient: int = 2
) -> int:
    """Bytes that a rank sends in a step of one micro-batch, over rings.

    Every reduce-scatter or all-gather of n values sends (ranks − 1)/ranks · n of them. Stages 0 to
    2 have one of each: the gradients' sum comes as shards, and the parameters (or, in stage 0, the
    gradients) go out to all. Stage 3 gathers the parameters twice, for the forward and for the
    backward pass. With accumulation, stage 2 reduces for every micro-batch, and stage 3 gathers for
    every one as well.
    """
    sent = n_parameters * (ranks - 1) // ranks
    if stage == 0:
        return 2 * sent * gradient
    return sent * (gradient + (2 if stage == 3 else 1) * parameter)


def activation_bytes(config: GPTConfig, rows: int, seq: int, *, recomputing: bool = False) -> int:
    """The activation memory of our GPT: what its backward pass needs, in float32.

    Per token, a block keeps

        attention    the stream, its normalized copy before and after the weight         3 d_model
                     queries: projected, normalized, rotated                             3 heads
                     keys: projected, normalized, rotated; values                        4 kv heads
                     what was gathered, and the same with the heads joined               2 heads
        feed-forward the stream and the two normalized copies                            3 d_model
                     gate, silu(gate), up, and their product                             4 d_ff

    where a head has head_dim values, and some single numbers (norms and softmax keep one for each
    vector and head). The last norm and the loss keep 3 d_model, and the loss has the
    gradient of the output matrix ready. Attention keeps no scores (they are computed again in
    blocks: FlashAttention), so nothing grows with the square of the sequence.

    Args:
        config: the model's shape.
        rows, seq: of a micro-batch.
        recomputing: blocks keep their input only, and are run again one by one.
    """
    per_block = (
        6 * config.d_model
        + config.head_dim * (5 * config.n_heads + 4 * config.n_kv_heads)
        + 4 * config.d_ff
        + 2
        + 2 * config.n_heads
        + config.n_kv_heads
    )
    if recomputing:
        blocks = config.n_layers * config.d_model + per_block - config.d_model
    else:
        blocks = config.n_layers * per_block
    per_token = blocks + 3 * config.d_model
    return 4 * (rows * seq * per_token + config.vocab * config.d_model)
