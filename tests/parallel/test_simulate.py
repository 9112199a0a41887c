"""Ranks as threads: the same every time, errors and deadlocks at once, and no thread left over."""

import threading

import pytest
import torch

from course_utils.base.errors import CourseError
from course_utils.exercises.timelimit import TimeUp, time_limit
from course_utils.parallel.link import LinkError
from course_utils.parallel.simulate import collective, simulate


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = threading.active_count()
    yield
    for thread in threading.enumerate()[before:]:
        thread.join(10)
    assert threading.active_count() == before


def pass_on(link, x):
    link.send(x, (link.rank + 1) % link.world_size)
    return link.recv((link.rank - 1) % link.world_size)


def test_messages_arrive_in_order_and_results_by_rank():
    def program(link, count):
        if link.rank == 0:
            for i in range(count):
                link.send(torch.tensor(i), 1)
            return "sent"
        return [link.recv(0).item() for _ in range(count)]

    assert simulate(program, [5, 5]) == ["sent", [0, 1, 2, 3, 4]]


def test_a_message_is_a_copy():
    def program(link):
        x = torch.zeros(3)
        if link.rank == 0:
            link.send(x, 1)
            x += 1
            return x
        return link.recv(0)

    sent, received = simulate(lambda link, _: program(link), [0, 0])
    assert sent.tolist() == [1, 1, 1] and received.tolist() == [0, 0, 0]


def test_random_numbers_do_not_hang_on_the_machine():
    def program(link, x):
        x = pass_on(link, x + torch.rand(1))
        return pass_on(link, x + torch.rand(1))

    found = []
    for _ in range(10):
        torch.manual_seed(0)
        found.append(torch.cat(simulate(program, list(torch.zeros(5, 1)))))
    assert all(torch.equal(found[0], other) for other in found)


def test_a_deadlock_says_who_waits_for_whom():
    def program(link, _):
        return link.recv((link.rank + 1) % 3)

    with pytest.raises(LinkError, match=r"rank 0 waits for rank 1, .*rank 2 waits for rank 0"):
        simulate(program, [0] * 3)


def test_waiting_for_somebody_who_has_finished_is_a_deadlock():
    with pytest.raises(LinkError, match="rank 1 waits for rank 0"):
        simulate(lambda link, _: link.recv(0) if link.rank else None, [0, 0])


def test_a_message_that_nobody_receives_is_an_error():
    with pytest.raises(LinkError, match=r"Rank 0 sent 2 message\(s\) to rank 1"):
        simulate(
            lambda link, x: [link.send(x, 1) for _ in range(2)] if link.rank == 0 else None,
            list(torch.zeros(2)),
        )


@pytest.mark.parametrize("other, said", [(1, "itself"), (2, "ranks 0 to 1"), (-1, "rank -1")])
def test_there_must_be_such_a_rank(other, said):
    with pytest.raises(LinkError, match=said):
        simulate(
            lambda link, x: link.send(x, other) if link.rank == 1 else None, [torch.ones(1)] * 2
        )
    with pytest.raises(LinkError, match=said):
        simulate(lambda link, x: link.recv(other) if link.rank == 1 else None, [0, 0])


def test_only_tensors_travel():
    with pytest.raises(LinkError, match="Only tensors"):
        simulate(lambda link, x: link.send(x, 1), [0.5, 0.5])


def test_what_a_rank_raises_comes_out_and_the_others_stop():
    def program(link, _):
        if link.rank == 2:
            raise ZeroDivisionError("here")
        link.recv(2)

    with pytest.raises(ZeroDivisionError, match="here") as caught:
        simulate(program, [0] * 4)
    assert "program" in {frame.name for frame in caught.traceback}


def test_a_time_limit_ends_a_rank_that_loops_and_those_that_wait_for_it():
    def program(link, _):
        while link.rank == 0:
            pass
        link.recv(0)

    with pytest.raises(TimeUp), time_limit(cpu=0.2, wall=2):
        simulate(program, [0] * 3)


def test_a_collective_is_called_on_a_link_or_with_lists():
    @collective
    def shifted(link, x, by, *, times=1):
        for _ in range(times):
            link.send(x, (link.rank + by) % link.world_size)
            x = link.recv((link.rank - by) % link.world_size)
        return x

    xs = list(torch.arange(3.0))
    assert torch.stack(shifted(xs, [1, 1, 1], times=2)).tolist() == [1, 2, 0]
    assert torch.stack(simulate(lambda link, x: shifted(link, x, 2), xs)).tolist() == [1, 2, 0]
    results, sent, messages = shifted(xs, [1, 1, 1], times=2, traffic=True)
    assert torch.stack(results).tolist() == [1, 2, 0]
    assert sent == [8, 8, 8] and messages == [2, 2, 2]
    with pytest.raises(CourseError, match="lists of 2, 3"):
        shifted(xs, [1, 1])
