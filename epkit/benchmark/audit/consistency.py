"""Can it have happened as a document says?

What was measured cannot be worked out again. But it has to fit together: what is named is there, whoever met met once,
and nothing took less than no time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from typing import TypeAlias

from epkit.benchmark.document import Benchmark, Findings, Measured
from epkit.parity.agreement import Agreement

SHORTEST_S, LONGEST_S = 1e-12, 1e12
"""Between these lies whatever a run can take."""

Value: TypeAlias = str | float | bool | None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in a document that does not hold."""

    path: str
    """Where it stands: `findings.comparisons[0].time.ratio`."""
    said: Value
    found: Value
    """What it should be; of what cannot be worked out, what is wrong with it, in words."""


def broken(measured: Measured) -> Sequence[Fault]:
    """Return what keeps anything from being worked out: numbers that are none, and places in lists that are not."""
    return [*_numbers(measured, "measured"), *_places(measured), *_signs(measured)]


def unusable(found: Benchmark) -> Sequence[Fault]:
    """Return what keeps a document from being drawn, or compared with another."""
    return [*broken(found.measured), *_numbers(found.findings, "findings"), *_ratios(found.findings)]


def contradictions(measured: Measured) -> Sequence[Fault]:
    """Return what contradicts itself in measurements of which `broken` found nothing to say."""
    return [*_candidates(measured), *_processes(measured), *_meetings(measured), *_order(measured)]


def _numbers(value: object, path: str) -> Iterator[Fault]:
    """Find what is NaN or infinite, wherever it stands."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield Fault(path, str(value), "a number")
    elif is_dataclass(value):
        for one in fields(value):
            yield from _numbers(getattr(value, one.name), f"{path}.{one.name}")
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _numbers(part, f"{path}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for at, part in enumerate(value):
            yield from _numbers(part, f"{path}[{at}]")


def _places(measured: Measured) -> Iterator[Fault]:
    """Find places in the lists of cases, candidates and processes where nothing stands."""
    cases, candidates, processes = len(measured.cases), len(measured.candidates), len(measured.processes)
    if not cases:
        yield Fault("measured.cases", 0, "at least one case")
    for at, process in enumerate(measured.processes):
        path = f"measured.processes[{at}]"
        yield from _below(f"{path}.candidate", process.candidate, candidates, "candidates")
        for name, of_cases in (("first_run_s", process.first_run_s), ("warmups", process.warmups)):
            if len(of_cases) > cases:
                yield Fault(f"{path}.{name}", len(of_cases), f"{cases} at most: one for each case")
    for at, block in enumerate(measured.blocks):
        yield from _below(f"measured.blocks[{at}].process", block.process, processes, "processes")
        yield from _below(f"measured.blocks[{at}].case", block.case, cases, "cases")


def _below(path: str, place: int, count: int, what: str) -> Iterator[Fault]:
    if not 0 <= place < count:
        yield Fault(path, place, f"there are {count} {what}, counted from 0")


def _signs(measured: Measured) -> Iterator[Fault]:
    """Find what is 0 or below and cannot be."""
    request = measured.request
    yield from _above("measured.request.smallest_effect", request.smallest_effect)
    yield from _above("measured.request.budget_s", request.budget_s)
    yield from _above("measured.request.callers", request.callers)
    for at, process in enumerate(measured.processes):
        path = f"measured.processes[{at}]"
        yield from _not_below(f"{path}.round", process.round)
        yield from _not_below(f"{path}.import_s", process.import_s)
        yield from _not_below(f"{path}.open_s", process.open_s)
        yield from _above(f"{path}.peak_rss_bytes", process.peak_rss_bytes)
        yield from _not_below(f"{path}.device_bytes", process.device_bytes)
        for number, first in enumerate(process.first_run_s):
            yield from _not_below(f"{path}.first_run_s[{number}]", first)
        for number, warmup in enumerate(process.warmups):
            yield from _not_below(f"{path}.warmups[{number}].runs", warmup.runs)
            yield from _not_below(f"{path}.warmups[{number}].seconds", warmup.seconds)
    for at, block in enumerate(measured.blocks):
        path = f"measured.blocks[{at}]"
        for name, count in (("round", block.round), ("sweep", block.sweep), ("meeting", block.meeting)):
            yield from _not_below(f"{path}.{name}", count)
        yield from _not_below(f"{path}.cpu_s", block.cpu_s)
        if not block.samples_s:
            yield Fault(f"{path}.samples_s", 0, "at least one run")
        if not 0 <= block.lead < max(1, len(block.samples_s)):
            yield Fault(f"{path}.lead", block.lead, "fewer runs than there are")
        for number, sample in enumerate(block.samples_s):
            yield from _seconds(f"{path}.samples_s[{number}]", sample)


def _ratios(findings: Findings) -> Iterator[Fault]:
    """Find ratios that are 0 or below, and a confidence that is none."""
    for at, one in enumerate(findings.comparisons):
        for name, estimate in (("time", one.time), ("p99", one.p99)):
            for part in ("ratio", "low", "high") if estimate is not None else ():
                yield from _above(f"findings.comparisons[{at}].{name}.{part}", getattr(estimate, part))
    if not 0 < findings.level < 1:
        yield Fault("findings.level", findings.level, "between 0 and 1")


def _above(path: str, value: float | None) -> Iterator[Fault]:
    if value is not None and value <= 0:
        yield Fault(path, value, "more than 0")


def _seconds(path: str, value: float) -> Iterator[Fault]:
    yield from _above(path, value)
    if value > 0 and not SHORTEST_S < value < LONGEST_S:
        yield Fault(path, value, f"between {SHORTEST_S:g} and {LONGEST_S:g} s")


def _not_below(path: str, value: float | None) -> Iterator[Fault]:
    if value is not None and value < 0:
        yield Fault(path, value, "0 or more")


def _candidates(measured: Measured) -> Iterator[Fault]:
    """Find candidates whose status is not what their outputs say, and agreements with nobody."""
    names = {one.target for one in measured.candidates}
    for at, candidate in enumerate(measured.candidates):
        path = f"measured.candidates[{at}]"
        agreements = [one for one in candidate.agreements if one is not None]
        if candidate.agreements and len(candidate.agreements) != len(measured.cases):
            said = len(candidate.agreements)
            yield Fault(f"{path}.agreements", said, f"one for each of the {len(measured.cases)} cases")
        for number, one in enumerate(candidate.agreements):
            if one is not None and one.reference not in names:
                yield Fault(f"{path}.agreements[{number}].reference", one.reference, "no candidate is called so")
        wrong = _disagreeing(agreements)
        if candidate.status == "ok" and wrong:
            yield Fault(f"{path}.status", "ok", f"differs: {wrong.told}")
        if candidate.status == "differs" and not wrong:
            yield Fault(f"{path}.status", "differs", "its outputs agree in every case")


def _disagreeing(agreements: Sequence[Agreement]) -> Agreement | None:
    return next((one for one in agreements if not one.agree), None)


def _processes(measured: Measured) -> Iterator[Fault]:
    """Find blocks of a process that had not started, or had ended."""
    for at, block in enumerate(measured.blocks):
        process = measured.processes[block.process]
        if process.round != block.round:
            yield Fault(
                f"measured.blocks[{at}].round", block.round, f"process {block.process} is one of round {process.round}"
            )


def _meetings(measured: Measured) -> Iterator[Fault]:
    """Find blocks of a meeting that were not in the same place at the same time, or the same candidate twice."""
    first: dict[tuple[int, int], int] = {}
    present: set[tuple[int, int, int]] = set()
    for at, block in enumerate(measured.blocks):
        key = (block.round, block.meeting)
        before = first.setdefault(key, at)
        one = measured.blocks[before]
        for name, said, other in (
            ("sweep", block.sweep, one.sweep),
            ("case", block.case, one.case),
            ("core", block.core, one.core),
        ):
            if said != other:
                yield Fault(f"measured.blocks[{at}].{name}", said, f"{other} in blocks[{before}] of the same meeting")
        candidate = measured.processes[block.process].candidate
        if (*key, candidate) in present:
            yield Fault(f"measured.blocks[{at}].process", block.process, f"candidate {candidate} meets itself")
        present.add((*key, candidate))


def _order(measured: Measured) -> Iterator[Fault]:
    """Find rounds and sweeps that go backwards, and meetings that somebody else came between.

    Blocks stand in the order in which they ran, so those of a meeting stand together.
    """
    over: set[tuple[int, int]] = set()
    for at, (one, other) in enumerate(pairwise(measured.blocks), start=1):
        if (other.round, other.sweep) < (one.round, one.sweep):
            told = f"after sweep {one.sweep} of round {one.round}"
            yield Fault(f"measured.blocks[{at}].sweep", other.sweep, told)
        before, now = (one.round, one.meeting), (other.round, other.meeting)
        if before != now:
            over.add(before)
            if now in over:
                yield Fault(f"measured.blocks[{at}].meeting", other.meeting, "it was over: others have run since")
