"""Measure all candidates side by side, in rounds.

In a round, fresh processes of every candidate start and warm up; then all are alive, and exactly one runs at a time.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from epkit._system import platform
from epkit._system.text import format_seconds
from epkit.benchmark.candidate_run import CandidateRun
from epkit.benchmark.document import Block
from epkit.benchmark.environment.nvidia_smi import gpus, used_and_free
from epkit.benchmark.pilot import WARM_MOST_S
from epkit.benchmark.process import Reply
from epkit.benchmark.run import BenchmarkRun
from epkit.benchmark.schedule import (
    BLOCK_S,
    LEAD_S,
    LEAST_PASSES,
    LEAST_PROCESSES,
    LONG_BLOCK_S,
    PASSES,
    STARTING,
    STEADY_S,
    Pair,
    Round,
    choose_for_pass,
    draw_pass,
    plan_round,
    processes_that_fit,
)
from epkit.benchmark.statistics.quantiles import DISCARDED_PASSES
from epkit.session.fault import WorkerFault

ON_ONE_CORE = BLOCK_S, 0.0
ENOUGH_PROCESSES = 4
FAR_SLOWER = 5.0
"""How many times as long as the fastest a candidate has to take before it is left out for the sake of the others."""


def first_round(run: BenchmarkRun) -> Round | None:
    """Plan the first round; a candidate too slow for the others to be measured beside it fails, with the reason."""
    while True:
        plan, active = next_round(run), sorted(run.active, key=_cost)
        if len(active) < 2 or (plan is not None and plan.processes >= ENOUGH_PROCESSES):
            return plan
        slowest = active[-1]
        if _cost(slowest) < FAR_SLOWER * _cost(active[0]):
            return plan
        others = ", ".join(candidate.name for candidate in active[:-1])
        reason = (
            f"it takes {format_seconds(slowest.starting_s)} to start and {format_seconds(slowest.run_s)} a run, too "
            f"long to be measured with {others} within {run.request.budget_s:.3g} s"
        )
        each = sum(candidate.adding_s + LEAST_PASSES * candidate.run_s for candidate in active)
        needed = 2 * (run.budget.seconds - run.budget.reserved_s) - run.budget.left + ENOUGH_PROCESSES * each
        slowest.fault = WorkerFault("failed", "", reason, f"--budget {10 * math.ceil(needed / 10)}")


def _cost(candidate: CandidateRun) -> float:
    return candidate.starting_s + PASSES * candidate.run_s


def next_round(run: BenchmarkRun) -> Round | None:
    """Plan a round of all active candidates, as far as time and memory allow."""
    active = run.active
    if not active:
        return None
    cases, places = len(run.cases), {candidate.place for candidate in active}
    pilots = {each.candidate: each for each in run.processes if each.round == 0 and each.candidate in places}
    needed = sum(pilot.peak_rss_bytes or 0 for pilot in pilots.values())
    needed_on_gpu = sum(pilot.device_bytes or 0 for pilot in pilots.values())
    on_gpu = used_and_free(gpus()) if needed_on_gpu else None
    block_s = sum(block_lengths(active))
    turns_s = [max(block_s * cases, candidate.run_s) + 0.002 * cases for candidate in active]
    most = min(
        processes_that_fit(platform.free_memory(), needed), processes_that_fit(on_gpu and on_gpu[1], needed_on_gpu)
    )
    start_s = sum(candidate.adding_s for candidate in active)
    return plan_round(run.budget.left, start_s, turns_s, cases, most)


def block_lengths(active: Sequence[CandidateRun]) -> tuple[float, float]:
    """Return the counted seconds of a block, and those of the lead before them."""
    return ON_ONE_CORE if all(candidate.on_one_core for candidate in active) else (LONG_BLOCK_S, LEAD_S)


def run_round(number: int, plan: Round, run: BenchmarkRun) -> None:
    """Start fresh processes, and run pairs of blocks until the time of the round is over."""
    began = time.monotonic()
    processes = _start(number, plan, run)
    active = run.active
    took_s = time.monotonic() - began
    for candidate in active:
        candidate.adding_s = took_s / max(1, processes * len(active))
    until = min(time.monotonic() + plan.steady_s, run.budget.end)
    lengths = block_lengths(active)
    cores = _cores() if lengths == ON_ONE_CORE else []
    spent = dict.fromkeys((candidate.place for candidate in active), 0.0)
    passes = dict.fromkeys(spent, 0)
    # The discarded pass and one more are always finished; those of the first round run however late it is.
    least = 0 if run.blocks else DISCARDED_PASSES + 1
    pass_number = pair_number = 0
    while time.monotonic() < until or pass_number < least:
        alive = [candidate.place for candidate in run.active]
        if not alive:
            break
        left_s, steady_s = until - time.monotonic(), STEADY_S * len(run.cases)
        chosen = [
            alive[at]
            for at in choose_for_pass(
                [spent[place] for place in alive], [passes[place] for place in alive], left_s, steady_s
            )
        ]
        for pair in draw_pass(chosen, processes, len(run.cases), run.random):
            run.report("measuring")
            core = run.random.choice(cores) if cores else None
            for place, process, reply, took in _run_pair(pair, run, lengths, core):
                spent[place] += took
                samples = reply["lead"], reply["cpu_s"], tuple(reply["seconds"])
                run.blocks.append(Block(number, pass_number, pair_number, pair.case, process, core, *samples))
            pair_number += 1
            if time.monotonic() > until and pass_number > DISCARDED_PASSES:
                break
        for place in chosen:
            passes[place] += 1
        pass_number += 1
        run.save_if_due()
    _finish(run)


def _start(number: int, plan: Round, run: BenchmarkRun) -> int:
    """Start fresh processes, a few at the same time; return how many of each candidate there are.

    One of each candidate starts after the other, in random order. Where starting takes longer than planned, there are
    fewer of them.
    """
    start_until = run.budget.end - min(plan.steady_s, run.budget.left / 2)
    order = [each for _ in range(plan.processes) for each in run.random.sample(run.active, len(run.active))]

    def processes() -> int:
        return min((len(candidate.places) for candidate in run.active), default=0)

    while order and (processes() < LEAST_PROCESSES or time.monotonic() < start_until):
        together, order = order[:STARTING], order[STARTING:]
        for candidate in together:
            run.report(f"starting {candidate.name}")
        for candidate, worker in [(each, each.start() if each.active else None) for each in together]:
            if worker is not None and candidate.active:
                with candidate.catch_fault():
                    opened = worker.receive("open", run.budget.left)
                    worker.longest_s = max(opened["first_run_s"])
                    warmed = worker.warm(WARM_MOST_S, run.budget.left)
                    candidate.places.append(run.add(candidate.process(number, opened, warmed, {})))
    return processes()


def _run_pair(
    pair: Pair, run: BenchmarkRun, lengths: tuple[float, float], core: int | None
) -> Iterator[tuple[int, int, Reply, float]]:
    """Run the blocks of a pair; yield for each the candidate, the process, its reply, and how long it took."""
    for place, number in pair.turns:
        candidate = run.candidates[place]
        with candidate.catch_fault():
            if candidate.active:
                began = time.monotonic()
                reply = candidate.workers[number].block(pair.case, *lengths, core, run.budget.left)
                yield place, candidate.places[number], reply, time.monotonic() - began


def _finish(run: BenchmarkRun) -> None:
    for candidate in run.candidates:
        with candidate.catch_fault():
            for place, worker in zip(candidate.places, candidate.workers, strict=True):
                peak = worker.finish()["peak_rss_bytes"]
                run.processes[place] = replace(run.processes[place], peak_rss_bytes=peak)
        candidate.end()


def _cores() -> Sequence[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
