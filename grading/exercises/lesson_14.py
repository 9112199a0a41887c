"""Lesson 14, data parallel: broadcast, reduce, the two halves of the ring, gradient buckets."""

import math
from typing import Any

import torch
from torch import Tensor

from course_utils.exercises import Exercise, Mutant, assert_close, assert_equal
from course_utils.parallel.buckets import fill_buckets


def drawn(rng: torch.Generator, n: int, *shape: int) -> list[Tensor]:
    """A tensor for each of n ranks."""
    return [torch.randn(shape, generator=rng) for _ in range(n)]


def of_many_sizes(rng: torch.Generator, n: int, count: int) -> list[Tensor]:
    """Numbers whose sum is rounded in another way for another order of additions."""
    exponents = torch.randint(0, 6, (n, count), generator=rng)
    return list((torch.randn(n, count, generator=rng) * 2.0**exponents).bfloat16())


def number(rng: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=rng))


# --- Broadcast ---------------------------------------------------------------------------------


def from_rank_0(student: Any, rng: torch.Generator) -> None:
    """All ranks get rank 0's tensor"""
    for n in (2, 4):
        tensors = drawn(rng, n, 3)
        message = f"{n} ranks, from rank 0: the ranks' tensors are wrong"
        assert_equal(student(tensors), [tensors[0]] * n, message)


def from_any_rank(student: Any, rng: torch.Generator) -> None:
    """Any other rank can be the source"""
    for n, source in ((2, 1), (4, 1), (8, 5)):
        tensors = drawn(rng, n, 2)
        message = f"{n} ranks, from rank {source}: the ranks' tensors are wrong"
        assert_equal(student(tensors, source=source), [tensors[source]] * n, message)


def any_number_of_ranks(student: Any, rng: torch.Generator) -> None:
    """It works for any number of ranks, one included"""
    for n in (1, 3, 5, 6, 7):
        tensors, source = drawn(rng, n, 2, 2), number(rng, 0, n)
        message = f"{n} ranks, from rank {source}: the ranks' tensors are wrong"
        assert_equal(student(tensors, source=source), [tensors[source]] * n, message)


def few_rounds(student: Any, rng: torch.Generator) -> None:
    """No rank sends more than ⌈log₂ N⌉ messages, and each receives one; any dtype"""
    for n, dtype in ((8, torch.float64), (6, torch.int64)):
        tensors = [(9 * x).to(dtype) for x in drawn(rng, n, 3)]
        found, _, messages = student(tensors, traffic=True)
        assert_equal(list(found), [tensors[0]] * n, f"{n} ranks: the ranks' tensors are wrong")
        most, wanted = max(messages), math.ceil(math.log2(n))
        assert_equal(most, wanted, f"{n} ranks: the most messages that one rank sent")
        assert_equal(sum(messages), n - 1, f"{n} ranks: the messages of all ranks together")


BROADCAST = Exercise(
    id="collectives.broadcast",
    reference="course_utils.parallel.collectives:broadcast",
    title="From one to all, in few rounds",
    points=4,
    minutes=20,
    difficulty=2,
    checks=(from_rank_0, from_any_rank, any_number_of_ranks, few_rounds),
    mutants=(
        Mutant(
            replace=("place = (link.rank - source) % n", "place = link.rank"),
            says="You count places from rank 0, whoever the source is. Count them from the source: "
            "(rank − source) mod N.",
            why="In the drawing the source is 0.",
        ),
        Mutant(
            replace=("place = (link.rank - source) % n", "place = (source - link.rank) % n"),
            says="You count the places the wrong way round the circle: behind the source comes "
            "source + 1, so the place is (rank − source) mod N.",
            why="A distance seems to have no sign.",
        ),
        Mutant(
            replace=("if place < distance and place + distance < n:", "if place < distance:"),
            says="You always send, also when there is no place so far on. When N is not a power "
            "of two, the message wraps around to a rank that does not wait for it.",
            why="With 2, 4 or 8 ranks it makes no difference.",
        ),
        Mutant(
            replace=("elif distance <= place < 2 * distance:", "elif place < 2 * distance:"),
            says="A place that has the tensor already, and has nobody to send it to, receives once "
            "more in your version. Only the places from d to 2d − 1 receive in a round.",
            why="The else branch seems to be for all ranks that did not send.",
        ),
        Mutant(
            replace=(
                """    distance = 1
    while distance < n:
        if place < distance and place + distance < n:
            link.send(tensor, (link.rank + distance) % n)
        elif distance <= place < 2 * distance:
            tensor = link.recv((link.rank - distance) % n)
        distance *= 2
""",
                """    if place == 0:
        for other in range(1, n):
            link.send(tensor, (source + other) % n)
    else:
        tensor = link.recv(source)
""",
            ),
            says="All ranks have the tensor, but the source sends it to each of them: N − 1 "
            "messages through one network card. Let the ranks that have it send it on.",
            why="It is the shortest program that works.",
        ),
        Mutant(
            replace=(
                """    while distance < n:
        if place < distance and place + distance < n:
            link.send(tensor, (link.rank + distance) % n)
        elif distance <= place < 2 * distance:
            tensor = link.recv((link.rank - distance) % n)
        distance *= 2
""",
                """    if place > 0:
        tensor = link.recv((link.rank - distance) % n)
    if place + 1 < n:
        link.send(tensor, (link.rank + distance) % n)
""",
            ),
            says="You pass the tensor from neighbor to neighbor: that takes N − 1 rounds, one "
            "after the other. In each round, let every rank that has it send it on: ⌈log₂ N⌉ "
            "rounds.",
            why="Each rank sends only once, which looks cheap.",
        ),
    ),
    hints=(
        "Draw it for 8 ranks and source 0: who has the tensor before each round? Then write the "
        "round as two questions about this rank's place: do I send now? do I receive now?",
        "Loop with `distance = 1`, then `distance *= 2`, while distance < N. Below `distance`: "
        "send, if place + distance < N. From distance to 2·distance − 1: receive.",
        "The place d further on is the rank (link.rank + d) % N, whatever the source is.",
    ),
)

# --- Reduce ------------------------------------------------------------------------------------


def at_rank_0(student: Any, rng: torch.Generator) -> None:
    """Rank 0 gets the sum, the others None"""
    for n in (2, 4):
        tensors = drawn(rng, n, 3)
        found = student(tensors)
        assert_close(
            found[0], sum(tensors[1:], tensors[0]), f"{n} ranks: the sum at rank 0 is wrong"
        )
        assert_equal(list(found[1:]), [None] * (n - 1), f"{n} ranks: what the others return")


def at_any_rank(student: Any, rng: torch.Generator) -> None:
    """Any rank can be the destination"""
    for n, destination in ((2, 1), (4, 3), (8, 2)):
        tensors = drawn(rng, n, 2)
        expected: list[Tensor | None] = [None] * n
        expected[destination] = sum(tensors[1:], tensors[0])
        message = f"{n} ranks, at rank {destination}: what the ranks return is wrong"
        compare(student(tensors, destination=destination), expected, message)


def any_number_at_all(student: Any, rng: torch.Generator) -> None:
    """It works for any number of ranks, and leaves the summands as they are"""
    for n in (1, 3, 5, 6, 7):
        tensors, destination = drawn(rng, n, 2, 2), number(rng, 0, n)
        before = [x.clone() for x in tensors]
        expected: list[Tensor | None] = [None] * n
        expected[destination] = sum(before[1:], before[0])
        message = f"{n} ranks, at rank {destination}: what the ranks return is wrong"
        compare(student(tensors, destination=destination), expected, message)
        assert_equal(tensors, before, "You changed a tensor that you were given")


def in_few_rounds(student: Any, rng: torch.Generator) -> None:
    """Every rank but one sends once, and sums are made in pairs, then in pairs of pairs"""
    for n in (8, 6):
        tensors = [(9 * x).long() for x in drawn(rng, n, 3)]
        found, _, messages = student(tensors, traffic=True)
        assert_equal(found[0], sum(tensors[1:], tensors[0]), f"{n} ranks: the sum is wrong")
        message = f"{n} ranks: messages sent by each rank"
        assert_equal(list(messages), [0] + [1] * (n - 1), message)
    # Pairs, and then pairs of pairs, are what ⌈log₂ N⌉ rounds give.
    tensors = of_many_sizes(rng, 8, 16)
    (a, b, c, d), (e, f, g, h) = tensors[:4], tensors[4:]
    message = "Eight ranks, bfloat16, numbers of many sizes: the order of the additions is another"
    assert_equal(student(tensors)[0], ((a + b) + (c + d)) + ((e + f) + (g + h)), message)


def compare(found: Any, expected: list[Tensor | None], message: str) -> None:
    """Compares tensors, and None where None is expected."""
    found = list(found)
    for rank, (one, other) in enumerate(zip(found, expected, strict=True)):
        if other is None:
            assert_equal(one, None, f"{message} (rank {rank})")
        else:
            assert_close(one, other, f"{message} (rank {rank})")


REDUCE = Exercise(
    id="collectives.reduce",
    reference="course_utils.parallel.collectives:reduce",
    title="From all to one",
    points=4,
    minutes=15,
    difficulty=2,
    checks=(at_rank_0, at_any_rank, any_number_at_all, in_few_rounds),
    mutants=(
        Mutant(
            replace=("place = (link.rank - destination) % n", "place = link.rank"),
            says="You count places from rank 0, whatever the destination. Count them from the "
            "destination.",
            why="The drawing has the destination at 0.",
        ),
        Mutant(
            replace=("link.send(total, (", "link.send(tensor, ("),
            says="You send this rank's own summand, and what it has added up so far is lost. Send "
            "the sum.",
            why="In the first round they are the same.",
        ),
        Mutant(
            replace=(
                "        if place + distance < n:\n            total",
                "        if True:\n            total",
            ),
            says="You also receive where no rank sends: when N is not a power of two, the place d "
            "further on may not exist.",
            why="With 2, 4 or 8 ranks it makes no difference.",
        ),
        Mutant(
            replace=("total = total + link.recv", "total += link.recv"),
            says="You add in place, to the very tensor that you were given. Make a new one: "
            "`total = total + …`.",
            why="It is shorter, and saves memory.",
        ),
        Mutant(
            replace=("            return None\n", "            return total\n"),
            says="The ranks that have sent their sum return a partial sum. They must return None: "
            "a partial sum is of no use.",
            why="A number looks more useful than None.",
        ),
        Mutant(
            replace=("    return total\n", "    return total / n\n"),
            says="You return the mean. Reduce adds up; the caller divides to get a mean.",
            why="For gradients the mean is needed in the end.",
        ),
        Mutant(
            replace=(
                """    total, distance = tensor, 1
    while distance < n:
        if place % (2 * distance) == distance:
            link.send(total, (link.rank - distance) % n)
            return None
        if place + distance < n:
            total = total + link.recv((link.rank + distance) % n)
        distance *= 2
""",
                """    total = tensor
    if place > 0:
        link.send(total, destination)
        return None
    for other in range(1, n):
        total = total + link.recv((destination + other) % n)
""",
            ),
            says="The destination adds up everything itself, one after the other, in N − 1 rounds. "
            "Let pairs add first, then pairs of pairs.",
            why="The sum is right, and the program short.",
        ),
    ),
    hints=(
        "Draw it for 7 ranks. In a round with distance d, the places still in it are the multiples "
        "of d. Which of them send? Those for which place mod 2d is d.",
        "Keep `total`, beginning with your own tensor. Send it to (rank − d) % N and return "
        "None, or "
        "else, if place + d < N, add what comes from (rank + d) % N.",
    ),
)

# --- Reduce-scatter ------------------------------------------------------------------------------


def whole_chunks(tensors: list[Tensor]) -> list[Tensor]:
    return list(sum(tensors[1:], tensors[0]).flatten().tensor_split(len(tensors)))


def own_chunk(student: Any, rng: torch.Generator) -> None:
    """Rank r gets chunk r of the sum"""
    for n in (2, 3, 4):
        tensors = drawn(rng, n, 3 * n)
        message = f"{n} ranks, {3 * n} numbers each: the chunks are wrong"
        assert_close(list(student(tensors)), whole_chunks(tensors), message)


def uneven_chunks(student: Any, rng: torch.Generator) -> None:
    """Chunks may differ by one element, tensors have any shape, and nothing is changed"""
    for n, shape in ((3, (2, 4)), (4, (7,)), (5, (3,)), (1, (2, 2)), (2, ())):
        tensors = drawn(rng, n, *shape)
        before = [x.clone() for x in tensors]
        message = f"{n} ranks, tensors of shape {shape}: the chunks are wrong"
        assert_close(list(student(tensors)), whole_chunks(before), message)
        assert_equal(tensors, before, "You changed a tensor that you were given")


def its_share_only(student: Any, rng: torch.Generator) -> None:
    """A rank sends (N − 1)/N of the tensor, in N − 1 messages"""
    for n in (2, 4, 6):
        tensors = drawn(rng, n, 2, n)
        found, sent, messages = student(tensors, traffic=True)
        assert_close(list(found), whole_chunks(tensors), f"{n} ranks: the chunks are wrong")
        message = f"{n} ranks, {8 * n} bytes each: what each rank has sent, in bytes"
        assert_equal(list(sent), [8 * (n - 1)] * n, message)
        assert_equal(list(messages), [n - 1] * n, f"{n} ranks: messages sent by each rank")


def round_the_ring(student: Any, rng: torch.Generator) -> None:
    """Chunk r is added up round the ring, from rank r + 1 to rank r; any dtype"""
    n = 4
    whole = [(20 * x).long() for x in drawn(rng, n, 6)]
    assert_equal(list(student(whole)), whole_chunks(whole), "Whole numbers: the chunks are wrong")
    tensors = of_many_sizes(rng, n, 4 * n)
    chunks = [x.tensor_split(n) for x in tensors]
    expected = []
    for r in range(n):
        total = chunks[(r + 1) % n][r]
        for behind in range(2, n + 1):
            total = total + chunks[(r + behind) % n][r]
        expected.append(total)
    message = "bfloat16, numbers of many sizes: the order of the additions is another"
    assert_equal(list(student(tensors)), expected, message)


REDUCE_SCATTER = Exercise(
    id="collectives.reduce_scatter",
    reference="course_utils.parallel.collectives:reduce_scatter",
    title="Once round the ring: a chunk of the sum for each",
    points=5,
    minutes=30,
    difficulty=3,
    checks=(own_chunk, uneven_chunks, its_share_only, round_the_ring),
    mutants=(
        Mutant(
            replace=("for step in range(n - 1):", "for step in range(n):"),
            says="You take one step too many: after N − 1 steps every chunk is complete. The last "
            "step sends finished chunks, which are added twice.",
            why="N ranks seem to need N steps.",
        ),
        Mutant(
            replace=("for step in range(n - 1):", "for step in range(n - 2):"),
            says="You take one step too few: the last summand is missing. A chunk is sent N − 1 "
            "times.",
            why="The indices end with N − 2.",
        ),
        Mutant(
            replace=("chunks[(rank - 1 - step) % n], (rank + 1) % n",
                     "chunks[(rank - step) % n], (rank + 1) % n"),
            says="You send one chunk too late: in step s, rank r sends chunk r − 1 − s. (Other "
            "textbooks use your order; with it, rank r ends with chunk r + 1.)",
            why="In the first step, one's own chunk seems to be the natural one to send.",
        ),
        Mutant(
            replace=("chunks[arriving] = chunks[arriving] + link.recv",
                     "chunks[arriving] = link.recv"),
            says="You overwrite your own chunk with the received one, and your summand is lost. "
            "Add them.",
            why="That is what all-gather does.",
        ),
        Mutant(
            replace=("chunks[arriving] = chunks[arriving] + link.recv",
                     "chunks[arriving] += link.recv"),
            says="The chunks are views of the tensor that you were given, and `+=` changes it. "
            "Make a new one: `chunks[i] = chunks[i] + …`.",
            why="`tensor_split` looks as if it made copies.",
        ),
        Mutant(
            replace=("tensor.flatten().tensor_split(n)", "tensor.flatten().chunk(n)"),
            says="`chunk` makes the chunks as long as the first one, and the last too short, or "
            "makes fewer than N. `tensor_split` makes N that differ by one element at most.",
            why="It is called chunk, after all.",
        ),
        Mutant(
            replace=("    return chunks[rank]\n", "    return chunks[rank] / n\n"),
            says="You return the mean. A reduce-scatter adds up; the caller divides to get a mean.",
            why="For gradients the mean is needed in the end.",
        ),
        Mutant(
            replace=(
                """    for step in range(n - 1):
        link.send(chunks[(rank - 1 - step) % n], (rank + 1) % n)
        arriving = (rank - 2 - step) % n
        chunks[arriving] = chunks[arriving] + link.recv((rank - 1) % n)
""",
                """    for step in range(n - 1):
        link.send(chunks[(rank + 1 + step) % n], (rank + 1 + step) % n)
    for step in range(n - 1):
        chunks[rank] = chunks[rank] + link.recv((rank + 1 + step) % n)
""",
            ),
            says="You send every rank its chunk directly. The sum is right, and so are the bytes, "
            "but all N ranks send to all others at once. On the ring each has two neighbors, and "
            "the sums are made on the way.",
            why="It needs no plan of which rank has which chunk in which step.",
        ),
    ),
    hints=(
        "Take three ranks and write down, step by step, which chunk each rank sends, and what it "
        "holds of it by then. The chunk that arrives in a step is the one that is sent in the "
        "next.",
        "`chunks = list(tensor.flatten().tensor_split(n))`, then N − 1 times: send to (rank + 1) "
        "% n, "
        "receive from (rank − 1) % n and add. `%` makes −1 to N − 1.",
        "link.send(chunks[(rank − 1 − step) % n], (rank + 1) % n), then index i = (rank − 2 − "
        "step) "
        "% n: chunks[i] = chunks[i] + link.recv((rank − 1) % n). At the end chunks[rank].",
    ),
)  # fmt: skip

# --- All-gather --------------------------------------------------------------------------------


def joined(student: Any, rng: torch.Generator) -> None:
    """Every rank gets all chunks, in the order of the ranks"""
    for n in (2, 3, 4):
        chunks = drawn(rng, n, 2)
        message = f"{n} ranks: the ranks' tensors are wrong"
        assert_equal(list(student(chunks)), [torch.cat(chunks)] * n, message)


def of_any_length(student: Any, rng: torch.Generator) -> None:
    """Chunks may have different lengths, also 0, and there may be one rank"""
    for n in (1, 3, 5):
        chunks = [torch.randn(number(rng, 1, 6), generator=rng) for _ in range(n)]
        chunks[n // 2] = chunks[n // 2][: n % 3]
        lengths = [len(chunk) for chunk in chunks]
        message = f"Chunks of {lengths} elements: the ranks' tensors are wrong"
        assert_equal(list(student(chunks)), [torch.cat(chunks)] * n, message)


def each_chunk_once(student: Any, rng: torch.Generator) -> None:
    """A rank sends N − 1 messages, each of one chunk"""
    for n in (2, 4, 6):
        chunks = drawn(rng, n, 3)
        found, sent, messages = student(chunks, traffic=True)
        assert_equal(list(found), [torch.cat(chunks)] * n, f"{n} ranks: the result is wrong")
        message = f"{n} ranks, chunks of 12 bytes: what each rank has sent, in bytes"
        assert_equal(list(sent), [12 * (n - 1)] * n, message)
        assert_equal(list(messages), [n - 1] * n, f"{n} ranks: messages sent by each rank")


def only_neighbours(student: Any, rng: torch.Generator) -> None:
    """Chunks go round the ring: what a rank sends are the chunks that came from its left"""
    n = 5
    chunks = [torch.randint(99, (length,), generator=rng) for length in (1, 2, 4, 8, 16)]
    found, sent, _ = student(chunks, traffic=True)
    assert_equal(list(found), [torch.cat(chunks)] * n, "Whole numbers: the result is wrong")
    # Rank r hands on all chunks but its right neighbor's, which has it.
    expected = [8 * (31 - len(chunks[(rank + 1) % n])) for rank in range(n)]
    message = "Chunks of 8, 16, 32, 64 and 128 bytes: what each rank has sent, in bytes"
    assert_equal(list(sent), expected, message)


ALL_GATHER = Exercise(
    id="collectives.all_gather",
    reference="course_utils.parallel.collectives:all_gather",
    title="Once more round: everybody gets all chunks",
    points=4,
    minutes=15,
    difficulty=2,
    checks=(joined, of_any_length, each_chunk_once, only_neighbours),
    mutants=(
        Mutant(
            replace=("link.send(chunks[(rank - step) % n], (", "link.send(chunk, ("),
            says="You send your own chunk again and again. Your neighbor has it after the first "
            "step: pass on what has arrived.",
            why="“Every rank sends its chunk” describes the first step only.",
        ),
        Mutant(
            replace=("chunks[(rank - step - 1) % n] = link.recv",
                     "chunks[(rank + step + 1) % n] = link.recv"),
            says="You put the received chunks at the wrong indices: from the left come first the "
            "chunk of rank r − 1, then that of r − 2.",
            why="Step by step, up or down: it is easy to mix up.",
        ),
        Mutant(
            replace=("for step in range(n - 1):", "for step in range(n):"),
            says="You take one step too many: after N − 1 steps all chunks are there, and yours "
            "comes back to you.",
            why="N ranks seem to need N steps.",
        ),
        Mutant(
            replace=("    return torch.cat(chunks)\n", "    return torch.stack(chunks)\n"),
            says="You stack the chunks along a new axis. Concatenate them: `torch.cat`. (Chunks "
            "of different lengths cannot be stacked at all.)",
            why="The two are often mixed up.",
        ),
        Mutant(
            replace=("    return torch.cat(chunks)\n",
                     "    return torch.cat(chunks[rank:] + chunks[:rank])\n"),
            says="Every rank begins with its own chunk in your version. The order is that of the "
            "ranks: chunk 0 first, on all of them.",
            why="A rank holds its own chunk first.",
        ),
        Mutant(
            replace=("    chunks = [chunk] * n\n",
                     "    chunks = [torch.zeros_like(chunk)] * n\n"),
            says="Your own chunk is not in the list of chunks from which you send, so you send "
            "zeros. Put it at index `rank`.",
            why="The list is created empty, and filling in one's own chunk is easily forgotten.",
        ),
        Mutant(
            replace=(
                """    for step in range(n - 1):
        link.send(chunks[(rank - step) % n], (rank + 1) % n)
        chunks[(rank - step - 1) % n] = link.recv((rank - 1) % n)
""",
                """    for step in range(n - 1):
        link.send(chunk, (rank + 1 + step) % n)
    for step in range(n - 1):
        chunks[(rank - 1 - step) % n] = link.recv((rank - 1 - step) % n)
""",
            ),
            says="You send your chunk to everybody directly. That is N·(N−1) connections; on a "
            "ring there are N, and every rank sends to one neighbor only.",
            why="It needs no plan of which rank has which chunk in which step.",
        ),
    ),
    hints=(
        "Begin with a list of N chunks, your own chunk at index `rank`. In step 0 you send chunk "
        "`rank`; which one comes from the left?",
        "In step s rank r sends chunk r − s and receives chunk r − s − 1 (mod N).",
    ),
)  # fmt: skip

# --- Buckets -----------------------------------------------------------------------------------


def sizes_of(rng: torch.Generator, count: int) -> list[int]:
    return (4 * torch.randint(1, 50, (count,), generator=rng)).tolist()


def last_first(student: Any, rng: torch.Generator) -> None:
    """Gradients go in from the last to the first, and a bucket is closed when it is full"""
    sizes = [40] * 9
    message = "Nine gradients of 40 bytes, buckets of 120: the buckets are wrong"
    assert_equal(student(sizes, 120, 120), [[8, 7, 6], [5, 4, 3], [2, 1, 0]], message)
    sizes = sizes_of(rng, 14)
    message = f"Gradients of {sizes} bytes, buckets of 200: the buckets are wrong"
    assert_equal(student(sizes, 200, 200), fill_buckets(sizes, 200, 200), message)


def small_first_bucket(student: Any, rng: torch.Generator) -> None:
    """The first bucket has its own capacity"""
    for first in (8, 90):
        sizes = sizes_of(rng, 20)
        message = f"Gradients of {sizes} bytes, buckets of {first} and then 300: they are wrong"
        assert_equal(student(sizes, 300, first), fill_buckets(sizes, 300, first), message)


def what_is_left(student: Any, rng: torch.Generator) -> None:
    """What is left over at the end is a bucket too, and there is none without gradients"""
    sizes = [30, 20, 100, 100]
    message = f"Gradients of {sizes} bytes, buckets of 100: the buckets are wrong"
    assert_equal(student(sizes, 100, 100), [[3], [2], [1, 0]], message)
    sizes = sizes_of(rng, 6)
    message = f"Gradients of {sizes} bytes, buckets of a million: the buckets are wrong"
    assert_equal(student(sizes, 10**6, 10**6), [[5, 4, 3, 2, 1, 0]], message)
    assert_equal(student([], 100, 100), [], "No gradients: there is no bucket")


def full_to_the_byte(student: Any, rng: torch.Generator) -> None:
    """A bucket at exactly its capacity is full, and a gradient may exceed a bucket's capacity"""
    half = 8 * number(rng, 2, 9)
    sizes = [half, half, 5 * half, half, 2 * half, half, half]
    expected = fill_buckets(sizes, 2 * half, half)
    message = f"Gradients of {sizes} bytes, buckets of {half} and then {2 * half}: they are wrong"
    assert_equal(student(sizes, 2 * half, half), expected, message)


BUCKETS = Exercise(
    id="parallel.buckets",
    reference="course_utils.parallel.buckets:fill_buckets",
    title="Gradients in parcels",
    points=4,
    minutes=15,
    difficulty=2,
    checks=(last_first, small_first_bucket, what_is_left, full_to_the_byte),
    mutants=(
        Mutant(
            replace=("in reversed(range(len(sizes))):", "in range(len(sizes)):"),
            says="You begin with the first layers. Their gradients are ready last: every bucket "
            "would wait for the end of the backward pass. Take them from the last to the first.",
            why="`model.parameters()` has them in this order.",
        ),
        Mutant(
            replace=("if filled >= (capacity if buckets else first_capacity):",
                     "if filled >= capacity:"),
            says="All your buckets have the same capacity. The first is closed at "
            "`first_capacity`, so that communication starts early.",
            why="It is one case less.",
        ),
        Mutant(
            replace=("if filled >= (capacity if buckets else first_capacity):",
                     "if filled > (capacity if buckets else first_capacity):"),
            says="A bucket that reaches its capacity exactly stays open in your version. It is "
            "closed as soon as it **reaches** its capacity: `>=`.",
            why="It is easily off by one.",
        ),
        Mutant(
            replace=("            bucket, filled = [], 0\n", "            bucket = []\n"),
            says="After the first bucket, every gradient gets its own bucket: you do not reset "
            "the count of bytes to 0.",
            why="The new list is created, and resetting the count is forgotten.",
        ),
        Mutant(
            replace=("    if bucket:\n        buckets.append(bucket)\n", ""),
            says="What is in the open bucket at the end is lost, so the first layers' gradients "
            "are "
            "never sent.",
            why="Everything else happens in the loop.",
        ),
        Mutant(
            replace=(
                "    if bucket:\n        buckets.append(bucket)\n",
                "    buckets.append(bucket)\n",
            ),
            says="When nothing is left over, or there are no gradients, you add an empty bucket at "
            "the end.",
            why="Usually something is left over.",
        ),
        Mutant(
            replace=(
                """        bucket.append(index)
        filled += sizes[index]
        if filled >= (capacity if buckets else first_capacity):
            buckets.append(bucket)
            bucket, filled = [], 0
""",
                """        limit = capacity if buckets else first_capacity
        if bucket and filled + sizes[index] > limit:
            buckets.append(bucket)
            bucket, filled = [], 0
        bucket.append(index)
        filled += sizes[index]
""",
            ),
            says="You close a bucket before it gets too full. Here (and in PyTorch) the gradient "
            "with which it reaches its capacity is still in it: then it can be sent at once, and "
            "need not wait for the next gradient.",
            why="Suitcases are packed like that.",
        ),
    ),
    hints=(
        "Go backwards, put each index into the open bucket, add up the bytes; when they reach the "
        "capacity, close the bucket and begin a new one with 0 bytes.",
        "Which capacity? `first_capacity` as long as no bucket is closed yet, `capacity` after "
        "that. And at the end, do not forget the bucket that is still open.",
    ),
)  # fmt: skip

EXERCISES = (BROADCAST, REDUCE, REDUCE_SCATTER, ALL_GATHER, BUCKETS)
