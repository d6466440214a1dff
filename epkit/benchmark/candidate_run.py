"""Who takes part in a benchmark, and what is known of it so far?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from epkit._system import platform
from epkit.benchmark.document import Candidate, Process, Warmup
from epkit.benchmark.operators.profile import Operators
from epkit.benchmark.process import Fell, Reply, Runner
from epkit.parity.agreement import Agreement
from epkit.session.fault import Fault
from epkit.session.request import PlannedTarget
from epkit.session.settings import list_settings


@dataclass(slots=True)
class Contender:
    """One candidate, and its processes. What goes wrong becomes its `fault`; it is asked for nothing after that."""

    place: int
    """Among the candidates."""
    name: str
    provider: str | None
    request: Mapping[str, Any]
    """What a process of its own is told, to open it."""
    compiles: bool = False
    """Whether its provider may keep what it compiles, and start from that."""
    planned: PlannedTarget | None = None
    fault: Fault | None = None
    opened: Reply = field(default_factory=dict)
    """What its first process said."""
    warmups: Sequence[Mapping[str, Any]] = ()
    """How that one warmed up, case by case."""
    starting_s: float = 0.0
    """What starting a process and warming it up took, alone on the machine."""
    adding_s: float = 0.0
    """What one more process adds to starting all of them, a few at the same time."""
    agreements: tuple[Agreement | None, ...] = ()
    operators: Operators | None = None
    notes: tuple[str, ...] = ()
    runners: list[Runner] = field(default_factory=list)
    """Its processes that are alive."""
    places: list[int] = field(default_factory=list)
    """Where these stand in the list of all processes."""

    @property
    def takes_part(self) -> bool:
        """Whether it is measured, beside the others."""
        return self.fault is None and self.agrees

    @property
    def agrees(self) -> bool:
        """Whether its outputs are those of the reference."""
        return all(one is None or one.agree for one in self.agreements)

    @property
    def run_s(self) -> float:
        """What a run takes when it is warm, all cases together."""
        return float(sum(one["run_s"] for one in self.warmups))

    @property
    def on_one_core(self) -> bool:
        """Whether the thread that calls does all of the work."""
        return bool(self.warmups) and all(one["alone"] for one in self.warmups)

    @property
    def settled(self) -> Sequence[Mapping[str, int]] | None:
        """The sizes of the dimensions that nobody gave, case by case; None where none are known to suit the model."""
        sizes = [feed["assumed"] for feed in self.request.get("feeds", ())]
        return None if not sizes or None in sizes else sizes

    def settle(self, sizes: Sequence[Mapping[str, int]]) -> None:
        """Tell all further processes which sizes the dimensions have that nobody gave, case by case."""
        feeds = self.request.get("feeds", ())
        settled = [{**feed, "assumed": assumed} for feed, assumed in zip(feeds, sizes, strict=True)]
        self.request = {**self.request, "feeds": settled}

    def start(self) -> Runner | None:
        """Start a process and ask it to open the model; None when that cannot be."""
        with self.blamed():
            runner = Runner(self.name)
            self.runners.append(runner)
            runner.ask("open", **self.request)
            return runner
        return None

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Take what goes wrong inside as the fault of this one, and end its processes."""
        try:
            yield
        except Fell as fell:
            self.fault = fell.fault
            self.end()

    def end(self) -> None:
        """End its processes."""
        for one in self.runners:
            one.end()
        self.runners, self.places = [], []

    def row(self) -> Candidate:
        """Describe it as the document does."""
        shown: tuple[Mapping[str, Any], ...] = ()
        if self.planned is not None:
            settings = list_settings(self.planned.plan, platform.core_limit())
            shown = tuple({"key": one.key, "value": one.value, "origin": one.origin} for one in settings)
        row = Candidate(
            self.name,
            self.opened.get("provider", self.provider),
            "ok",
            summary=self.opened.get("summary", ""),
            placement=self.opened.get("placement"),
            agreements=self.agreements,
            operators=self.operators,
            effective=shown,
            notes=(*self.opened.get("notes", ()), *self.notes),
        )
        if self.fault is not None:
            return replace(row, status=self.fault.status, reason=self.fault.reason, hint=self.fault.hint)
        if not self.agrees:
            wrong = next(one for one in self.agreements if one is not None and not one.agree)
            hint = f"epkit compare MODEL -t {wrong.reference} -t {self.name}; --tolerance measures it all the same"
            return replace(row, status="differs", reason=wrong.told, hint=hint)
        return row

    def process(self, round_: int, opened: Reply, warmed: Reply, finished: Reply) -> Process:
        """Describe one of its processes as the document does."""
        return Process(
            candidate=self.place,
            round=round_,
            cache="none" if not self.compiles else "warm" if "hit" in opened["cache"] else "cold",
            import_s=opened["import_s"],
            open_s=opened["open_s"],
            first_run_s=tuple(opened["first_run_s"]),
            warmups=tuple(Warmup(one["runs"], one["seconds"], one["steady"]) for one in warmed.get("warmups", ())),
            peak_rss_bytes=finished.get("peak_rss_bytes"),
            device_bytes=finished.get("device_bytes"),
        )


def of_targets(planned: Sequence[PlannedTarget], request: Mapping[str, Any]) -> list[Contender]:
    """Let targets take part; `request` is what all of them are told."""
    found = []
    for place, one in enumerate(planned):
        first = one.plan.target.first
        compiles = first.provider.caching.compiles != "never" and one.plan.target.cache is not False
        told = {**request, **one.to_json(), "keep": request["keep"] if compiles else ""}
        found.append(Contender(place, one.name, first.name, told, compiles, one, one.refused))
    return found


def of_calls(calls: Mapping[str, str], request: Mapping[str, Any]) -> list[Contender]:
    """Let callables take part, each given as the file and the function that makes it: "arms.py:plain"."""
    told = [(name, {**request, "call": where}) for name, where in calls.items()]
    return [Contender(place, name, None, one) for place, (name, one) in enumerate(told)]
