"""Hold one candidate of a running benchmark: its processes, and what they reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from epkit._system import platform
from epkit.benchmark.document import Candidate, Process, Warmup
from epkit.benchmark.operators.profile import Operators
from epkit.benchmark.process import Reply, WorkerFailed, WorkerProcess
from epkit.parity.agreement import Agreement
from epkit.session.fault import WorkerFault
from epkit.session.request import PlannedTarget
from epkit.session.settings import list_settings


@dataclass(slots=True)
class CandidateRun:
    """One candidate, and its processes. What goes wrong becomes its `fault`; it does not run after that."""

    place: int
    """Its index among the candidates."""
    name: str
    provider: str | None
    request: Mapping[str, Any]
    """What its processes are sent, to open the model."""
    compiles: bool = False
    """Whether its provider may keep what it compiles, and start from that."""
    planned: PlannedTarget | None = None
    fault: WorkerFault | None = None
    opened: Reply = field(default_factory=dict)
    """The reply of its first process to `open`."""
    warmups: Sequence[Mapping[str, Any]] = ()
    """The warm-up of that process, case by case."""
    starting_s: float = 0.0
    """The time to start and warm up a process, alone on the machine."""
    adding_s: float = 0.0
    """What one more process adds to starting all of them, a few at the same time."""
    agreements: tuple[Agreement | None, ...] = ()
    operators: Operators | None = None
    notes: tuple[str, ...] = ()
    workers: list[WorkerProcess] = field(default_factory=list)
    """Its processes that are alive."""
    places: list[int] = field(default_factory=list)
    """The index of each in the list of all processes."""

    @property
    def active(self) -> bool:
        """Whether it is measured."""
        return self.fault is None and self.agrees

    @property
    def agrees(self) -> bool:
        """Whether its outputs are those of the reference."""
        return all(agreement is None or agreement.agree for agreement in self.agreements)

    @property
    def run_s(self) -> float:
        """The time of a warm run, all cases together."""
        return float(sum(warmup["run_s"] for warmup in self.warmups))

    @property
    def on_one_core(self) -> bool:
        """Whether the thread that calls does all of the work."""
        return bool(self.warmups) and all(warmup["alone"] for warmup in self.warmups)

    @property
    def assumed_sizes(self) -> Sequence[Mapping[str, int]] | None:
        """The assumed sizes of dynamic dimensions, case by case; None before they are known to suit the model."""
        sizes = [feed["assumed"] for feed in self.request.get("feeds", ())]
        return None if not sizes or None in sizes else sizes

    def assume(self, sizes: Sequence[Mapping[str, int]]) -> None:
        """Set the assumed sizes for all further processes, case by case."""
        feeds = self.request.get("feeds", ())
        with_sizes = [{**feed, "assumed": assumed} for feed, assumed in zip(feeds, sizes, strict=True)]
        self.request = {**self.request, "feeds": with_sizes}

    def start(self) -> WorkerProcess | None:
        """Start a process that opens the model; None when it cannot be started."""
        with self.catch_fault():
            worker = WorkerProcess(self.name)
            self.workers.append(worker)
            worker.send("open", **self.request)
            return worker
        return None

    @contextmanager
    def catch_fault(self) -> Iterator[None]:
        """Record a failing worker as the fault of this candidate, and end its processes."""
        try:
            yield
        except WorkerFailed as error:
            self.fault = error.fault
            self.end()

    def end(self) -> None:
        """End its processes."""
        for worker in self.workers:
            worker.end()
        self.workers, self.places = [], []

    def row(self) -> Candidate:
        """Describe it for the document."""
        shown: tuple[Mapping[str, Any], ...] = ()
        if self.planned is not None:
            settings = list_settings(self.planned.plan, platform.core_limit())
            shown = tuple({"key": each.key, "value": each.value, "origin": each.origin} for each in settings)
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
            wrong = next(agreement for agreement in self.agreements if agreement is not None and not agreement.agree)
            hint = f"epkit compare MODEL -t {wrong.reference} -t {self.name}; --tolerance measures it all the same"
            return replace(row, status="differs", reason=wrong.told, hint=hint)
        return row

    def process(self, number: int, opened: Reply, warmed: Reply, finished: Reply) -> Process:
        """Describe a process of round `number` for the document."""
        return Process(
            candidate=self.place,
            round=number,
            cache="none" if not self.compiles else "warm" if "hit" in opened["cache"] else "cold",
            import_s=opened["import_s"],
            open_s=opened["open_s"],
            first_run_s=tuple(opened["first_run_s"]),
            warmups=tuple(Warmup(each["runs"], each["seconds"], each["steady"]) for each in warmed.get("warmups", ())),
            peak_rss_bytes=finished.get("peak_rss_bytes"),
            device_bytes=finished.get("device_bytes"),
        )


def from_targets(planned: Sequence[PlannedTarget], request: Mapping[str, Any]) -> list[CandidateRun]:
    """Make targets candidates; `request` is what the processes of all of them are sent."""
    candidates = []
    for place, each in enumerate(planned):
        first = each.plan.target.first
        compiles = first.provider.caching.compiles != "never" and each.plan.target.cache is not False
        message = {**request, **each.to_json(), "keep": request["keep"] if compiles else ""}
        candidates.append(CandidateRun(place, each.name, first.name, message, compiles, each, each.refused))
    return candidates


def from_calls(calls: Mapping[str, str], request: Mapping[str, Any]) -> list[CandidateRun]:
    """Make callables candidates, each given as the file and the function that returns it: "arms.py:plain"."""
    return [
        CandidateRun(place, name, None, {**request, "call": where}) for place, (name, where) in enumerate(calls.items())
    ]
