"""Whose tokens the next step computes: continuous batching.

A batch that starts together and ends together waits for its longest answer. Here the batch is made
anew for every step: who is finished has left, who waited has joined.

Papers: Yu et al. (2022), "Orca: A Distributed Serving System for Transformer-Based Generative
Models" (batches made anew for every step); Agrawal et al. (2024), "Taming Throughput-Latency
Tradeoff in LLM Inference with Sarathi-Serve" (a budget, and prompts read in pieces).
"""

from collections.abc import Sequence


def plan_step(
    left: Sequence[int], waiting: Sequence[int], n_slots: int, budget: int
) -> tuple[int, list[int]]:
    """How many requests join, and how many prompt tokens every request reads in the next step.

    1. Those who wait join in their order, as long as a slot is free.
    2. A request that has read its prompt writes: it reads 0, and its one new token counts against
       the budget. What is left of the budget is for reading.
    3. The others share it fairly. Go through them from the one with the least left to read to the
       one with the most (those who came earlier first where it is the same); each gets the smaller
       of what it has left and its share: the rest of the budget divided by the number of requests
       that have not got theirs yet (itself included), rounded up. What a short prompt does not need
       so goes to the longer ones, and no long prompt holds up a short one.

    Args:
        left: of every running request, the prompt tokens it has not read yet; 0 for one that
            writes.
        waiting: the lengths of the prompts that wait, the first to come first; each at least 1.
        n_slots: requests that may run at once; len(left) of them do.
        budget: tokens that a step computes at most; more than n_slots.

    Returns:
        (joining, reads): how many of `waiting` join, and for every running request, then for every
        joining one, the prompt tokens it reads in this step.
    """
    joining = min(len(waiting), n_slots - len(left))
    left = [*left, *waiting[:joining]]
    budget -= left.count(0)
    # Python's sort keeps the order of equals, so those who came first stay first.
    reading = sorted((row for row, n in enumerate(left) if n), key=lambda row: left[row])
    reads = [0] * len(left)
    for done, row in enumerate(reading):
        share = -(-budget // (len(reading) - done))
        reads[row] = min(left[row], share)
        budget -= reads[row]
    return joining, reads
