"""What a training on rented machines costs, computed before it is started.

    FLOPs = FLOPs per token × tokens          hours = FLOPs / (MFU × peak of all GPUs)
    dollars = hours × GPUs × price            and more hours, when machines are taken away

All times are hours; all prices are dollars per GPU and hour, as price lists say them.
"""

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Offer:
    """A machine that can be rented.

    Args:
        name: for tables.
        gpus: how many it has.
        dollars_per_gpu_hour: its price; the machine costs `gpus` times as much.
        peak_flops: arithmetic operations in a second of one of its GPUs, in the number format that
            is trained in (dense, not "with sparsity").
        hours_between: mean time between two interruptions; infinite for a machine that is yours
            until you give it back.
    """

    name: str
    gpus: int
    dollars_per_gpu_hour: float
    peak_flops: float
    hours_between: float = math.inf


def training_bill(
    flops_per_token: float, tokens: float, offer: Offer, mfu: float, setup_hours: float = 0.25
) -> tuple[float, float]:
    """How long a training takes on a machine that is not interrupted, and what it costs.

    The training needs `flops_per_token` · `tokens` operations. The machine does the share `mfu` of
    what all its GPUs could do at their peak. Before it trains, it is set up, and that is paid for,
    too: from the moment the machine starts.

    Args:
        flops_per_token: forward and backward, as `training_flops_per_token` counts them.
        tokens: to train on, over all epochs.
        offer: the machine. Mind the units: its rate is per GPU and second, its price per GPU and
            hour.
        mfu: model FLOPs utilization, 0 to 1.
        setup_hours: from its start to the first step.

    Returns:
        (hours, dollars): of the whole rental, setting up included.
    """
    seconds = flops_per_token * tokens / (mfu * offer.gpus * offer.peak_flops)
    hours = setup_hours + seconds / 3600
    return hours, hours * offer.gpus * offer.dollars_per_gpu_hour


def expected_hours(
    work: float, interval: float, save: float, restart: float, between: float
) -> float:
    """The mean time that `work` hours of training take, when machines are taken away.

    Training is done in pieces: `interval` hours of work, then a checkpoint that takes `save` hours.
    An interruption throws away the piece that it falls into, unsaved work and half a checkpoint
    alike; `restart` hours later the piece begins again, from the last checkpoint, and may be
    interrupted again, as may the restart. Interruptions come at random, on average every `between`
    hours, whenever the last one was. Such a piece of length t takes on average

        between · e^(restart / between) · (e^(t / between) − 1)     hours.

    Short pieces must not lose digits: `math.expm1(x)` is e^x − 1.

    Args:
        work: hours of training proper.
        interval: hours of work between two checkpoints; there are work / interval pieces, which
            need not be a whole number.
        save, restart: hours each.
        between: mean hours between interruptions; `math.inf` when there are none, and then each
            piece takes just as long as it is.

    Returns:
        Hours from the beginning to the end, the last checkpoint included.

    Paper: Daly (2006), "A higher order estimate of the optimum checkpoint interval for restart
    dumps", equation for the total wall-clock time.
    """
    pieces, piece = work / interval, interval + save
    if math.isinf(between):
        return pieces * piece
    return pieces * between * math.exp(restart / between) * math.expm1(piece / between)


def young_interval(save: float, between: float) -> float:
    """The interval between checkpoints at which least is lost, nearly.

    Saving costs save / interval of the time; an interruption throws away half an interval on
    average, so that costs interval / (2 · between). The sum is least where both are equal:

        √(2 · save · between)

    It is good while `save` is much shorter than `between`.

    Paper: Young (1974), "A first order approximation to the optimum checkpoint interval".
    """
    return math.sqrt(2 * save * between)


def simulated_hours(
    work: float,
    interval: float,
    save: float,
    restart: float,
    between: float,
    dice: random.Random,
) -> float:
    """One training as `expected_hours` describes it, with interruptions drawn at random."""
    clock = done = 0.0
    interrupted_at = dice.expovariate(1 / between)
    while done < work - 1e-9:
        end = clock + interval + save
        if end <= interrupted_at:
            clock, done = end, done + interval
            continue
        clock = interrupted_at
        while True:  # until a machine lives long enough to be ready
            interrupted_at = clock + dice.expovariate(1 / between)
            if clock + restart <= interrupted_at:
                clock += restart
                break
            clock = interrupted_at
    return clock


def spot_bill(
    hours: float, offer: Offer, save: float, restart: float
) -> tuple[float, float, float]:
    """What `hours` of training become on a machine that may be taken away, saved at the best times.

    Returns:
        (hours, dollars, interval): in all, and between two checkpoints.
    """
    if math.isinf(offer.hours_between):
        return hours, hours * offer.gpus * offer.dollars_per_gpu_hour, hours
    interval = min(young_interval(save, offer.hours_between), hours)
    whole = expected_hours(hours, interval, save, restart, offer.hours_between)
    return whole, whole * offer.gpus * offer.dollars_per_gpu_hour, interval
