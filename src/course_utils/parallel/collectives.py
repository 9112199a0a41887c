"""Collectives: what all ranks do together, made of send and receive.

    broadcast        one rank's tensor, to all
    reduce           the sum of all ranks' tensors, at one rank
    reduce_scatter   the sum, each rank a chunk of it
    all_gather       each rank's chunk, to all
    all_reduce       the sum, to all: the last two, one after the other

Each of them can be called on one rank, `broadcast(link, tensor)`, or for all ranks at once in this
process, `broadcast([a, b, c])`: see `simulate.collective`.

Over gloo and NCCL the same are `torch.distributed.broadcast`, `all_reduce` and so on.

Papers: Thakur, Rabenseifner and Gropp (2005), "Optimization of Collective Communication Operations
in MPICH"; Patarasuk and Yuan (2009), "Bandwidth Optimal All-reduce Algorithms for Clusters of
Workstations".
"""

import torch
from jaxtyping import Shaped
from torch import Tensor

from course_utils.parallel.link import Link
from course_utils.parallel.simulate import collective


@collective
def broadcast(link: Link, tensor: Shaped[Tensor, "*shape"], source: int = 0) -> Tensor:
    """Give every rank the source's tensor, in ⌈log₂ N⌉ rounds for N ranks.

    Let a rank's *place* be how far it stands behind the source, in a circle: (rank − source) mod N.
    So the source has place 0. In the rounds with distance d = 1, 2, 4, … (as long as d < N), every
    place below d has the tensor, and sends it to the place d further on, if there is one:

        d = 1    0 ─► 1
        d = 2    0 ─► 2    1 ─► 3
        d = 4    0 ─► 4    1 ─► 5    2 ─► 6    3 ─► 7

    Every rank but the source receives one message, and no more than ⌈log₂ N⌉ are sent by any.

    Args:
        link: this rank's connection; `link.rank`, `link.world_size`, `link.send(tensor, to)`,
            `link.recv(source)`.
        tensor: the source's is what all will have; what the others give does not matter.
            It is left as it is.
        source: the rank that knows.

    Returns:
        The source's tensor, on every rank.
    """
    n = link.world_size
    place = (link.rank - source) % n
    distance = 1
    while distance < n:
        if place < distance and place + distance < n:
            link.send(tensor, (link.rank + distance) % n)
        elif distance <= place < 2 * distance:
            tensor = link.recv((link.rank - distance) % n)
        distance *= 2
    return tensor


@collective
def reduce(
    link: Link, tensor: Shaped[Tensor, "*shape"], destination: int = 0
) -> Shaped[Tensor, "*shape"] | None:
    """Add up all ranks' tensors at the destination, in ⌈log₂ N⌉ rounds: pairs, then pairs of pairs.

    Places are counted from the destination, (rank − destination) mod N. In the rounds with distance
    d = 1, 2, 4, … (as long as d < N), the places that are still in it are the multiples of d. Of
    those, the odd multiples send their sum so far to the place d before them, and are done. The
    even ones add what comes from the place d behind them, if there is one:

        d = 1    0 ◄─ 1    2 ◄─ 3    4 ◄─ 5    6
        d = 2    0 ◄─ 2              4 ◄─ 6
        d = 4    0 ◄─ 4

    Args:
        link: this rank's connection.
        tensor: this rank's summand, of the same shape and dtype everywhere. It is left as it is.
        destination: the rank that gets the sum.

    Returns:
        The sum at the destination, None on all other ranks.
    """
    n = link.world_size
    place = (link.rank - destination) % n
    total, distance = tensor, 1
    while distance < n:
        if place % (2 * distance) == distance:
            link.send(total, (link.rank - distance) % n)
            return None
        if place + distance < n:
            total = total + link.recv((link.rank + distance) % n)
        distance *= 2
    return total


@collective
def reduce_scatter(link: Link, tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "chunk"]:
    """Add up all ranks' tensors so that rank r ends with chunk r of the sum: once round a ring.

    `tensor.flatten().tensor_split(N)` are a rank's N chunks. (They differ by one element at most
    when N does not divide the number of elements.) Rank r always sends to r + 1 and receives from
    r − 1, in a circle. In step s = 0 … N−2 it

    1. sends chunk r − 1 − s (mod N), with what it has added to it so far,
    2. receives chunk r − 2 − s (mod N) from its left neighbor, and adds its own to it.

    The chunk that arrives is the next to be sent. The last one to arrive is r, now complete.

    Args:
        link: this rank's connection.
        tensor: this rank's summand, of the same shape and dtype everywhere. It is left as it is.

    Returns:
        Chunk r of the sum, flat. Each rank has sent (N−1)/N of the tensor, to one neighbor.
    """
    n, rank = link.world_size, link.rank
    chunks = list(tensor.flatten().tensor_split(n))
    for step in range(n - 1):
        link.send(chunks[(rank - 1 - step) % n], (rank + 1) % n)
        arriving = (rank - 2 - step) % n
        chunks[arriving] = chunks[arriving] + link.recv((rank - 1) % n)
    return chunks[rank]


@collective
def all_gather(link: Link, chunk: Shaped[Tensor, "chunk"]) -> Shaped[Tensor, "total"]:
    """Give every rank the chunks of all, joined in the order of the ranks: once round a ring.

    Rank r always sends to r + 1 and receives from r − 1, in a circle. It begins by sending its own
    chunk; from then on it hands on the chunk that has just arrived. After N − 1 steps every chunk
    has been everywhere.

    Args:
        link: this rank's connection.
        chunk: this rank's, flat. Its length may be different on every rank, also 0; the dtype is
            the same.

    Returns:
        Chunk 0, chunk 1, … chunk N−1, joined.
    """
    n, rank = link.world_size, link.rank
    chunks = [chunk] * n
    for step in range(n - 1):
        link.send(chunks[(rank - step) % n], (rank + 1) % n)
        chunks[(rank - step - 1) % n] = link.recv((rank - 1) % n)
    return torch.cat(chunks)


@collective
def all_reduce(link: Link, tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The sum of all ranks' tensors, on every rank: twice round a ring.

    Every rank sends 2(N−1)/N of the tensor, however many ranks there are, and always to the same
    neighbor. No rank adds more than its share. All get the same bits, because every chunk is
    added up at one place.
    """
    return all_gather(link, reduce_scatter(link, tensor)).view(tensor.shape)
