"""How often are epkit's verdicts wrong on a machine whose noise is known?

A trial is a whole benchmark, judged by epkit's own functions: rounds of fresh processes until `is_settled` says that it
is enough, four at most. Beside it, the same machine is asked in the plain way: one process of each, one after the
other, five seconds each, and the interval of a t-test over the runs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from noise import MACHINES, Noise, round_of_blocks

from epkit.benchmark.document import Block, Candidate, Case, Estimate, Measured, Process, Request
from epkit.benchmark.environment.environment import Environment
from epkit.benchmark.schedule import ROUNDS
from epkit.benchmark.statistics.verdicts import all_differences, findings, is_settled, level_of

EFFECTS = (1.0, 1.03, 1.05, 1.1)
PLAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What one benchmark of a machine said, where the last candidate takes `effect` times as long as the others."""

    machine: str
    effect: float
    wrong: bool
    """Whether an interval does not hold the true ratio: one of several, where there are several comparisons."""
    excludes: bool
    """Whether an interval leaves out 1."""
    verdict: str
    """Of the last candidate beside the first; where none differ, one of faster or slower counts if there is any."""
    ratio: float
    floor: float
    rounds: int
    p99_wrong: bool | None
    p99_ratio: float | None
    p99_half_width: float | None
    plain_wrong: bool


def trial(machine: str, effect: float, seed: int) -> Trial:
    """Measure once, and judge."""
    noise = Noise(MACHINES[machine], seed)
    its = noise.machine
    effects = [1.0] * (its.candidates - 1) + [effect]
    blocks: list[Block] = []
    owners: list[int] = []
    for number in range(1, ROUNDS + 1):
        blocks += round_of_blocks(noise, number, effects, len(owners))
        owners += [one for one in range(its.candidates) for _ in range(its.processes)]
        measured = _measured(its.candidates, owners, blocks, seed)
        level, least = level_of(measured), measured.request.smallest_effect
        if all(one is not None and is_settled(one, level, least) for one in all_differences(measured)):
            break
    said = findings(measured).comparisons
    truth = [effects[one.b] / effects[one.a] for one in said]
    last = next(one for one in said if (one.a, one.b) == (0, its.candidates - 1))
    slow = [(one.p99, true) for one, true in zip(said, truth, strict=True) if one.p99 is not None]
    verdicts = [last.verdict] if effect != 1 else [one.verdict for one in said]
    return Trial(
        machine,
        effect,
        wrong=any(not _holds(one.time, true) for one, true in zip(said, truth, strict=True)),
        excludes=any(not _holds(one.time, 1) for one in said),
        verdict=next((one for one in ("faster", "slower", "undecided") if one in verdicts), "same"),
        ratio=last.time.ratio,
        floor=last.floor,
        rounds=number,
        p99_wrong=any(not _holds(one, true) for one, true in slow) if slow else None,
        p99_ratio=last.p99.ratio if last.p99 else None,
        p99_half_width=math.log(last.p99.high / last.p99.ratio) if last.p99 else None,
        plain_wrong=_plain_wrong(Noise(its, seed), effect),
    )


def _holds(one: Estimate, true: float) -> bool:
    return one.low <= true <= one.high


def _measured(candidates: int, owners: Sequence[int], blocks: Sequence[Block], seed: int) -> Measured:
    request = Request("made up", "", 0, True, 90.0, 0.02, "auto", False, 1, seed)
    return Measured(
        complete=True,
        request=request,
        environment=cast(Environment, None),  # nothing follows from it
        cases=(Case("", {}),),
        candidates=tuple(Candidate(str(one), "cpu", "ok") for one in range(candidates)),
        processes=tuple(Process(owner, 1, "none", 0.0, 0.0, (0.0,)) for owner in owners),
        blocks=tuple(blocks),
        notes=(),
        rules={},
    )


def _plain_wrong(noise: Noise, effect: float) -> bool:
    """Whether the 95 % interval of a t-test over the runs of one process each leaves out the true ratio."""
    run_s = noise.machine.run_s
    sides = [noise.block(run_s * times * float(noise.luck(1)[0]), PLAIN_S) for times in (1.0, effect)]
    means = [np.mean(side) for side in sides]
    errors = [np.var(side, ddof=1) / len(side) for side in sides]
    error = math.sqrt(errors[0] * effect * effect + errors[1])
    return bool(abs(means[1] - effect * means[0]) > 1.96 * error)


def trials(machines: Sequence[str], count: int, seed: int) -> Iterator[Trial]:
    """Run `count` trials of each machine without a difference, and a quarter as many with each of the others."""
    asked = [
        (machine, effect, seed * 10_000_000 + place * 1_000_000 + round(effect * 100) * 10_000 + number)
        for number in range(count)
        for place, machine in enumerate(machines)
        for effect in EFFECTS
        if effect == 1 or number % 4 == 0
    ]
    with ProcessPoolExecutor() as pool:
        yield from pool.map(trial, *zip(*asked, strict=True), chunksize=8)


def rows(found: Sequence[Trial]) -> list[dict[str, Any]]:
    """Count, machine by machine and effect by effect."""
    places: dict[tuple[str, float], list[Trial]] = {}
    for one in found:
        places.setdefault((one.machine, one.effect), []).append(one)
    return [_row(machine, effect, its) for (machine, effect), its in sorted(places.items(), key=_order)]


def _order(item: tuple[tuple[str, float], object]) -> tuple[int, float]:
    (machine, effect), _ = item
    return list(MACHINES).index(machine), effect


def _row(machine: str, effect: float, its: Sequence[Trial]) -> dict[str, Any]:
    slow = [one for one in its if one.p99_wrong is not None]
    verdicts: Mapping[str, int] = {
        said: sum(one.verdict == said for one in its) for said in ("faster", "slower", "same", "undecided")
    }
    return {
        "machine": machine,
        "words": MACHINES[machine].words,
        "effect": effect,
        "trials": len(its),
        "wrong": sum(one.wrong for one in its),
        "excludes": sum(one.excludes for one in its),
        **verdicts,
        "rounds": round(statistics.fmean(one.rounds for one in its), 2),
        "ratio": round(statistics.median(one.ratio for one in its), 4),
        "floor": round(statistics.median(one.floor for one in its), 4),
        "p99_trials": len(slow),
        "p99_wrong": sum(bool(one.p99_wrong) for one in slow),
        "p99_ratio": _middle(one.p99_ratio for one in its),
        "p99_half_width": _middle(one.p99_half_width for one in its),
        "plain_wrong": sum(one.plain_wrong for one in its),
    }


def _middle(values: Iterable[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return round(statistics.median(known), 4) if known else None
