"""How a benchmark draws its pairs of blocks, and how it spends its time."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epkit._system.platform import free_memory, peak_rss
from epkit.benchmark.rounds import ENOUGH_PROCESSES
from epkit.benchmark.schedule import (
    LEAST_PROCESSES,
    PROCESSES,
    STEADY_S,
    choose_for_pass,
    draw_orders,
    draw_pass,
    plan_round,
    processes_that_fit,
)
from epkit.session.steady import is_steady

# Pairs of blocks


@given(count=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_the_order_is_random_balanced_and_the_same_for_a_seed(count: int, seed: int) -> None:
    drawn = list(islice(draw_orders(count, Random(seed)), 20))
    assert drawn == list(islice(draw_orders(count, Random(seed)), 20))
    assert all(sorted(one) == list(range(count)) for one in drawn)
    for candidate in range(count):
        # Mirrored pairs: over an even number of orders nobody's mean place is better.
        assert sum(one.index(candidate) for one in drawn) == 10 * (count - 1)


@given(
    candidates=st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
    processes=st.integers(1, 8),
    cases=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_in_a_pass_every_process_runs_once_on_every_case(
    candidates: list[int], processes: int, cases: int, seed: int
) -> None:
    pairs = list(draw_pass(candidates, processes, cases, Random(seed)))
    turns = [(one.case, *turn) for one in pairs for turn in one.turns]
    everyone = [(c, place, number) for c in range(cases) for place in candidates for number in range(processes)]
    assert sorted(turns) == sorted(everyone)
    assert all([place for place, _ in one.turns] != [] for one in pairs)
    if len(candidates) == 2 and processes % 2 == 0:
        assert Counter(one.turns[0][0] for one in pairs) == dict.fromkeys(candidates, processes * cases // 2)


def test_a_slow_candidate_leaves_passes_to_the_fast_ones_once_it_had_enough() -> None:
    assert choose_for_pass([0.0, 0.0, 0.0], [0, 0, 0], 60.0, 5.0) == [0, 1, 2]
    assert choose_for_pass([1.0, 1.0, 50.0], [2, 2, 2], 60.0, 5.0) == [0, 1, 2]
    assert choose_for_pass([1.0, 1.0, 50.0], [3, 3, 3], 60.0, 5.0) == [0, 1]
    assert choose_for_pass([1.0, 50.0], [9, 9], 60.0, 5.0) == [0, 1], "there is no other partner"
    assert choose_for_pass([1.0], [9], 60.0, 5.0) == [0]


def test_where_time_is_short_a_slow_candidate_waits_until_the_quick_ones_have_had_theirs() -> None:
    # Its next pass takes 25 s, and the quick ones want 8 s more.
    assert choose_for_pass([1.0, 1.0, 50.0], [2, 2, 2], 33.0, 5.0) == [0, 1, 2]
    assert choose_for_pass([1.0, 1.0, 50.0], [2, 2, 2], 32.0, 5.0) == [0, 1]
    assert choose_for_pass([5.0, 5.0, 50.0], [9, 9, 2], 25.0, 5.0) == [0, 1, 2]
    assert choose_for_pass([5.0, 5.0, 50.0], [9, 9, 2], 24.0, 5.0) == [0, 1]


@given(
    left=st.floats(-5, 200),
    starting=st.floats(0.1, 60),
    turns=st.lists(st.floats(0.01, 30), min_size=1, max_size=5),
    cases=st.integers(1, 4),
    most=st.integers(1, 20),
)
def test_a_round_never_takes_more_than_what_is_left(
    left: float, starting: float, turns: list[float], cases: int, most: int
) -> None:
    found = plan_round(left, starting, turns, cases, most)
    if found is not None:
        assert LEAST_PROCESSES <= found.processes <= min(PROCESSES, most)
        assert found.steady_s + found.processes * starting <= left + 1e-6


def test_a_round_has_as_many_processes_as_time_allows() -> None:
    usual = plan_round(80, 1.2, [0.022, 0.022], 1, 8)
    assert usual is not None
    assert (usual.processes, usual.steady_s) == (8, 10.0)
    slow_to_start = plan_round(80, 3.0, [0.022, 0.022], 1, 8)
    assert slow_to_start is not None
    assert (slow_to_start.processes, slow_to_start.steady_s) == (8, 24.0), "as long as starting takes"
    long_runs = plan_round(80, 2.6, [0.2, 0.2], 1, 8)
    assert long_runs is not None
    assert (long_runs.processes, long_runs.steady_s) == (8, pytest.approx(25.6)), "eight passes"
    assert plan_round(80, 2.0, [0.022, 0.022], 1, 1) is None, "one process tells nothing of luck"
    assert plan_round(2, 2.0, [0.022, 0.022], 1, 8) is None


def test_what_a_slow_candidate_needs_does_not_come_out_of_the_time_of_the_quick_ones() -> None:
    # Some 0.02 s a turn for two, and a run of 2 s for the third, as WebGPU has on a driver in software.
    turns = [0.022, 0.022, 2.0]
    long = plan_round(200, 5.85, turns, 1, 8)
    assert long is not None
    assert (long.processes, long.steady_s) == (8, pytest.approx(2 * STEADY_S + 8 * 8 * 2.0)), "eight passes of it"
    usual = plan_round(60, 5.85, turns, 1, 8)
    assert usual is not None
    assert (usual.processes, usual.steady_s) == (4, pytest.approx(2 * STEADY_S + 3 * 4 * 2.0)), "three passes of it"
    short = plan_round(55, 5.85, turns, 1, 8)
    assert short is not None
    assert short.processes < ENOUGH_PROCESSES, "so it will not be measured beside the others"


def test_as_many_processes_are_alive_as_fit_into_memory() -> None:
    assert processes_that_fit(None, 10) == processes_that_fit(10, None) == PROCESSES
    assert processes_that_fit(100 << 30, 1 << 30) == PROCESSES
    assert processes_that_fit(10 << 30, 2 << 30) == 3
    assert processes_that_fit(1, 2 << 30) == 1
    free = free_memory()
    assert free is not None
    assert free > 2**20


@pytest.mark.parametrize(
    ("windows", "steady"),
    [([1.0], False), ([1.0, 1.0, 1.05], True), ([9.0, 1.0, 1.0, 1.0], True), ([1, 1, 1.2], False)],
)
def test_steady_is_three_windows_within_a_tenth(windows: list[float], steady: bool) -> None:
    assert is_steady(windows) is steady


def test_peak_memory_is_known_here() -> None:
    peak = peak_rss()
    assert peak is not None
    assert peak > 2**20
