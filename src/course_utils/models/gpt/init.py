"""The weights that training starts from."""

import math

from torch import nn

INIT_GAIN = 0.5


def initialise(model: nn.Module, n_layers: int) -> None:
    """Give a model's weights their starting values, in place.

    - Every matrix, the embedding's table too, gets normal random numbers with mean 0 and standard
      deviation INIT_GAIN / √columns: half of what would make its outputs as large as its inputs.
      (A weight's shape is rows × columns: outputs × inputs, or tokens × features for the table.
      A stack of matrices, one axis more in front, counts as matrices; columns stay the last axis.)
      So the first logits are small, and the first loss is about ln(vocab): no opinion yet.
    - The matrices that write into the residual stream, whose names end in "attention.output.weight"
      or "mlp.down.weight", get a standard deviation smaller by √(2·n_layers). There are 2·n_layers
      of them, their updates add up, and the sum should not grow with the depth.
    - What is no matrix (the weights of the norms) stays as it is.

    Args:
        model: any module; its parameters' names decide.
        n_layers: the number of blocks.

    Paper: Radford et al. (2019), "Language Models are Unsupervised Multitask Learners". They fixed
    the deviation at 0.02, which is about the same at their width of 768; a narrow model that starts
    so small needs a long time to get going.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        std = INIT_GAIN / math.sqrt(parameter.shape[-1])
        if name.endswith(("attention.output.weight", "mlp.down.weight")):
            std = std / math.sqrt(2 * n_layers)
        nn.init.normal_(parameter, std=std)
