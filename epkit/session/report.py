"""Report what was tried, what was chosen, where the nodes run, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from epkit._system.text import format_count
from epkit.runtime.placement import Share
from epkit.session.plan import Plan, Step

if TYPE_CHECKING:
    from epkit.session.capture import Capture

Outcome: TypeAlias = Literal[
    "active",
    "registered, took no node",
    "registered",
    "unusable",
    "same runtime provider",
    "failed to open",
    "failed to warm up",
]
CacheOutcome: TypeAlias = Literal["hit", "built", "miss", "off", "failed"]


@dataclass(frozen=True, slots=True)
class Tried:
    """One candidate of the chain and what became of it."""

    provider: str
    outcome: Outcome
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class WarmupRow:
    """One shape that was warmed up: seconds of the first run and, with two runs or more, of the last."""

    shapes: Mapping[str, tuple[int, ...]]
    runs: int
    """All that were done, the timed ones included."""
    first_s: float
    steady_s: float | None
    steady: bool | None = None
    """Whether the runs came to rest; None where no provider asked for that."""
    peak_bytes: int | None = None
    """The most memory that the process has held by then, on the host; None where the system does not tell."""
    grew_bytes: int | None = None
    """By how much this shape raised it."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class CacheRow:
    """What one provider that compiles had to do with the cache.

    `bytes` are those of the cached files, `seconds` what building them took: opening and warm-up.
    """

    provider: str
    outcome: CacheOutcome
    reason: str = ""
    folder: str = ""
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """What epkit knows about a session. All times are in seconds of wall clock."""

    target: str
    why: str
    model: str
    provider: str | None
    placement: Mapping[str, Share]
    tried: tuple[Tried, ...]
    warmup: tuple[WarmupRow, ...] = ()
    warmup_why: str = ""
    graph: Capture | None = None
    """Whether graphs are captured, where the target asks for it."""
    cache: tuple[CacheRow, ...] = ()
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the exporter of the model wrote beside the graph."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    placement_unknown: str = ""
    """Why it is not known where the nodes run; empty where it is. Then `placement` is empty, and `provider` None."""

    def summary(self) -> str:
        """Say in one line what runs where: "openvino takes 98 % of 123 nodes, cpu 2 %"."""
        if self.placement_unknown:
            return f"which provider runs the nodes is not known: {self.placement_unknown}"
        if self.provider is None:
            return "no provider has a node: the model folds to constants or passes its inputs through"
        total = sum(share.nodes for share in self.placement.values())
        shares = [f"{name} {_percent(share)}" for name, share in self.placement.items() if name != self.provider]
        rest = f", {', '.join(shares)}" if shares else ""
        return f"{self.provider} takes {_percent(self.placement[self.provider])} of {format_count(total, 'node')}{rest}"

    def share(self, provider: str) -> str:
        """Return the share of one provider for a person: "98.4 %", or nothing."""
        return _percent(self.placement[provider]) if provider in self.placement else ""

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)


def _percent(share: Share) -> str:
    # Never round a share up to everything.
    return "100 %" if share.share == 1 else f"{min(share.share * 100, 99.9):.3g} %"


def passed_over(step: Step) -> Tried:
    """Return the row of a candidate that the plan does not open."""
    outcome: Outcome = "unusable" if step.decision == "unusable" else "same runtime provider"
    return Tried(step.candidate.name, outcome, step.reason, step.hint)


def tried(
    plan: Plan, dropped: Mapping[str, Tried], placed: Mapping[str, Share], unknown: str = ""
) -> tuple[Tried, ...]:
    """Return a row for each candidate of the chain, in its order; `unknown` says why `placed` is."""
    rows = []
    for step in plan.steps:
        name = step.candidate.name
        if name in dropped:
            rows.append(dropped[name])
        elif name in placed:
            operators = ", ".join(list(placed[name].operators)[:6])
            rows.append(Tried(name, "active", f"took {format_count(placed[name].nodes, 'node')}: {operators}"))
        elif step.decision != "open":
            rows.append(passed_over(step))
        elif unknown:
            rows.append(Tried(name, "registered", unknown))
        else:
            why = "other providers of the chain took every node" if placed else "the model has no node"
            rows.append(Tried(name, "registered, took no node", why))
    return tuple(rows)
