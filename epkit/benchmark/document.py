"""What is in the document of a benchmark, `epkit.bench/2`?

Two parts. `measured` holds what happened, every sample of it; `findings` holds what follows from that, and can be
worked out again (`epkit.benchmark.findings`). Whatever is printed or drawn comes from the document alone. All times are
in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from epkit.benchmark.environment.environment import Environment
from epkit.benchmark.operators.profile import Operators
from epkit.parity.agreement import Agreement

SCHEMA = "epkit.bench/2"

MOST_COMPARISONS = 5000
"""How many pairs of candidates there may be, over all cases: 100 candidates on one. Everything grows with them."""

Status: TypeAlias = Literal["ok", "unusable", "failed", "differs"]
Verdict: TypeAlias = Literal["faster", "slower", "same", "undecided"]
CacheState: TypeAlias = Literal["none", "cold", "warm"]


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for."""

    model: str
    """Its path."""
    model_sha256: str
    """Of the file and its external data."""
    model_bytes: int
    """Of the file."""
    named: bool
    """Whether the candidates were named; otherwise they are whatever is installed, and where only `cpu` can be
    measured, `cpu` under other settings."""
    budget_s: float
    """How long all of it might take."""
    smallest_effect: float
    """The smallest difference that matters, as a share: 0.02."""
    tolerance: str
    """How far outputs may be apart: the name of a preset, or a share."""
    bound: bool
    """Whether `binding.run()` is timed, buffers where the provider runs; otherwise `session.run`, host to host."""
    callers: int
    """How many threads call at the same time, each starting its next run when the last is done."""
    seed: int
    """Of the random order."""


@dataclass(frozen=True, slots=True)
class Case:
    """One set of inputs on which every candidate runs."""

    name: str
    """"batch=4"; empty where there is only one."""
    dimensions: Mapping[str, int]
    """The sizes that were asked for."""
    inputs: tuple[Mapping[str, Any], ...] = ()
    """Name, dtype and shape, and where it comes from: a file, or made up."""
    inputs_sha256: str = ""
    """Of the arrays."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One target that takes part, and how it ran the model."""

    target: str
    """Its name."""
    provider: str | None
    """The provider that took nodes; of a candidate that was not opened, the one that it is about."""
    status: Status
    """`ok`, `unusable`, `failed`; `differs`: its outputs are not the reference's, so it was not measured."""
    reason: str = ""
    """Why it is not `ok`."""
    hint: str = ""
    """What to type next."""
    summary: str = ""
    """Who runs the nodes, in words."""
    placement: Mapping[str, Mapping[str, float]] | None = None
    """By provider, how many nodes it took, and their share."""
    agreements: tuple[Agreement | None, ...] = ()
    """With the outputs of the reference, case by case; None for the reference itself."""
    operators: Operators | None = None
    """What its operators took, in a run of its own with ONNX Runtime's profiler; None where that was not asked for."""
    effective: tuple[Mapping[str, Any], ...] = ()
    """Every setting of its session: key, value, origin."""
    notes: tuple[str, ...] = ()
    """What its session says, and what else there is to know."""


@dataclass(frozen=True, slots=True)
class Warmup:
    """How one process came to rest on one case."""

    runs: int
    """How many it took."""
    seconds: float
    """What they took."""
    steady: bool
    """Whether its last three windows lay within 10 % of each other."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a candidate."""

    candidate: int
    """Its place in the list of candidates."""
    round: int
    """0 for those that start alone, before anything is measured; from 1 on for those that are measured."""
    cache: CacheState
    """Whether it compiled anew and kept that (`cold`), or started from what was kept (`warm`)."""
    import_s: float
    """What importing epkit and ONNX Runtime took, apart from `open_s`."""
    open_s: float
    """Opening the session: optimizing the graph, compiling where the provider does."""
    first_run_s: tuple[float, ...]
    """The first run of each case, in the order of the cases."""
    warmups: tuple[Warmup, ...] = ()
    """Case by case."""
    peak_rss_bytes: int | None = None
    """The most memory that it held on the host."""
    device_bytes: int | None = None
    """Memory that it held on NVIDIA GPUs, asked of those that start alone; None where nobody tells."""


@dataclass(frozen=True, slots=True)
class Block:
    """A short while in which one process ran, and nobody else.

    Blocks of one `meeting` ran back to back, one of each candidate that took part.
    """

    round: int
    """From 1 on: each has fresh processes."""
    sweep: int
    """From 0 on in its round; the first lets things settle and counts for nothing."""
    meeting: int
    """From 0 on in its round."""
    case: int
    """Its place in the list of cases."""
    process: int
    """Its place in the list of processes."""
    core: int | None
    """The core that all of a meeting were held to; None where they were free."""
    lead: int
    """How many runs at the beginning are not counted: of several threads, those of 20 ms, until each found its core."""
    cpu_s: float
    """CPU time of all threads of the process."""
    samples_s: tuple[float, ...]
    """The seconds of each run, in the order in which they ended."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What happened."""

    complete: bool
    """Whether it came to its end; otherwise this is what had been measured when it was written."""
    request: Request
    """What was asked for."""
    environment: Environment
    """On which machine, and with what installed."""
    cases: tuple[Case, ...]
    """The inputs on which all candidates ran."""
    candidates: tuple[Candidate, ...]
    """Everyone, in the order in which they were named."""
    processes: tuple[Process, ...]
    """Everyone's, in the order in which they started."""
    blocks: tuple[Block, ...]
    """Every sample, in the order of time."""
    notes: tuple[str, ...]
    """What there is to know."""
    rules: Mapping[str, Any]
    """How it was measured and judged."""


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile of the runs, and the interval in which it lies in 95 of 100 cases; None without runs enough."""

    value_s: float
    """A run that was measured."""
    low_s: float | None
    """The lower end of the interval."""
    high_s: float | None
    """The upper end."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the runs of one candidate on one case took."""

    candidate: int
    """Its place in the list of candidates."""
    case: int
    """Its place in the list of cases."""
    processes: int
    """How many of its processes ran."""
    runs: int
    """The runs that are counted: neither those of the settling sweeps nor the cold ones of a block."""
    median: Quantile
    """A typical run."""
    p90: Quantile | None
    """What nine of ten runs do not exceed; null where there are too few runs for an interval, below 36."""
    p99: Quantile | None
    """What 99 of 100 runs do not exceed; null below 368 runs."""
    throughput_per_s: float
    """Runs a second, of all callers together, each starting the next run when the last is done (a closed loop)."""
    cpu_s: float
    """CPU time of a run, of all threads."""
    first_run_s: float | None
    """The first run of this case in a process, the median over the processes."""
    warmup_runs: int
    """The median over the processes."""
    steady: bool
    """Whether warm-up came to rest in every process."""


@dataclass(frozen=True, slots=True)
class Start:
    """What it takes a candidate to start, and to stay: medians over its processes."""

    candidate: int
    """Its place in the list of candidates."""
    import_s: float
    """Importing epkit and ONNX Runtime."""
    open_s: float
    """Opening, with whatever cache the target has: warm where there is one."""
    open_cold_s: float | None
    """Opening with an empty cache, where the provider keeps what it compiles."""
    peak_rss_bytes: int | None
    """The most that any of its processes held on the host."""
    device_bytes: int | None
    """The most that one held on NVIDIA GPUs."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A ratio and the interval in which the true one lies, at the level of confidence of the findings."""

    ratio: float
    """b's time over a's."""
    low: float
    """The lower end of the interval."""
    high: float
    """The upper end."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two candidates on one case: a run of `b` takes `time.ratio` times as long as one of `a`."""

    case: int
    """Its place in the list of cases."""
    a: int
    """The place of one candidate."""
    b: int
    """The place of the other."""
    time: Estimate
    """Of a typical run, from the medians of blocks; below 1, b is the quicker one."""
    p99: Estimate | None
    """Of a slow run, one in a hundred; None where there are too few runs."""
    floor: float
    """No smaller difference is called one here, as a share: 0.011. Of a difference that large, the interval would leave
    out 1 in 9 of 10 cases; one half as large again is called so nearly always."""
    verdict: Verdict
    """What b is, beside a."""
    processes: int
    """Of the one that has fewer."""
    meetings: int
    """In how many meetings both ran."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What follows from what was measured, under its rules."""

    starts: tuple[Start, ...]
    """Of every candidate that was opened."""
    figures: tuple[Figures, ...]
    """Of every candidate on every case."""
    comparisons: tuple[Comparison, ...]
    """Every two candidates on every case."""
    level: float
    """The confidence of each interval of a ratio, so that all of them hold together in 95 of 100 cases."""
    winners: tuple[int | None, ...]
    """For each case the candidate that is faster than every other one; None where there is no such candidate."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What happened, and what follows from it."""

    measured: Measured
    """What happened: every sample, and all that the findings rest on."""
    findings: Findings
    """What follows from it."""

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The targets that took part, in the order in which they were named."""
        return self.measured.candidates

    def comparison(self, a: str, b: str, case: int = 0) -> Comparison | None:
        """Return how the target `b` stands beside `a`; None where the two were not compared.

        Raises KeyError when no candidate is called so.
        """
        first, second = self._position(a), self._position(b, after=a)
        for one in self.findings.comparisons:
            if (one.case, one.a, one.b) == (case, first, second):
                return one
            if (one.case, one.a, one.b) == (case, second, first):
                return turned(one)
        return None

    def verdict(self, a: str, b: str, case: int = 0) -> Verdict:
        """Say what `b` is beside `a`; "undecided" where the two were not compared."""
        found = self.comparison(a, b, case)
        return "undecided" if found is None else found.verdict

    @property
    def exit_code(self) -> int:
        """0 when all is well; 3 when a candidate that was named has no figures, or none has any."""
        measured = [one.status == "ok" for one in self.candidates]
        return 0 if all(measured) or (any(measured) and not self.measured.request.named) else 3

    def as_json(self) -> dict[str, Any]:
        """Return the document, as JSON values."""
        from pydantic import TypeAdapter

        measured: dict[str, Any] = TypeAdapter(Measured).dump_python(self.measured, mode="json")
        findings: dict[str, Any] = TypeAdapter(Findings).dump_python(self.findings, mode="json")
        return {"schema": SCHEMA, "measured": measured, "findings": findings}

    def _position(self, target: str, *, after: str | None = None) -> int:
        places = [place for place, one in enumerate(self.candidates) if one.target == target]
        if not places:
            raise KeyError(target)
        # A target may stand beside itself: the second of the two is another candidate.
        return places[-1] if after == target else places[0]


def too_many(candidates: int, cases: int) -> str:
    """Say in a sentence that so many candidates on so many cases are too many; empty when they are not."""
    pairs = candidates * (candidates - 1) // 2 * cases
    if pairs <= MOST_COMPARISONS:
        return ""
    return f"{candidates} candidates on {cases} cases are {pairs:,} comparisons, and {MOST_COMPARISONS:,} are the most"


def turned(one: Comparison) -> Comparison:
    """Return the same comparison, seen from the other side."""
    other: Mapping[Verdict, Verdict] = {"faster": "slower", "slower": "faster"}
    p99 = None if one.p99 is None else _turned(one.p99)
    verdict = other.get(one.verdict, one.verdict)
    return Comparison(one.case, one.b, one.a, _turned(one.time), p99, one.floor, verdict, one.processes, one.meetings)


def _turned(one: Estimate) -> Estimate:
    return Estimate(1 / one.ratio, 1 / one.high, 1 / one.low)
