"""What is measured side by side?

A round: fresh processes of every candidate, warmed up, then all alive, and exactly one runs at a time.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace

from epkit._system import platform
from epkit._system.text import format_seconds
from epkit.benchmark.budget import (
    BLOCK_S,
    LEAD_S,
    LEAST_PROCESSES,
    LEAST_SWEEPS,
    LONG_BLOCK_S,
    STARTING,
    STEADY_S,
    SWEEPS,
    Round,
    fitting,
    round_of,
)
from epkit.benchmark.candidate_run import Contender
from epkit.benchmark.contest import Contest
from epkit.benchmark.document import Block
from epkit.benchmark.environment.nvidia_smi import gpus, used_and_free
from epkit.benchmark.pilot import finish, warm
from epkit.benchmark.process import Reply
from epkit.benchmark.schedule import Meeting, joining, sweep
from epkit.benchmark.statistics.quantiles import SETTLING_SWEEPS
from epkit.session.fault import Fault

ALONE = BLOCK_S, 0.0
ENOUGH_PROCESSES = 4
FAR_SLOWER = 5.0
"""How many times as long as the quickest a candidate has to take before it is left out for the others' sake."""


def first_round(contest: Contest) -> Round | None:
    """Plan the first round; whoever takes so long that the others could not be measured is left out, as a row."""
    while True:
        plan, budget = next_round(contest), contest.budget
        taking_part = sorted(contest.taking_part, key=_cost)
        if len(taking_part) < 2 or (plan is not None and plan.processes >= ENOUGH_PROCESSES):
            return plan
        slowest = taking_part[-1]
        if _cost(slowest) < FAR_SLOWER * _cost(taking_part[0]):
            return plan
        others = ", ".join(one.name for one in taking_part[:-1])
        reason = (
            f"it takes {format_seconds(slowest.starting_s)} to start and {format_seconds(slowest.run_s)} a run, too "
            f"long to be measured beside {others} within {contest.record.request.budget_s:.3g} s"
        )
        each = sum(one.adding_s + LEAST_SWEEPS * one.run_s for one in taking_part)
        needed = 2 * budget.seconds - budget.left + ENOUGH_PROCESSES * each
        slowest.fault = Fault("failed", "", reason, f"--budget {10 * math.ceil(needed / 10)}")


def lengths(taking_part: Sequence[Contender]) -> tuple[float, float]:
    """Return how long a block is counted, and the lead before that."""
    return ALONE if all(one.on_one_core for one in taking_part) else (LONG_BLOCK_S, LEAD_S)


def _cost(one: Contender) -> float:
    return one.starting_s + SWEEPS * one.run_s


def next_round(contest: Contest) -> Round | None:
    """Plan a round of all that take part, as far as time and memory allow."""
    taking_part, record = contest.taking_part, contest.record
    if not taking_part:
        return None
    cases = len(record.cases)
    places = {one.place for one in taking_part}
    alone = {one.candidate: one for one in record.processes if one.round == 0 and one.candidate in places}
    needed = sum(one.peak_rss_bytes or 0 for one in alone.values())
    needed_on_gpu = sum(one.device_bytes or 0 for one in alone.values())
    on_gpu = used_and_free(gpus()) if needed_on_gpu else None
    block_s = sum(lengths(taking_part))
    turns_s = [max(block_s * cases, one.run_s) + 0.002 * cases for one in taking_part]
    adding_s = sum(one.adding_s for one in taking_part)
    most = min(fitting(platform.free_memory(), needed), fitting(on_gpu and on_gpu[1], needed_on_gpu))
    return round_of(contest.budget.left, adding_s, turns_s, cases, most)


def run_round(number: int, plan: Round, contest: Contest) -> None:
    """Start fresh processes, and let them meet until the time of the round is over."""
    record, random = contest.record, contest.random
    began = time.monotonic()
    processes = _start(number, plan, contest)
    taking_part = contest.taking_part
    took_s = time.monotonic() - began
    for one in taking_part:
        one.adding_s = took_s / max(1, processes * len(taking_part))
    until = min(time.monotonic() + plan.steady_s, contest.budget.over)
    length = lengths(taking_part)
    cores = _cores() if length == ALONE else []
    spent = dict.fromkeys((one.place for one in taking_part), 0.0)
    sweeps = dict.fromkeys(spent, 0)
    # The settling sweep and one more always come to their end; those of the first round are run however late it is.
    least = 0 if record.blocks else SETTLING_SWEEPS + 1
    count = 0
    meetings = 0
    while time.monotonic() < until or count < least:
        alive = [one.place for one in contest.taking_part]
        if not alive:
            break
        joined = joining(
            [spent[place] for place in alive],
            [sweeps[place] for place in alive],
            until - time.monotonic(),
            STEADY_S * len(record.cases),
        )
        for meeting in sweep([alive[at] for at in joined], processes, len(record.cases), random):
            contest.tell("measuring")
            core = random.choice(cores) if cores else None
            for place, process, reply, took in _meet(meeting, contest, length, core):
                spent[place] += took
                figures = reply["lead"], reply["cpu_s"], tuple(reply["seconds"])
                record.blocks.append(Block(number, count, meetings, meeting.case, process, core, *figures))
            meetings += 1
            if time.monotonic() > until and count > SETTLING_SWEEPS:
                break
        for at in joined:
            sweeps[alive[at]] += 1
        count += 1
        record.keep_by_now()
    _finish(contest)


def _start(number: int, plan: Round, contest: Contest) -> int:
    """Start fresh processes, a few at the same time; return how many of each candidate there are.

    They come one of each candidate after the other, in random order. Where starting takes longer than planned, there
    are fewer of them.
    """
    budget, taking_part = contest.budget, contest.taking_part
    by_now = budget.over - min(plan.steady_s, budget.left / 2)
    order = [one for _ in range(plan.processes) for one in contest.random.sample(taking_part, len(taking_part))]

    def processes() -> int:
        return min((len(one.places) for one in contest.taking_part), default=0)

    while order and (processes() < LEAST_PROCESSES or time.monotonic() < by_now):
        together, order = order[:STARTING], order[STARTING:]
        for one in together:
            contest.tell(f"starting {one.name}")
        for one, runner in [(one, one.start() if one.takes_part else None) for one in together]:
            if runner is not None and one.takes_part:
                with one.blamed():
                    opened = runner.answer("open", budget.left)
                    runner.longest_s = max(opened["first_run_s"])
                    warmed = warm(runner, budget.left)
                    one.places.append(contest.record.add(one.process(number, opened, warmed, {})))
    return processes()


def _meet(
    meeting: Meeting, contest: Contest, length: tuple[float, float], core: int | None
) -> list[tuple[int, int, Reply, float]]:
    """Run the blocks of a meeting; return for each the candidate, the process, what it said, and what it took."""
    found = []
    for place, number in meeting.turns:
        one = contest.contenders[place]
        with one.blamed():
            if one.takes_part:
                began = time.monotonic()
                process = one.places[number]
                reply = one.runners[number].block(meeting.case, *length, core, contest.budget.left)
                found.append((place, process, reply, time.monotonic() - began))
    return found


def _finish(contest: Contest) -> None:
    processes = contest.record.processes
    for one in contest.contenders:
        with one.blamed():
            for place, runner in zip(one.places, one.runners, strict=True):
                reply = finish(runner)
                processes[place] = replace(processes[place], peak_rss_bytes=reply["peak_rss_bytes"])
        one.end()


def _cores() -> Sequence[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
