"""What is not the same about two benchmarks, and what cannot be compared for that reason?

Of another model, other inputs or another timer nothing can be compared. On another machine no times can be, and how
candidates stand beside each other is shown, but not judged: whatever changed may be the machine's doing. Versions,
settings and the state of the machine are what one may want to compare; they are listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from epkit.benchmark.document import Candidate, Measured

Forbids: TypeAlias = Literal["everything", "this case", "times", "nothing"]

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
STATE: Mapping[str, str] = {"system": "the system", "governor": "the governor of the clock", "page_cache": "page cache"}
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
    yield from _fields(STATE, before.environment, now.environment, "nothing")
    yield from _load(before, now)
    yield from _entries("", before.environment.versions, now.environment.versions)
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


def _load(before: Measured, now: Measured) -> Iterator[Differs]:
    loads = [one.environment.load_before[:1] for one in (before, now)]
    if all(loads) and abs(loads[0][0] - loads[1][0]) >= LOAD_APART:
        yield Differs("the load before it began", f"{loads[0][0]:.2g}", f"{loads[1][0]:.2g}", "nothing")


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
