"""Hold the state of a benchmark that is running, and write its document from time to time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from epkit.benchmark import schedule, storage
from epkit.benchmark.candidate_run import CandidateRun
from epkit.benchmark.document import Benchmark, Block, Case, Measured, Process, Request
from epkit.benchmark.environment.environment import Before, environment
from epkit.benchmark.schedule import Budget
from epkit.benchmark.statistics import differences, quantiles
from epkit.benchmark.statistics.verdicts import CONFIDENCE, SURE, findings
from epkit.discovery.registry import Registry
from epkit.errors import ConfigError

Progress = Callable[[str, float], None]
SAVE_EVERY_S = 5.0

RULES: Mapping[str, Any] = {
    "processes": f"{schedule.PROCESSES} fresh ones of each candidate in a round, fewer where time or memory is short; "
    f"{schedule.ROUNDS} rounds at most",
    "block_s": f"{schedule.BLOCK_S}; {schedule.LONG_BLOCK_S} where a candidate uses several threads, after a lead of "
    f"{schedule.LEAD_S} that is not counted",
    "pair": "a block of each candidate, back to back, in randomly drawn processes and mirrored random orders; all "
    "other processes are stopped (on Linux); on a randomly drawn core where every candidate uses one core",
    "discarded_passes": quantiles.DISCARDED_PASSES,
    "cold_tenth": f"the first tenth of a block of {quantiles.LONG_BLOCK} runs or more is not counted",
    "score": "the log ratio of the medians of the two blocks of a pair, split between its processes by median polish",
    "interval": "Welch's t on the scores of both candidates' processes, all rounds together",
    "confidence": CONFIDENCE,
    "correction": "Bonferroni, over all comparisons of the benchmark",
    "verdict": "same: the interval lies within the smallest effect; faster or slower: the difference is at least the "
    "smallest effect and the floor; else undecided",
    "floor": f"the minimum detectable difference: the interval excludes 1 in {differences.POWER:.0%} of cases",
    "stopping": "after a round when every floor is at or below the smallest effect, or the interval of "
    f"{SURE:.1%} lies beyond it",
    "warm_up": "at least 3 runs and 0.3 s, until three windows of 50 ms lie within 10 %; 3 s at most",
    "percentiles": "nearest rank, with the 95 % interval of order statistics, where there are enough runs for one",
}


class BenchmarkRun:
    """What every step of a benchmark reads and adds to; its document is written to a file, if there is one."""

    def __init__(
        self,
        request: Request,
        cases: Sequence[Case],
        candidates: Sequence[CandidateRun],
        before: Before,
        registry: Registry,
        *,
        file: Path | None = None,
        budget: Budget | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.request, self.cases, self.candidates = request, list(cases), list(candidates)
        self.budget = budget or Budget(time.monotonic(), request.budget_s)
        self.random = Random(request.seed)
        self.processes: list[Process] = []
        self.blocks: list[Block] = []
        self.notes: list[str] = []
        self._progress = progress
        self._before, self._registry, self._file = before, registry, file
        # A pipe or a terminal gets the document once: what is written to it cannot be replaced.
        self._is_replaced = file is not None and storage.is_replaced(file)
        self._environment = environment(before, registry)
        self._saved = time.monotonic()

    @property
    def active(self) -> list[CandidateRun]:
        """The candidates that are measured: those without a fault whose outputs agree."""
        return [candidate for candidate in self.candidates if candidate.active]

    def report(self, doing: str, share: float | None = None) -> None:
        """Report what is being done, and the share of the time that is spent."""
        if self._progress:
            self._progress(doing, self.budget.spent if share is None else share)

    def add(self, process: Process) -> int:
        """Add a process, and return its index."""
        self.processes.append(process)
        return len(self.processes) - 1

    def measured(self, *, complete: bool = False) -> Measured:
        """Return what has been measured so far, as the document has it."""
        return Measured(
            complete,
            self.request,
            self._environment if not complete else environment(self._before, self._registry),
            tuple(self.cases),
            tuple(candidate.row() for candidate in self.candidates),
            tuple(self.processes),
            tuple(self.blocks),
            tuple(self.notes),
            RULES,
        )

    def save(self, *, complete: bool = False) -> Benchmark:
        """Compute the findings, and write the document.

        What cannot be written is tried again the next time; at the end, raises Unwritten with what was measured.
        """
        measured = self.measured(complete=complete)
        benchmark = Benchmark(measured, findings(measured))
        if self._file is not None and (complete or self._is_replaced):
            try:
                storage.write(benchmark, self._file)
            except ConfigError as error:
                if complete:
                    raise storage.Unwritten(error, benchmark) from error
        self._saved = time.monotonic()
        return benchmark

    def save_if_due(self) -> None:
        """Save, if the last time was some seconds ago."""
        if self._file is not None and time.monotonic() - self._saved > SAVE_EVERY_S:
            self.save()
