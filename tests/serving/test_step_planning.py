"""Whose tokens a step computes."""

from hypothesis import given
from hypothesis import strategies as st

from course_utils.serving.schedule import plan_step


def test_a_short_prompt_does_not_wait_for_a_long_one():
    assert plan_step([500, 0, 0], [7], n_slots=4, budget=34) == (1, [25, 0, 0, 7])


def test_who_came_first_gets_what_does_not_divide():
    assert plan_step([100, 100, 100], [], n_slots=4, budget=8) == (0, [3, 3, 2])
    assert plan_step([100, 100, 100, 0], [], n_slots=4, budget=2) == (0, [1, 0, 0, 0])


@given(
    st.lists(st.integers(0, 90), max_size=6),
    st.lists(st.integers(1, 90), max_size=6),
    st.integers(6, 9),
    st.integers(10, 200),
)
def test_the_budget_is_kept_and_nothing_of_it_is_wasted(left, waiting, n_slots, budget):
    joining, reads = plan_step(left, waiting, n_slots, budget)
    assert joining == min(len(waiting), n_slots - len(left))
    everybody = [*left, *waiting[:joining]]
    assert len(reads) == len(everybody)
    assert all(0 <= read <= rest for read, rest in zip(reads, everybody, strict=True))
    room = budget - everybody.count(0)
    assert sum(reads) == min(room, sum(everybody))
    # Fair: whoever wants more has at most one token less than anybody else.
    unsatisfied = [read for read, rest in zip(reads, everybody, strict=True) if read < rest]
    assert not unsatisfied or min(unsatisfied) >= max(reads) - 1


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(1, 4))
def test_everybody_has_read_in_the_end(prompts, n_slots):
    waiting, left = list(prompts), []
    for _ in range(sum(prompts) + len(prompts)):
        joining, reads = plan_step(left, waiting, n_slots, n_slots + 3)
        left, waiting = [*left, *waiting[:joining]], waiting[joining:]
        left = [rest - read for rest, read in zip(left, reads, strict=True)]
        left = [rest for rest in left if rest]
    assert not left and not waiting
