"""Hours and dollars before anything is started."""

import math
import random
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.generation.cost import cache_bytes, texts_that_fit
from course_utils.models.gpt import PRESETS
from course_utils.training.parts.cloud_bill import (
    Offer,
    expected_hours,
    simulated_hours,
    spot_bill,
    training_bill,
    young_interval,
)

OFFER = Offer("two", gpus=2, dollars_per_gpu_hour=3.0, peak_flops=1e14)


def test_a_bill_that_can_be_done_in_the_head():
    # 7.2e17 operations at 2 · 1e14 · 50 % take 7200 s.
    assert training_bill(7.2e9, 1e8, OFFER, mfu=0.5, setup_hours=0) == (2.0, 12.0)
    assert training_bill(7.2e9, 1e8, OFFER, mfu=0.5, setup_hours=0.5) == (2.5, 15.0)


def test_llama_takes_about_as_long_as_its_authors_say():
    """Touvron et al. (2023), section 2.4: 65B parameters see 380 tokens/s on each of 2048 A100s.
    At that rate 1.4T tokens take about 21 days; the MFU it means is what we put in."""
    flops = 6 * 65.2e9
    mfu = 380 * flops / 312e12
    cluster = Offer("", 2048, 0.0, 312e12)
    hours, _ = training_bill(flops, 1.4e12, cluster, mfu, setup_hours=0)
    assert 20 < hours / 24 < 22


@given(st.floats(0.2, 8), st.floats(0.001, 0.3), st.floats(0, 0.5), st.floats(0.5, 50))
def test_interruptions_only_ever_cost_time(interval, save, restart, between):
    work = 10 * interval
    quiet = expected_hours(work, interval, save, restart, math.inf)
    assert quiet == pytest.approx(10 * (interval + save))
    assert expected_hours(work, interval, save, restart, between) > quiet
    rare = expected_hours(work, interval, save, restart, 1e7)
    assert rare == pytest.approx(quiet, rel=1e-3)


@pytest.mark.parametrize(
    ("interval", "save", "restart", "between"),
    [(1, 0.1, 0.2, 5), (0.5, 0.05, 0.5, 1.5), (2, 0.2, 0, 2)],
)
def test_the_formula_is_the_mean_of_what_happens(interval, save, restart, between):
    dice = random.Random(1)
    hours = [simulated_hours(20, interval, save, restart, between, dice) for _ in range(1500)]
    error = statistics.stdev(hours) / math.sqrt(len(hours))
    expected = expected_hours(20, interval, save, restart, between)
    assert abs(statistics.mean(hours) - expected) < 4 * error


def test_youngs_interval_is_nearly_the_best():
    save, restart, between = 0.01, 0.1, 6.0
    intervals = [0.02 * 1.02**i for i in range(300)]
    hours = [expected_hours(24, interval, save, restart, between) for interval in intervals]
    best = intervals[hours.index(min(hours))]
    young = young_interval(save, between)
    assert young == pytest.approx(best, rel=0.05)
    assert expected_hours(24, young, save, restart, between) < 1.0001 * min(hours)


def test_the_spot_bill_saves_when_it_is_best():
    assert spot_bill(10, OFFER, 0.01, 0.1) == (10, 60.0, 10)
    spot = replace(OFFER, hours_between=5.0)
    hours, dollars, interval = spot_bill(10, spot, 0.01, 0.1)
    assert interval == young_interval(0.01, 5.0)
    assert hours == expected_hours(10, interval, 0.01, 0.1, 5.0)
    assert dollars == hours * 6
    assert spot_bill(0.1, spot, 0.01, 0.1)[2] == 0.1


def test_as_many_texts_fit_as_their_caches_and_the_weights_leave_room_for():
    config = PRESETS["minimind-26m"]
    weights = 2 * config.n_parameters()
    text = cache_bytes(config, 1, 2048, 2)
    for n in (0, 1, 7):
        assert texts_that_fit(config, weights + n * text, 2048, reserve=0) == n
        assert texts_that_fit(config, weights + n * text + text - 1, 2048, reserve=0) == n
    assert texts_that_fit(config, weights // 2, 2048) == 0
    assert texts_that_fit(config, 10**9, 2048) == int((0.9e9 - weights) // text)
