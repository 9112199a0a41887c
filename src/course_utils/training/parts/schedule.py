"""Learning-rate schedules, as a multiplier of the peak learning rate.

  multiplier
    1 ┤      ╭───╮
      │    ╱      ╲
      │  ╱          ╲
floor ┤╱              ╲_________
      └──────┬─────────┬───────── step
           warmup    total
"""

import math


def warmup_cosine(step: int, warmup: int, total: int, floor: float = 0.0) -> float:
    """The factor for the peak learning rate at update `step`: linear warm-up, then half a cosine.

    - Warm-up, `step < warmup`: the line through 0 at `step = -1` and 1 at `step = warmup`. So the
      first update (`step = 0`) already moves, by `1 / (warmup + 1)`.
    - Then half a cosine, from exactly 1 at `step = warmup` to exactly `floor` at `step = total`:
      `floor + (1 - floor) · (1 + cos(π · progress)) / 2`, where `progress` runs from 0 to 1.
    - From `total` on it stays at `floor`.

    Args:
        step: updates made so far; a run of `total` updates asks for 0, 1, …, total - 1.
        warmup: length of the warm-up in updates; 0 means none.
        total: length of the run in updates, the warm-up included.
        floor: where the cosine ends, as a share of the peak (0 to 1).

    Returns:
        A Python float between 0 and 1.

    Paper: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017),
    the cosine without restarts; warm-up as in Goyal et al., "Accurate, Large Minibatch SGD" (2017).
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    # A run that is all warm-up has no room for a cosine; max() keeps it from dividing by zero.
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
