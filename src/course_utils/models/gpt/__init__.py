"""A small language model in the shape of Qwen3, one concern to a file.

tokens ─► embedding ─► ┌ Block × n_layers ───────────────────────────┐ ─► RMSNorm ─► logits
                       │ x ─ RMSNorm ─ GroupedQueryAttention ─(+)─►   │
                       │ x ─ RMSNorm ─ SwiGLU (or MoE) ───────(+)─►   │
                       └──────────────────────────────────────────────┘
"""

from course_utils.models.gpt.attention import GroupedQueryAttention, attend, causal_mask
from course_utils.models.gpt.cache import KVCache
from course_utils.models.gpt.config import PRESETS, GPTConfig, YaRN
from course_utils.models.gpt.loss import IGNORED, next_token_loss
from course_utils.models.gpt.mlp import SwiGLU
from course_utils.models.gpt.model import GPT, Block
from course_utils.models.gpt.moe import MoE
from course_utils.models.gpt.norm import RMSNorm
from course_utils.models.gpt.rope import rope_frequencies, rotate, rotation_tables

__all__ = [
    "GPT",
    "IGNORED",
    "PRESETS",
    "Block",
    "GPTConfig",
    "GroupedQueryAttention",
    "KVCache",
    "MoE",
    "RMSNorm",
    "SwiGLU",
    "YaRN",
    "attend",
    "causal_mask",
    "next_token_loss",
    "rope_frequencies",
    "rotate",
    "rotation_tables",
]
