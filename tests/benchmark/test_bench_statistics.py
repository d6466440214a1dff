"""Do the statistics of a benchmark keep what they promise?

How often verdicts are wrong on noisy machines stands in docs/benchmark-method.md, worked out by benchmarks/trust.py.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from documents import made_up
from hypothesis import given, settings
from hypothesis import strategies as st

from epkit.benchmark import storage
from epkit.benchmark.document import Block, Estimate, Measured, swap
from epkit.benchmark.statistics import student
from epkit.benchmark.statistics.differences import Difference, difference, pair_blocks, slow_runs
from epkit.benchmark.statistics.quantiles import bounds, counted_runs, pooled_runs, quantile
from epkit.benchmark.statistics.verdicts import (
    all_differences,
    blocks_by_candidate,
    findings,
    is_settled,
    level_of,
    verdict,
)

ROOT = Path(__file__).parents[2]
SEEDS = st.integers(0, 2**32 - 1)

# -- Student's t


@pytest.mark.parametrize(
    ("probability", "freedom", "tabled"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.30265),
        (0.975, 7, 2.36462),
        (0.975, 14, 2.14479),
        (0.95, 10, 1.81246),
        (0.9, 3, 1.63774),
        (0.9995, 7, 5.40788),
        (0.995, 30, 2.75),
        (0.975, 120, 1.97993),
        (0.975, 1e6, 1.95997),
    ],
)
def test_the_quantiles_of_students_t_are_those_of_the_tables(probability, freedom, tabled):
    assert student.quantile(probability, freedom) == pytest.approx(tabled, rel=5e-6)


@given(st.floats(0.001, 0.999), st.floats(1, 200))
def test_students_t_is_symmetric_and_its_quantile_undoes_its_distribution(probability, freedom):
    found = student.quantile(probability, freedom)
    assert found == pytest.approx(-student.quantile(1 - probability, freedom), rel=1e-9, abs=1e-9)
    assert student.cumulative(found, freedom) == pytest.approx(probability, abs=1e-9)


# -- quantiles of runs


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("runs", [5, 6, 8, 30, 100, 299, 368, 369, 500])
def test_the_interval_of_a_quantile_is_the_narrowest_with_at_most_a_fortieth_on_each_side(runs, share):
    found = bounds(runs, share)
    # How likely it is that so many of the runs at most lie below the quantile: the binomial, term by term.
    terms = [math.comb(runs, one) * share**one * (1 - share) ** (runs - one) for one in range(runs + 1)]
    below = list(itertools.accumulate(terms))
    low = sum(one <= 0.025 for one in below)
    high = next(rank for rank in range(1, runs + 2) if below[rank - 1] >= 0.975)
    assert found == ((low, high) if low >= 1 and high <= runs else None)


@pytest.mark.parametrize(("share", "least"), [(0.5, 6), (0.9, 36), (0.99, 368)])
def test_a_quantile_has_an_interval_only_where_there_are_runs_enough(share, least):
    assert bounds(least - 1, share) is None
    assert bounds(least, share) is not None
    few = [float(one) for one in range(1, least)]
    alone = quantile(few, share)
    if share == 0.5:
        assert alone is not None
        assert (alone.low_s, alone.high_s) == (None, None)
    else:
        assert alone is None
    assert quantile([], share) is None


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=600).map(sorted), st.sampled_from([0.5, 0.9, 0.99]))
@settings(max_examples=50)
def test_a_quantile_is_one_of_the_runs_and_lies_in_its_interval(ordered, share):
    found = quantile(ordered, share)
    if found is not None:
        assert found.value_s in ordered
        assert sum(one <= found.value_s for one in ordered) >= len(ordered) * share - 1e-9
        if found.low_s is not None and found.high_s is not None:
            assert found.low_s <= found.value_s <= found.high_s


@given(SEEDS, st.sampled_from([(12, 0.5), (60, 0.9), (400, 0.99)]))
@settings(max_examples=10)
def test_the_interval_of_a_quantile_holds_the_true_one_as_often_as_promised(seed, asked):
    chance, (runs, share) = random.Random(seed), asked
    ranks = bounds(runs, share)
    assert ranks is not None
    trials, held = 300, 0
    for _ in range(trials):
        ordered = sorted(chance.random() for _ in range(runs))
        held += ordered[ranks[0] - 1] <= share <= ordered[ranks[1] - 1]
    # 95 % at least are promised; below 89 % it would be once in a hundred thousand.
    assert held >= 0.89 * trials


# -- scores


def _sides(seed: int, *, ratio: float = 1.03, **more) -> tuple[Measured, Sequence[Block], Sequence[Block]]:
    measured = made_up({"a": 0.001, "b": 0.001 * ratio}, processes=4, sweeps=5, seed=seed, **more).measured
    found = blocks_by_candidate(measured.blocks, measured.processes)
    return measured, found[0, 0], found[0, 1]


def _scaled(blocks: Sequence[Block], factors: Sequence[float]) -> list[Block]:
    """Let every meeting take so many times as long."""
    return [
        replace(one, samples_s=tuple(run * factors[one.pair % len(factors)] for run in one.samples_s)) for one in blocks
    ]


def _close(one: Difference | None, other: Difference | None, sign: int = 1) -> None:
    assert one is not None
    assert other is not None
    assert one.log_ratio == pytest.approx(sign * other.log_ratio, abs=1e-9)
    assert one.error == pytest.approx(other.error, rel=1e-6)
    assert one.freedom == pytest.approx(other.freedom, rel=1e-6)
    assert (one.processes, one.pairs) == (other.processes, other.pairs)


@given(SEEDS, st.lists(st.floats(0.01, 100), min_size=1, max_size=20))
@settings(max_examples=20)
def test_whatever_slows_a_whole_meeting_changes_nothing(seed, factors):
    _, a, b = _sides(seed, runs=120)
    _close(difference(pair_blocks(a, b)), difference(pair_blocks(_scaled(a, factors), _scaled(b, factors))))
    _close(slow_runs(a, b), slow_runs(_scaled(a, factors), _scaled(b, factors)))


@given(SEEDS)
@settings(max_examples=20)
def test_seen_from_the_other_side_a_difference_is_the_same_but_for_its_sign(seed):
    _, a, b = _sides(seed, runs=120)
    _close(difference(pair_blocks(a, b)), difference(pair_blocks(b, a)), sign=-1)
    _close(slow_runs(a, b), slow_runs(b, a), sign=-1)


@given(SEEDS, st.floats(0.25, 4))
@settings(max_examples=20)
def test_a_candidate_that_takes_so_many_times_as_long_is_found_to(seed, factor):
    _, a, b = _sides(seed)
    before, after = difference(pair_blocks(a, b)), difference(pair_blocks(a, _scaled(b, [factor])))
    assert before is not None
    assert after is not None
    assert after.log_ratio - before.log_ratio == pytest.approx(math.log(factor), abs=1e-9)
    assert after.error == pytest.approx(before.error, rel=1e-6)


@given(st.permutations(range(4)), st.permutations(range(4)), st.integers(2, 9))
@settings(max_examples=20)
def test_processes_of_two_kinds_are_told_apart_whoever_they_meet(of_a, of_b, sweeps):
    """Without noise each score is exact: what its process contributes, beside the mean of the other side."""
    slow = 0.03
    meetings = [
        (1, a, 10 + b, slow * (b in of_b[:2]) - slow * (a in of_a[:2]))
        for a, b in itertools.product(range(4), range(4))
    ]
    found = difference(meetings * sweeps)
    assert found is not None
    assert found.log_ratio == pytest.approx(0, abs=1e-4)
    spread = statistics.variance([0, 0, slow, slow])
    assert found.error == pytest.approx(math.sqrt(2 * spread / 4), rel=0.01)


def test_one_process_on_a_side_tells_nothing():
    _, a, b = _sides(0)
    alone = [one for one in b if one.process == b[0].process]
    assert difference(pair_blocks(a, alone)) is None
    assert difference(pair_blocks(a, b)) is not None
    assert difference([]) is None


def test_blocks_that_met_nobody_count_for_nothing():
    _, a, b = _sides(0)
    lonely = [replace(one, pair=one.pair + 1000, samples_s=(9.0,)) for one in b]
    assert difference(pair_blocks(a, [*b, *lonely])) == difference(pair_blocks(a, b))


def test_processes_of_several_rounds_are_one_sample():
    _, a, b = _sides(0)
    later = [[replace(one, round=2, process=one.process + 100) for one in side] for side in (a, b)]
    once, twice = difference(pair_blocks(a, b)), difference(pair_blocks([*a, *later[0]], [*b, *later[1]]))
    assert once is not None
    assert twice is not None
    assert twice.processes == 2 * once.processes
    assert twice.log_ratio == pytest.approx(once.log_ratio)
    assert twice.error < once.error
    assert twice.freedom > once.freedom


def test_the_settling_sweep_counts_for_nothing():
    measured, a, b = _sides(0)
    wild = [replace(one, samples_s=(7.0,)) if one.pass_number == 0 and one in b else one for one in measured.blocks]
    assert findings(replace(measured, blocks=tuple(wild))) == findings(measured)
    assert difference(pair_blocks(a, [one for one in b if one.pass_number > 0])) == difference(pair_blocks(a, b))


def test_the_first_tenth_of_a_long_block_counts_for_nothing():
    block = Block(1, 1, 0, 0, 0, None, 0, 0.0, (9.0, 9.0, *[1.0] * 18))
    assert list(counted_runs(block)) == [1.0] * 18
    assert pooled_runs([block]) == [1.0] * 18
    short = replace(block, samples_s=(9.0, *[1.0] * 18))
    assert list(counted_runs(short)) == [9.0, *[1.0] * 18]


def test_runs_of_the_lead_count_for_nothing():
    block = Block(1, 1, 0, 0, 0, None, 3, 0.0, (9.0, 9.0, 9.0, 2.0, 1.0))
    assert list(counted_runs(block)) == [2.0, 1.0]
    assert pooled_runs([block]) == [1.0, 2.0]


def test_slow_runs_are_compared_only_where_every_process_has_a_hundred():
    _, a, b = _sides(0, runs=25)
    assert slow_runs(a, b) is None  # 4 sweeps that count, 23 runs of each block
    _, a, b = _sides(0, runs=28)
    assert slow_runs(a, b) is not None
    few = [replace(one, samples_s=one.samples_s[:20]) if one.process == b[0].process else one for one in b]
    assert slow_runs(a, few) is None


# -- verdicts


@pytest.mark.parametrize(
    ("ratio", "low", "high", "floor", "said"),
    [
        (1.000, 0.995, 1.005, 0.008, "same"),
        (1.015, 1.011, 1.019, 0.006, "same"),  # not 1, but nothing that matters
        (1.019, 1.010, 1.028, 0.015, "undecided"),
        (1.021, 1.015, 1.027, 0.010, "slower"),
        (1.050, 1.040, 1.060, 0.016, "slower"),
        (1.050, 1.010, 1.090, 0.065, "undecided"),  # leaves out 1, but lies below what could be told
        (1.070, 1.010, 1.130, 0.065, "slower"),
        (0.950, 0.940, 0.960, 0.016, "faster"),
        (1 / 1.02, 0.97, 0.99, 0.010, "faster"),
        (0.985, 0.960, 1.010, 0.040, "undecided"),
        (0.990, 0.9803, 0.9997, 0.015, "undecided"),  # 1 / 1.02 is the edge, as seen from the other side
        (0.990, 0.9805, 0.9995, 0.015, "same"),
    ],
)
def test_a_verdict_needs_a_difference_that_matters_and_can_be_told(ratio, low, high, floor, said):
    assert verdict(Estimate(ratio, low, high), floor, 0.02) == said


@given(st.floats(0.5, 2), st.floats(0.0001, 0.5), st.floats(1, 2.5), st.floats(0.001, 0.2))
def test_no_verdict_depends_on_which_candidate_is_named_first(ratio, half, power, least):
    one = Estimate(ratio, ratio * math.exp(-half), ratio * math.exp(half))
    other = Estimate(1 / ratio, 1 / one.high, 1 / one.low)
    floor = math.expm1(half * power)
    mirrored = {"faster": "slower", "slower": "faster", "same": "same", "undecided": "undecided"}
    edge = (1 + max(floor, least), 1 + least)
    if all(abs(value * limit - 1) > 1e-9 and abs(value / limit - 1) > 1e-9
           for value in (ratio, one.low, one.high) for limit in edge):  # fmt: skip
        assert verdict(other, floor, least) == mirrored[verdict(one, floor, least)]


@given(st.floats(0.5, 2), st.floats(0.0001, 0.5), st.floats(0.001, 0.2))
def test_what_is_called_faster_or_slower_is_so_beyond_its_interval(ratio, half, least):
    one = Estimate(ratio, ratio * math.exp(-half), ratio * math.exp(half))
    said = verdict(one, math.expm1(half * 1.3), least)
    assert said != "faster" or one.high < 1
    assert said != "slower" or one.low > 1


def test_a_benchmark_goes_on_until_the_smallest_effect_can_be_told_or_the_difference_is_plain():
    def found(log_ratio: float, error: float) -> Difference:
        return Difference(log_ratio, error, 14.0, 8, 200)

    assert is_settled(found(0.0, 0.003), 0.95, 0.02)
    assert not is_settled(found(0.0, 0.01), 0.95, 0.02)
    assert not is_settled(found(0.025, 0.01), 0.95, 0.02), "significant is not enough"
    assert is_settled(found(0.1, 0.01), 0.95, 0.02)
    assert is_settled(found(-0.1, 0.01), 0.95, 0.02)


def test_several_comparisons_hold_together():
    names = {"a": 0.001, "b": 0.001, "c": 0.002}
    assert level_of(made_up({"a": 1.0, "b": 1.0}).measured) == 0.95
    three = made_up(names).measured
    assert level_of(three) == pytest.approx(1 - 0.05 / 3)
    assert level_of(made_up(names, batches=(1, 4)).measured) == pytest.approx(1 - 0.05 / 6)
    without = replace(three, candidates=(*three.candidates[:2], replace(three.candidates[2], status="differs")))
    assert level_of(without) == 0.95
    assert len(list(all_differences(without))) == 1


def test_the_interval_of_one_comparison_is_narrower_than_that_of_one_among_three():
    three = made_up({"a": 0.001, "b": 0.001, "c": 0.002}).measured
    found = next(iter(all_differences(three)))
    assert found is not None
    assert found.half_width(0.95) < found.half_width(level_of(three))


# -- the document


@given(SEEDS, st.floats(0.5, 2))
@settings(max_examples=5, deadline=None)
def test_a_document_says_the_same_after_it_was_written_and_read(tmp_path_factory, seed, ratio):
    written = made_up({"a": 0.001, "b": 0.001 * ratio}, batches=(1, 4), processes=3, sweeps=4, seed=seed)
    file = tmp_path_factory.mktemp("documents") / "written.json"
    storage.write(written, file)
    read = storage.read(file)
    assert read.as_json() == written.as_json()
    assert findings(read.measured) == findings(written.measured) == written.findings


def test_a_comparison_swap_twice_is_itself():
    (found,) = made_up({"a": 0.001, "b": 0.00105}).findings.comparisons
    assert found.verdict == "slower"
    assert swap(found).verdict == "faster"
    assert swap(found).time.ratio == 1 / found.time.ratio
    back = swap(swap(found))
    assert (back.a, back.b, back.verdict) == (found.a, found.b, found.verdict)
    assert back.time.low == pytest.approx(found.time.low)


# -- the study


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import trust
    import trust_simulated

    return trust, trust_simulated


def test_on_a_noisy_machine_the_same_is_called_the_same_and_a_twentieth_more_is_found(study):
    _, simulated = study
    same = [simulated.trial("busy", 1.0, seed) for seed in range(6)]
    assert sum(one.excludes for one in same) <= 1
    assert not [one for one in same if one.verdict in ("faster", "slower")]
    slower = [simulated.trial("busy", 1.05, seed) for seed in range(3)]
    assert [one.verdict for one in slower] == ["slower"] * 3
    assert simulated.trial("busy", 1.05, 2) == slower[2], "the same seed makes the same noise"


def test_a_share_comes_with_the_interval_of_wilson(study):
    trust, _ = study
    assert trust.share(0, 62) == "0 % [0, 5.8]"
    assert trust.share(3, 62) == "4.8 % [1.7, 13.3]"
    assert trust.share(40, 40) == "100 % [91.2, 100]"
    assert trust.share(0, 0) == "-"


def test_a_study_goes_on_where_it_was_ended_and_tries_everything_in_turn(study):
    trust, _ = study
    a_turn = len(trust.MODELS) * len(trust.THREADS)
    whole = list(itertools.islice(trust.asked(1), 3 * a_turn))
    assert list(itertools.islice(trust.asked(1, done=10), 3 * a_turn - 10)) == whole[10:]
    assert len(set(whole[:a_turn])) == a_turn
    assert {one.percent for one in whole} == {0, 5}


def test_the_figures_of_the_page_are_those_of_the_study(study):
    trust, _ = study
    from page import MARKER, filled

    text, shown = trust.PAGE.read_text(), trust.figures(json.loads(trust.RESULTS.read_text()))
    assert filled(text, shown) == text, "python benchmarks/trust.py --page"
    assert {name for _, name, _ in MARKER.findall(text)} <= set(shown)
