"""Check a document for numbers that are impossible, and measurements that contradict each other."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from itertools import pairwise
from typing import Annotated, TypeAlias, get_args, get_origin, get_type_hints

from epkit.benchmark.document import Benchmark, Candidate, Findings, Measured
from epkit.benchmark.limits import IndexOf, Limits
from epkit.errors import ConfigError

Value: TypeAlias = str | float | bool | None


@dataclass(frozen=True, slots=True)
class Fault:
    """A value in a document that is wrong."""

    path: str
    """Its path: `findings.comparisons[0].time.ratio`."""
    said: Value
    """What the document says."""
    found: Value
    """The right value; of what cannot be recomputed, what is wrong with it, in words."""


def impossible(found: Measured | Findings, measured: Measured) -> Sequence[Fault]:
    """Return the numbers that are outside of their limits, and the indices of nothing."""
    if isinstance(found, Findings):
        return [*_check(found, Findings, "findings"), *dangling(found, measured)]
    return [*_check(found, Measured, "measured"), *dangling(found, measured), *_check_lists(found)]


def dangling(found: Measured | Findings, measured: Measured) -> Iterator[Fault]:
    """Find indices of cases, candidates and processes that are not in the document."""
    if isinstance(found, Measured):
        yield from _dangling_in("measured.processes", found.processes, measured)
        yield from _dangling_in("measured.blocks", found.blocks, measured)
        return
    yield from _dangling_in("findings.starts", found.starts, measured)
    yield from _dangling_in("findings.figures", found.figures, measured)
    yield from _dangling_in("findings.comparisons", found.comparisons, measured)
    if len(found.winners) != len(measured.cases):
        yield Fault("findings.winners", len(found.winners), f"{len(measured.cases)}: one for each case")
    for at, winner in enumerate(found.winners):
        if winner is not None and not 0 <= winner < len(measured.candidates):
            yield Fault(f"findings.winners[{at}]", winner, _no_index(len(measured.candidates), "candidates"))


def _dangling_in(path: str, rows: Sequence[object], measured: Measured) -> Iterator[Fault]:
    for at, row in enumerate(rows):
        for field, of in _indices(type(row)).items():  # type: ignore[arg-type]
            place, count = getattr(row, field), len(getattr(measured, of))
            if not 0 <= place < count:
                yield Fault(f"{path}[{at}].{field}", place, _no_index(count, of))


def _no_index(count: int, name: str) -> str:
    return f"there are {count} {name}, counted from 0"


@cache
def _indices(kind: Hashable) -> Mapping[str, str]:
    parts = [(name, part) for name, its_kind in _fields(kind).items() for part in get_args(its_kind)]
    return {name: part.name for name, part in parts if isinstance(part, IndexOf)}


def check_usable(benchmark: Benchmark, name: str, file: object) -> None:
    """Raise ConfigError for a document that cannot be drawn or compared."""
    wrong = [*impossible(benchmark.measured, benchmark.measured), *impossible(benchmark.findings, benchmark.measured)]
    if wrong:
        reason = f"{wrong[0].path} is {wrong[0].said}, where there should be: {wrong[0].found}"
        raise ConfigError(f"{name} is damaged: {reason}", hint=f"epkit bench verify {file}")


def contradictions(measured: Measured) -> Sequence[Fault]:
    """Return what contradicts itself in measurements in which nothing is impossible."""
    return [*_candidates(measured), *_blocks(measured)]


@cache
def _fields(kind: Hashable) -> Mapping[str, object]:
    return get_type_hints(kind, include_extras=True)


def _check(value: object, kind: object, path: str) -> Iterator[Fault]:
    """Check every number in a value against the limits in its type."""
    if get_origin(kind) is Annotated:
        kind, *limits = get_args(kind)
        for limit in limits:
            if isinstance(limit, Limits) and isinstance(value, int | float) and not limit.include(value):
                yield Fault(path, value, limit.text)
    if isinstance(value, float) and not math.isfinite(value):
        yield Fault(path, str(value), "a number")
    elif is_dataclass(value):
        for name, its_kind in _fields(type(value)).items():  # type: ignore[arg-type]
            yield from _check(getattr(value, name), its_kind, f"{path}.{name}")
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _check(part, object, f"{path}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        its_kind = next(iter(get_args(kind)), object)
        for at, part in enumerate(value):
            yield from _check(part, its_kind, f"{path}[{at}]")


def _check_lists(measured: Measured) -> Iterator[Fault]:
    """Find lists that are too short or too long."""
    cases = len(measured.cases)
    if not cases:
        yield Fault("measured.cases", 0, "at least one case")
    for at, process in enumerate(measured.processes):
        for name, by_case in (("first_run_s", process.first_run_s), ("warmups", process.warmups)):
            if len(by_case) > cases:
                path = f"measured.processes[{at}].{name}"
                yield Fault(path, len(by_case), f"{cases} at most: one for each case")
    for at, block in enumerate(measured.blocks):
        if not block.samples_s:
            yield Fault(f"measured.blocks[{at}].samples_s", 0, "at least one run")
        if not 0 <= block.lead < max(1, len(block.samples_s)):
            yield Fault(f"measured.blocks[{at}].lead", block.lead, "fewer runs than there are")


def _candidates(measured: Measured) -> Iterator[Fault]:
    """Find candidates whose status contradicts their outputs, and agreements with no candidate."""
    names = {candidate.target for candidate in measured.candidates}
    for at, candidate in enumerate(measured.candidates):
        path = f"measured.candidates[{at}]"
        if len(candidate.agreements) not in (0, len(measured.cases)):
            needed = f"one for each of the {len(measured.cases)} cases"
            yield Fault(f"{path}.agreements", len(candidate.agreements), needed)
        for number, agreement in enumerate(candidate.agreements):
            if agreement is not None and agreement.reference not in names:
                yield Fault(f"{path}.agreements[{number}].reference", agreement.reference, "no candidate is called so")
        yield from _status(candidate, f"{path}.status")


def _status(candidate: Candidate, path: str) -> Iterator[Fault]:
    wrong = [agreement.told for agreement in candidate.agreements if agreement is not None and not agreement.agree]
    if candidate.status == "ok" and wrong:
        yield Fault(path, "ok", f"differs: {wrong[0]}")
    if candidate.status == "differs" and not wrong:
        yield Fault(path, "differs", "its outputs agree in every case")


def _blocks(measured: Measured) -> Iterator[Fault]:
    """Find blocks that contradict their process, their pair or their order.

    Blocks are in the order in which they ran, so those of a pair are adjacent, of one pass, case and core, and of a
    candidate each.
    """
    first: dict[tuple[int, int], int] = {}
    seen: set[tuple[int, int, int]] = set()
    for at, block in enumerate(measured.blocks):
        path, process = f"measured.blocks[{at}]", measured.processes[block.process]
        if process.round != block.round:
            yield Fault(f"{path}.round", block.round, f"process {block.process} is one of round {process.round}")
        before = first.setdefault((block.round, block.pair), at)
        for name in ("pass_number", "case", "core"):
            said, other = getattr(block, name), getattr(measured.blocks[before], name)
            if said != other:
                yield Fault(f"{path}.{name}", said, f"{other} in blocks[{before}] of the same pair")
        key = block.round, block.pair, process.candidate
        if key in seen:
            yield Fault(f"{path}.process", block.process, f"candidate {process.candidate} is paired with itself")
        seen.add(key)
    over: set[tuple[int, int]] = set()
    for at, (before_it, block) in enumerate(pairwise(measured.blocks), start=1):
        if (block.round, block.pass_number) < (before_it.round, before_it.pass_number):
            order = f"after pass {before_it.pass_number} of round {before_it.round}"
            yield Fault(f"measured.blocks[{at}].pass_number", block.pass_number, order)
        if (block.round, block.pair) != (before_it.round, before_it.pair):
            over.add((before_it.round, before_it.pair))
            if (block.round, block.pair) in over:
                yield Fault(f"measured.blocks[{at}].pair", block.pair, "it was over: others have run since")
