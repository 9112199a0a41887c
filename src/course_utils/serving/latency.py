"""What waiting is like for nearly everybody."""

import math
from collections.abc import Sequence


def percentile(seconds: Sequence[float], percent: float) -> float:
    """The time within which `percent` of the requests were served: a time that did occur.

    The nearest-rank definition: of n times in order, the one of rank ⌈percent / 100 · n⌉.

    Args:
        seconds: at least one, in any order.
        percent: above 0, at most 100.
    """
    return sorted(seconds)[max(math.ceil(percent / 100 * len(seconds)) - 1, 0)]
