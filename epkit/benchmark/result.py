"""What came out of a benchmark?

The document that other programs read, `epkit.bench/1`. It keeps every sample, so that its figures can be worked out
again from it alone. All times are seconds of wall clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from epkit.benchmark.environment import Environment
from epkit.parity.agreement import Agreement

SCHEMA = "epkit.bench/1"

Status: TypeAlias = Literal["ok", "unusable", "failed"]
Verdict: TypeAlias = Literal["faster", "slower", "same", "undecided"]


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate and what was measured; figures are None where they could not be had."""

    target: str
    provider: str | None
    """The provider that took nodes; of a candidate that was not opened, the one it is about."""
    status: Status
    reason: str = ""
    hint: str = ""
    median_s: float | None = None
    p90_s: float | None = None
    p99_s: float | None = None
    throughput_per_s: float | None = None
    import_s: float | None = None
    """What importing epkit and ONNX Runtime took, apart from `open_s`."""
    open_s: float | None = None
    first_run_s: float | None = None
    peak_rss_bytes: int | None = None
    cpu_s: float | None = None
    """CPU time of all threads in the blocks of `samples_s`."""
    runs: int = 0
    """The runs that the figures rest on; `samples_s` has the others too."""
    warmup_runs: int = 0
    warmup_s: float | None = None
    warmup_steady: bool | None = None
    """Whether warm-up came to rest: its last three windows within 10 % of each other."""
    placement: Mapping[str, Mapping[str, float]] | None = None
    summary: str = ""
    """Who runs the nodes, in words."""
    inputs_sha256: str = ""
    agreement: Agreement | None = None
    """With the first usable candidate, for the others."""
    effective: tuple[Mapping[str, object], ...] = ()
    """Every setting of its session: key, value, origin."""
    notes: tuple[str, ...] = ()
    samples_s: tuple[tuple[float, ...], ...] = ()
    """Seconds of each run, a block for each round in which it took part."""

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {
            **asdict(self),
            "agreement": self.agreement.as_json() if self.agreement else None,
            "effective": [dict(one) for one in self.effective],
            "notes": list(self.notes),
            "samples_s": [list(block) for block in self.samples_s],
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two candidates: a run of `b` takes `ratio` times as long as one of `a`, median by median.

    Below 1, b is the quicker one. The rows tell the two apart where they are the same target.
    """

    a: str
    b: str
    ratio: float
    a_row: int
    b_row: int
    verdict: Verdict = "undecided"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Everything that was measured, under which rules, and where."""

    candidates: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    environment: Environment
    budget_s: float
    measured_s: float
    """How long blocks alternated, all candidates together."""
    named: bool
    """Whether the candidates were named; otherwise they are whatever is installed."""
    inputs: tuple[Mapping[str, object], ...]
    """Name, dtype and shape of what every run was given, and its origin: a file, or made up."""
    notes: tuple[str, ...]
    rules: Mapping[str, object]
    order: tuple[tuple[int, ...], ...]
    """The rows in the order in which they had their turn, round by round."""

    @property
    def exit_code(self) -> int:
        """0 when all is well; 3 when a candidate that was named has no figures, or none has any."""
        measured = [row.status == "ok" for row in self.candidates]
        return 0 if all(measured) or (any(measured) and not self.named) else 3

    def as_json(self) -> dict[str, object]:
        """Return the document of `epkit bench --json`."""
        return {
            "schema": SCHEMA,
            "candidates": [row.as_json() for row in self.candidates],
            "comparisons": [asdict(one) for one in self.comparisons],
            "environment": self.environment.as_json(),
            "budget_s": self.budget_s,
            "measured_s": self.measured_s,
            "named": self.named,
            "inputs": [dict(one) for one in self.inputs],
            "notes": list(self.notes),
            "rules": dict(self.rules),
            "order": [list(one) for one in self.order],
        }


def comparisons(rows: Sequence[Row]) -> tuple[Comparison, ...]:
    """Compare each candidate that has figures with the first one that has, if they ran on the same inputs."""
    usable = [(position, row, row.median_s) for position, row in enumerate(rows) if row.median_s is not None]
    if not usable:
        return ()
    first, a, a_median = usable[0]
    return tuple(
        Comparison(a.target, b.target, median / a_median, first, position)
        for position, b, median in usable[1:]
        if b.inputs_sha256 == a.inputs_sha256
    )
