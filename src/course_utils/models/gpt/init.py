"""The weights that training starts from."""

import math

from torch import nn

INIT_STD = 0.02


def initialise(model: nn.Module, n_layers: int) -> None:
    """Give a model's weights their starting values, in place.

    - Every matrix, the embedding's table too, gets normal random numbers with mean 0 and standard
      deviation INIT_STD (0.02). So the first logits are almost equal, and the first loss is about
      ln(vocab): the model has no opinion yet.
    - The matrices that write into the residual stream, whose names end in "attention.output.weight"
      or "mlp.down.weight", get a standard deviation smaller by √(2·n_layers). There are 2·n_layers
      of them, their updates add up, and the sum should not grow with the depth.
    - What is no matrix (the weights of the norms) stays as it is.

    Args:
        model: any module; its parameters' names decide.
        n_layers: the number of blocks.

    Papers: Radford et al. (2019), "Language Models are Unsupervised Multitask Learners".
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        writes = name.endswith(("attention.output.weight", "mlp.down.weight"))
        shrink = math.sqrt(2 * n_layers) if writes else 1.0
        nn.init.normal_(parameter, std=INIT_STD / shrink)
