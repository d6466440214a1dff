"""What is not the same about two benchmarks, and what cannot be compared for that reason?

Of another model, other inputs or another timer nothing can be compared. On another machine no times can be, and how
candidates stand beside each other is shown, but not judged: whatever changed may be the machine's doing. Nor is it
judged where others kept the machine busy, since they slow one candidate more than another, and not the same one every
time. Versions, settings and the state of the machine are what one may want to compare; they are listed.
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
    "page_cache": "page cache",
    "git_commit": "the commit",
    "git_changed": "whether files of the commit were changed",
}
NEIGHBOURS: Mapping[str, tuple[str, float]] = {
    "others_cores": ("CPUs that other processes kept busy", OTHERS),
    "stolen_cores": ("CPUs that the host gave to others", STOLEN),
}
"""What others took, and which share of all CPUs they may take."""
GPU = ("name", "memory.total")
"""What makes it another GPU. How it was set up is only listed."""
GPU_STATE = ("driver_version", "clocks.max.sm", "power.limit")
SETTINGS: Mapping[str, str] = {"budget_s": "the budget in seconds", "smallest_effect": "the smallest effect"}
LOAD_APART = 0.5
"""From which difference on the load of the last minute is worth a line."""


@dataclass(frozen=True, slots=True)
class Differs:
    """Something that is not the same."""

    what: str
    before: str
    now: str
    forbids: Forbids
    """What cannot be compared for that reason."""


def differs(before: Measured, now: Measured) -> Iterator[Differs]:
    """Yield what is not the same, the gravest first."""
    yield from _fields(TIMED, before.request, now.request, "everything")
    digests = {one.name: one.inputs_sha256 for one in before.cases}
    for case in now.cases:
        said = digests.get(case.name, case.inputs_sha256)
        if said != case.inputs_sha256:
            what = f"the inputs of {case.name}" if case.name else "the inputs"
            yield Differs(what, said[:12], case.inputs_sha256[:12], "this case")
    yield from _fields(MACHINE, before.environment, now.environment, "times")
    gpus = [[_picked(gpu, GPU) for gpu in side.environment.gpus_before] for side in (before, now)]
    if gpus[0] != gpus[1]:
        said, found = ("; ".join(map(_listed, side)) or "none" for side in gpus)
        yield Differs("the GPUs", said, found, "times")
    for at, pair in enumerate(zip(before.environment.gpus_before, now.environment.gpus_before, strict=False)):
        yield from _entries(f"GPU {at}: ", *(_picked(gpu, GPU_STATE) for gpu in pair))
    yield from _busy(before, now)
    yield from _fields(STATE, before.environment, now.environment, "nothing")
    yield from _load(before, now)
    yield from _entries("", before.environment.versions, now.environment.versions)
    yield from _entries("", before.environment.variables, now.environment.variables)
    yield from _fields(SETTINGS, before.request, now.request, "nothing")
    yield from _entries("rule: ", before.rules, now.rules)
    rows = {one.target: one for one in before.candidates}
    for row in now.candidates:
        if row.target in rows:
            yield from _candidate(rows[row.target], row)
    if (before.complete, now.complete) != (True, True):
        yield Differs("came to its end", _text(before.complete), _text(now.complete), "nothing")


def _fields(names: Mapping[str, str], before: object, now: object, forbids: Forbids) -> Iterator[Differs]:
    for name, what in names.items():
        said, found = getattr(before, name), getattr(now, name)
        if said != found:
            short = slice(12) if name.endswith("sha256") else slice(None)
            yield Differs(what, _text(said)[short], _text(found)[short], forbids)


def _busy(before: Measured, now: Measured) -> Iterator[Differs]:
    """Find others that kept one of the machines so busy that a change may be their doing."""
    for name, (what, most) in NEIGHBOURS.items():
        taken = [getattr(one.environment, name) for one in (before, now)]
        cpus = [one.environment.logical_cpus for one in (before, now)]
        if any((cores or 0.0) > most * count for cores, count in zip(taken, cpus, strict=True)):
            said, found = (
                "not known" if cores is None else f"{cores:.2g} of {count}"
                for cores, count in zip(taken, cpus, strict=True)
            )
            yield Differs(what, said, found, "verdicts")


def _load(before: Measured, now: Measured) -> Iterator[Differs]:
    said, found = (next(iter(one.environment.load_before), None) for one in (before, now))
    if said is not None and found is not None and abs(said - found) >= LOAD_APART:
        yield Differs("the load before it began", f"{said:.2g}", f"{found:.2g}", "nothing")


def _picked(gpu: Mapping[str, str], names: Sequence[str]) -> Mapping[str, str]:
    return {name: gpu[name] for name in names if name in gpu}


def _listed(facts: Mapping[str, str]) -> str:
    return ", ".join(facts.values())


def _candidate(before: Candidate, now: Candidate) -> Iterator[Differs]:
    name = now.target
    if before.provider != now.provider:
        yield Differs(f"{name}: provider", _text(before.provider), _text(now.provider), "nothing")
    if before.summary != now.summary:
        yield Differs(f"{name}: nodes", before.summary, now.summary, "nothing")
    settings = [{str(one.get("key")): one.get("value") for one in side.effective} for side in (before, now)]
    yield from _entries(f"{name}: ", *settings)


def _entries(prefix: str, before: Mapping[str, object], now: Mapping[str, object]) -> Iterator[Differs]:
    for key in {**before, **now}:
        if before.get(key) != now.get(key):
            yield Differs(f"{prefix}{key}", _text(before.get(key)), _text(now.get(key)), "nothing")


def _text(value: object) -> str:
    match value:
        case None | "":
            return "nothing"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)
