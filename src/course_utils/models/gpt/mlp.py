"""The feed-forward network of a block."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class SwiGLU(nn.Module):
    """Two projections up, one gating the other, and one down.

        down( silu(gate(x)) · up(x) )          silu(z) = z · sigmoid(z), element by element

    Paper: Shazeer (2020), "GLU Variants Improve Transformer".
    """

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=False)
        self.up = nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Each token on its own; nothing moves between positions here."""
        return self.down(F.silu(self.gate(x)) * self.up(x))
