"""List what is not the same in two benchmarks, and what cannot be compared for that reason.

Of another model, other inputs or another way of timing nothing can be compared. On another machine no times can be, and
ratios of candidates are shown without a verdict: the machine may be why they changed. Nor are they judged where other
processes kept the machine busy, since that slows one candidate more than another, and not the same one every time.
Versions, settings and the state of the machine are what one may want to compare; they are listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from epkit.benchmark.audit.warnings import OTHERS, STOLEN
from epkit.benchmark.document import Candidate, Measured

Forbids: TypeAlias = Literal["everything", "this case", "times", "verdicts", "nothing"]

TIMED: Mapping[str, str] = {
    "model_sha256": "the model",
    "bound": "whether a binding is timed",
    "callers": "callers at the same time",
    "tolerance": "how far outputs may be apart",
}
MACHINE: Mapping[str, str] = {
    "cpu": "the processor",
    "cores": "usable cores",
    "logical_cpus": "logical CPUs",
    "limit": "the limit of cores",
    "memory_limit_bytes": "the limit of memory",
}
STATE: Mapping[str, str] = {
    "system": "the system",
    "allowed_cpus": "the CPUs that may be used",
    "memory_bytes": "the memory of the machine",
    "governor": "the governor of the clock",
    "turbo": "turbo",
    "git_commit": "the commit",
    "git_changed": "whether files of the commit were changed",
}
CPU_LOAD: Mapping[str, tuple[str, float]] = {
    "others_cores": ("CPUs that other processes kept busy", OTHERS),
    "stolen_cores": ("CPUs that the host gave to others", STOLEN),
}
"""What others used, and the share of all CPUs that they may use."""
GPU = ("name", "memory.total")
"""What makes it another GPU; its state is only listed."""
GPU_STATE = ("driver_version", "clocks.max.sm", "power.limit")
SETTINGS: Mapping[str, str] = {"budget_s": "the budget in seconds", "smallest_effect": "the smallest effect"}
LOAD_APART = 0.5
"""The difference from which on the load of the last minute is listed."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Something that is not the same."""

    what: str
    before: str
    now: str
    forbids: Forbids
    """What cannot be compared for that reason."""


def mismatches(before: Measured, now: Measured) -> Iterator[Mismatch]:
    """Yield what is not the same, the most important first."""
    yield from _fields(TIMED, before.request, now.request, "everything")
    digests = {case.name: case.inputs_sha256 for case in before.cases}
    for case in now.cases:
        said = digests.get(case.name, case.inputs_sha256)
        if said != case.inputs_sha256:
            what = f"the inputs of {case.name}" if case.name else "the inputs"
            yield Mismatch(what, said[:12], case.inputs_sha256[:12], "this case")
    first, second = before.environment, now.environment
    yield from _fields(MACHINE, first, second, "times")
    gpus = [[_only(GPU, gpu) for gpu in side.gpus_before] for side in (first, second)]
    if gpus[0] != gpus[1]:
        said, found = ("; ".join(", ".join(gpu.values()) for gpu in side) or "none" for side in gpus)
        yield Mismatch("the GPUs", said, found, "times")
    for at, pair in enumerate(zip(first.gpus_before, second.gpus_before, strict=False)):
        yield from _entries(f"GPU {at}: ", *(_only(GPU_STATE, gpu) for gpu in pair))
    yield from _busy(before, now)
    yield from _fields(STATE, first, second, "nothing")
    yield from _load(before, now)
    yield from _entries("", first.versions, second.versions)
    yield from _entries("", first.variables, second.variables)
    yield from _fields(SETTINGS, before.request, now.request, "nothing")
    yield from _entries("rule: ", before.rules, now.rules)
    rows = {candidate.target: candidate for candidate in before.candidates}
    for row in now.candidates:
        if row.target in rows:
            yield from _candidate(rows[row.target], row)
    if (before.complete, now.complete) != (True, True):
        yield Mismatch("finished", _text(before.complete), _text(now.complete), "nothing")


def _fields(names: Mapping[str, str], before: object, now: object, forbids: Forbids) -> Iterator[Mismatch]:
    for name, what in names.items():
        said, found = getattr(before, name), getattr(now, name)
        if said != found:
            short = slice(12) if name.endswith("sha256") else slice(None)
            yield Mismatch(what, _text(said)[short], _text(found)[short], forbids)


def _busy(before: Measured, now: Measured) -> Iterator[Mismatch]:
    """Find others that kept one of the machines so busy that they may be why a ratio changed."""
    for name, (what, most) in CPU_LOAD.items():
        used = [(getattr(side.environment, name), side.environment.logical_cpus) for side in (before, now)]
        if any((cores or 0.0) > most * cpus for cores, cpus in used):
            said, found = ("not known" if cores is None else f"{cores:.2g} of {cpus}" for cores, cpus in used)
            yield Mismatch(what, said, found, "verdicts")


def _load(before: Measured, now: Measured) -> Iterator[Mismatch]:
    said, found = (next(iter(side.environment.load_before), None) for side in (before, now))
    if said is not None and found is not None and abs(said - found) >= LOAD_APART:
        yield Mismatch("the load before it began", f"{said:.2g}", f"{found:.2g}", "nothing")


def _only(names: Sequence[str], gpu: Mapping[str, str]) -> Mapping[str, str]:
    return {name: gpu[name] for name in names if name in gpu}


def _candidate(before: Candidate, now: Candidate) -> Iterator[Mismatch]:
    name = now.target
    for what, said, found in (("provider", before.provider, now.provider), ("nodes", before.summary, now.summary)):
        if said != found:
            yield Mismatch(f"{name}: {what}", _text(said), _text(found), "nothing")
    settings = [{str(each.get("key")): each.get("value") for each in side.effective} for side in (before, now)]
    yield from _entries(f"{name}: ", *settings)


def _entries(prefix: str, before: Mapping[str, object], now: Mapping[str, object]) -> Iterator[Mismatch]:
    for key in {**before, **now}:
        if before.get(key) != now.get(key):
            yield Mismatch(f"{prefix}{key}", _text(before.get(key)), _text(now.get(key)), "nothing")


def _text(value: object) -> str:
    match value:
        case None | "":
            return "nothing"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)
