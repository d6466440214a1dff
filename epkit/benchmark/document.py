"""Define the document of a benchmark, `epkit.bench/3`.

It has two parts. `measured` holds what was measured, with every sample; `findings` holds what is computed from that
(`epkit.benchmark.statistics.verdicts`). Whatever is printed or drawn comes from the document alone. All times are in
seconds.

The types of fields include the values that are possible (`epkit.benchmark.limits`), which
`epkit.benchmark.audit.consistency` checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from epkit.benchmark.environment.environment import Environment
from epkit.benchmark.limits import (
    NOT_NEGATIVE,
    POSITIVE,
    CandidateIndex,
    CaseIndex,
    Count,
    Level,
    Positive,
    ProcessIndex,
    Sample,
    Seconds,
)
from epkit.benchmark.operators.profile import Operators
from epkit.parity.agreement import Agreement

SCHEMA = "epkit.bench/3"

Status: TypeAlias = Literal["ok", "unusable", "failed", "differs"]
Verdict: TypeAlias = Literal["faster", "slower", "same", "undecided"]
CacheState: TypeAlias = Literal["none", "cold", "warm"]


@dataclass(frozen=True, slots=True)
class Request:
    """What was requested."""

    model: str
    """Its path."""
    model_sha256: str
    """Of the file and its external data."""
    model_bytes: int
    """Of the file."""
    named: bool
    """Whether the candidates were named; otherwise they are whatever is installed, and where only `cpu` can be
    measured, `cpu` under other settings."""
    budget_s: Positive
    """The time limit of the whole."""
    smallest_effect: Positive
    """The smallest difference that matters, as a share: 0.02."""
    tolerance: str
    """How far outputs may be apart: the name of a preset, or a share."""
    bound: bool
    """Whether `binding.run()` is timed, buffers where the provider runs; otherwise `session.run`, host to host."""
    callers: Annotated[int, POSITIVE]
    """How many threads call at the same time, each starting its next run when the last is done."""
    seed: int
    """Of the random order."""


@dataclass(frozen=True, slots=True)
class Case:
    """One set of inputs on which every candidate runs."""

    name: str
    """"batch=4"; empty where there is only one."""
    dimensions: Mapping[str, int]
    """The sizes that were requested."""
    inputs: tuple[Mapping[str, Any], ...] = ()
    """Name, dtype and shape, and its origin: a file, or `made up` for a generated one."""
    inputs_sha256: str = ""
    """Of the arrays."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One target, and how it ran the model."""

    target: str
    """Its name."""
    provider: str | None
    """The provider that took nodes; of a candidate that was not opened, the first of its target."""
    status: Status
    """`ok`, `unusable`, `failed`; `differs`: its outputs are not the reference's, so it was not measured."""
    reason: str = ""
    """Why it is not `ok`."""
    hint: str = ""
    """What to type next."""
    summary: str = ""
    """Which providers run the nodes, in words."""
    placement: Mapping[str, Mapping[str, float]] | None = None
    """By provider, how many nodes it took, and their share."""
    agreements: tuple[Agreement | None, ...] = ()
    """With the outputs of the reference, case by case; None for the reference itself."""
    operators: Operators | None = None
    """The time of its operators, in a run of its own with ONNX Runtime's profiler; None without `--operators`."""
    effective: tuple[Mapping[str, Any], ...] = ()
    """Every setting of its session: key, value, origin."""
    notes: tuple[str, ...] = ()
    """Remarks, those of its session included."""


@dataclass(frozen=True, slots=True)
class Warmup:
    """The warm-up of one process on one case."""

    runs: Count
    """How many runs it took."""
    seconds: Seconds
    """How long it took."""
    steady: bool
    """Whether its last three windows lay within 10 % of each other."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a candidate."""

    candidate: CandidateIndex
    """Its index in the list of candidates."""
    round: Count
    """0 for pilot runs; from 1 on for processes that are measured."""
    cache: CacheState
    """Whether it compiled the model and cached that (`cold`), or started from the cache (`warm`)."""
    import_s: Seconds
    """Importing epkit and ONNX Runtime, not part of `open_s`."""
    open_s: Seconds
    """Opening the session: optimizing the graph, compiling where the provider does."""
    first_run_s: tuple[Seconds, ...]
    """The first run of each case, in the order of the cases."""
    warmups: tuple[Warmup, ...] = ()
    """Case by case."""
    peak_rss_bytes: Annotated[int | None, POSITIVE] = None
    """The most memory that it held on the host."""
    device_bytes: Annotated[int | None, NOT_NEGATIVE] = None
    """Memory that it held on NVIDIA GPUs, of pilot runs; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Block:
    """A short time in which one process ran, and no other.

    Blocks of one `pair` ran back to back, one of each candidate that was measured.
    """

    round: Count
    """From 1 on: each has fresh processes."""
    pass_number: Count
    """From 0 on in its round; the first pass is not counted."""
    pair: Count
    """From 0 on in its round."""
    case: CaseIndex
    """Its index in the list of cases."""
    process: ProcessIndex
    """Its index in the list of processes."""
    core: int | None
    """The core that all of a pair were pinned to; None where they were not."""
    lead: int
    """How many runs at the beginning are not counted: of several threads, those of 20 ms, until each found its core."""
    cpu_s: Seconds
    """CPU time of all threads of the process."""
    samples_s: tuple[Sample, ...]
    """The seconds of each run, in the order in which they ended."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured."""

    complete: bool
    """Whether it is finished; otherwise this is what had been measured when it was written."""
    request: Request
    """What was requested."""
    environment: Environment
    """The machine and the installed versions."""
    cases: tuple[Case, ...]
    """The inputs on which all candidates ran."""
    candidates: tuple[Candidate, ...]
    """All candidates, in the order in which they were named."""
    processes: tuple[Process, ...]
    """All processes, in the order in which they started."""
    blocks: tuple[Block, ...]
    """Every sample, in the order of time."""
    notes: tuple[str, ...]
    """Remarks."""
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
    """The times of one candidate on one case."""

    candidate: CandidateIndex
    """Its index in the list of candidates."""
    case: CaseIndex
    """Its index in the list of cases."""
    processes: int
    """How many of its processes ran."""
    runs: int
    """The runs that are counted: neither those of discarded passes nor the cold ones of a block."""
    median: Quantile
    """A typical run."""
    p90: Quantile | None
    """The time that nine of ten runs do not exceed; null where there are too few runs for an interval, below 36."""
    p99: Quantile | None
    """The time that 99 of 100 runs do not exceed; null below 368 runs."""
    throughput_per_s: float
    """Runs a second, of all callers together, each starting the next run when the last is done (a closed loop)."""
    cpu_s: float
    """CPU time of a run, of all threads."""
    first_run_s: float | None
    """The first run of this case in a process, the median over the processes."""
    warmup_runs: int
    """The median over the processes."""
    steady: bool
    """Whether the times were steady after warm-up in every process."""


@dataclass(frozen=True, slots=True)
class Start:
    """The start-up cost and memory of a candidate: medians over its processes."""

    candidate: CandidateIndex
    """Its index in the list of candidates."""
    import_s: float
    """Importing epkit and ONNX Runtime."""
    open_s: float
    """Opening, from the cache where there is one."""
    open_cold_s: float | None
    """Opening with an empty cache, where the provider keeps what it compiles."""
    peak_rss_bytes: int | None
    """The most that any of its processes held on the host."""
    device_bytes: int | None
    """The most that any of them held on NVIDIA GPUs."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A ratio and the interval in which the true one lies, at the level of confidence of the findings."""

    ratio: Positive
    """b's time over a's."""
    low: Positive
    """The lower end of the interval."""
    high: Positive
    """The upper end."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two candidates on one case: a run of `b` takes `time.ratio` times as long as one of `a`."""

    case: CaseIndex
    """Its index in the list of cases."""
    a: CandidateIndex
    """The index of one candidate."""
    b: CandidateIndex
    """The index of the other."""
    time: Estimate
    """Of a typical run, from the medians of blocks; below 1, b is the faster one."""
    p99: Estimate | None
    """Of a slow run, one in a hundred; None where there are too few runs."""
    floor: float
    """The minimum detectable difference, as a share: 0.011. No smaller difference is called faster or slower. Of a true
    difference that large, the interval excludes 1 in 9 of 10 cases; one 1.5 times as large nearly always gets a
    verdict."""
    verdict: Verdict
    """Whether b is faster or slower than a."""
    processes: int
    """Of the one that has fewer."""
    pairs: int
    """The pairs of blocks in which both ran."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What is computed from the measurements, under their rules."""

    starts: tuple[Start, ...]
    """Of every candidate that was opened."""
    figures: tuple[Figures, ...]
    """Of every candidate on every case."""
    comparisons: tuple[Comparison, ...]
    """Every two candidates on every case."""
    level: Level
    """The confidence of each interval of a ratio, so that all of them hold together in 95 of 100 cases."""
    winners: tuple[int | None, ...]
    """For each case the candidate that is faster than every other one; None where there is no such candidate."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The measurements of a benchmark, and its findings."""

    measured: Measured
    """The measurements: every sample, and all that the findings are computed from."""
    findings: Findings
    """Figures, comparisons and verdicts."""

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates, in the order in which they were named."""
        return self.measured.candidates

    def comparison(self, a: str, b: str, case: int = 0) -> Comparison | None:
        """Return the comparison of the target `b` with `a`; None where the two were not compared.

        Raises KeyError when no candidate has that name.
        """
        first, second = self._index(a), self._index(b, other_than=a)
        for found in self.findings.comparisons:
            if (found.case, found.a, found.b) == (case, first, second):
                return found
            if (found.case, found.a, found.b) == (case, second, first):
                return swap(found)
        return None

    def verdict(self, a: str, b: str, case: int = 0) -> Verdict:
        """Return whether `b` is faster or slower than `a`; "undecided" where the two were not compared."""
        found = self.comparison(a, b, case)
        return "undecided" if found is None else found.verdict

    @property
    def exit_code(self) -> int:
        """0 when all is well; 3 when a candidate that was named has no figures, or none has any."""
        measured = [candidate.status == "ok" for candidate in self.candidates]
        return 0 if all(measured) or (any(measured) and not self.measured.request.named) else 3

    def as_json(self) -> dict[str, Any]:
        """Return the document, as JSON values."""
        from pydantic import TypeAdapter

        measured: dict[str, Any] = TypeAdapter(Measured).dump_python(self.measured, mode="json")
        findings: dict[str, Any] = TypeAdapter(Findings).dump_python(self.findings, mode="json")
        return {"schema": SCHEMA, "measured": measured, "findings": findings}

    def _index(self, target: str, *, other_than: str | None = None) -> int:
        places = [place for place, candidate in enumerate(self.candidates) if candidate.target == target]
        if not places:
            raise KeyError(target)
        # A target may be compared with itself: the second of the two is another candidate.
        return places[-1] if other_than == target else places[0]


def swap(found: Comparison) -> Comparison:
    """Return the comparison of a with b, from that of b with a."""
    opposite: Mapping[Verdict, Verdict] = {"faster": "slower", "slower": "faster"}
    p99 = None if found.p99 is None else invert(found.p99)
    verdict = opposite.get(found.verdict, found.verdict)
    times = invert(found.time), p99, found.floor
    return Comparison(found.case, found.b, found.a, *times, verdict, found.processes, found.pairs)


def invert(ratio: Estimate) -> Estimate:
    """Return the reciprocal of a ratio, with its interval."""
    return Estimate(1 / ratio.ratio, 1 / ratio.high, 1 / ratio.low)
