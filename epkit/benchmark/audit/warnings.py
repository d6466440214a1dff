"""Warn of reasons to distrust a benchmark, each with what to do.

Pure: from the document alone. A warning changes no verdict; the effect of noise is in the intervals.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence

from epkit.benchmark.document import Findings, Measured
from epkit.benchmark.environment.nvidia_smi import SLOWED_BY
from epkit.benchmark.statistics.quantiles import counted_runs, is_counted
from epkit.benchmark.statistics.verdicts import blocks_by_candidate

OTHERS = 0.1
"""The share of all CPUs that other processes may use."""
STOLEN = 0.02
"""The share of all CPUs that the host of a virtual machine may use for others."""
APART = 1.1
"""How many times as long as in the fastest process a run may take in the slowest one."""
LEAST_BLOCKS = 8
BEYOND_NOISE = 4.0
"""By how many standard errors two processes must differ; the two most different ones are picked among many."""
COLD_FILES = 2.0
"""How many times as long as later ones the first process may take to open."""
_HARMLESS = frozenset({"idle", "clocks set by the user", "clocks set for a display"})


def warnings(measured: Measured, findings: Findings) -> tuple[str, ...]:
    """Return them, each as a sentence that ends with what to do."""
    return (
        *_cpu_load(measured),
        *_clocks(measured),
        *_warm_up(measured, findings),
        *_processes(measured),
        *_medians(measured, findings),
        *_files(measured),
    )


def _cpu_load(measured: Measured) -> Iterator[str]:
    machine = measured.environment
    if (machine.others_cores or 0.0) > OTHERS * machine.logical_cpus:
        yield (
            f"other processes kept {machine.others_cores:.1f} of {machine.logical_cpus} CPUs busy meanwhile: "
            "end them, and measure again"
        )
    if (machine.stolen_cores or 0.0) > STOLEN * machine.logical_cpus:
        yield (
            f"the host of this virtual machine took {machine.stolen_cores:.1f} of {machine.logical_cpus} CPUs "
            "for others meanwhile: measure at another time, or on a dedicated machine"
        )


def _clocks(measured: Measured) -> Iterator[str]:
    machine = measured.environment
    if machine.governor == "powersave":
        yield "the CPU saves power, so its clock follows the load: sudo cpupower frequency-set -g performance"
    for number, gpu in enumerate(machine.gpus_after):
        reasons = [reason for reason in gpu.get(SLOWED_BY, "").split(", ") if reason and reason not in _HARMLESS]
        if reasons:
            yield (
                f"GPU {number} ran below its clocks ({', '.join(reasons)}): let it cool down or raise its limit, "
                "or set clocks that it can keep with nvidia-smi --lock-gpu-clocks"
            )


def _warm_up(measured: Measured, findings: Findings) -> Iterator[str]:
    for figures in findings.figures:
        if not figures.steady:
            yield (
                f"the times of {_name(measured, figures.candidate, figures.case)} were not steady when warm-up ended, "
                "and may fall further: measure again on a quieter machine"
            )


def _processes(measured: Measured) -> Iterator[str]:
    for (case, candidate), blocks in sorted(blocks_by_candidate(measured.blocks, measured.processes).items()):
        rounds: defaultdict[int, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for block in filter(is_counted, blocks):
            rounds[block.round][block.process].append(math.log(statistics.median(counted_runs(block))))
        apart = math.exp(max((_spread(list(processes.values())) for processes in rounds.values()), default=0.0))
        if apart > APART:
            yield (
                f"{_name(measured, candidate, case)} takes {(apart - 1) * 100:.0f} % longer in one of its processes "
                "than in another, more than their noise explains: measure more processes, with a larger --budget"
            )


def _medians(measured: Measured, findings: Findings) -> Iterator[str]:
    medians = {(figures.case, figures.candidate): figures.median.value_s for figures in findings.figures}
    for found in findings.comparisons:
        a, b = medians.get((found.case, found.a)), medians.get((found.case, found.b))
        if a and b and ((found.verdict == "faster" and b > a) or (found.verdict == "slower" and b < a)):
            both = f"{measured.candidates[found.a].target} and {_name(measured, found.b, found.case)}"
            yield (
                f"the medians of {both} contradict their verdict, which compares only runs of the same time: the "
                "machine's speed changed meanwhile, so measure again"
            )


def _spread(processes: Sequence[Sequence[float]]) -> float:
    """Return how far the slowest process is from the fastest; 0 where that may be the noise of their blocks."""
    known = sorted((statistics.median(logs), _error(logs)) for logs in processes if len(logs) >= LEAST_BLOCKS)
    if len(known) < 2:
        return 0.0
    (low, error_of_low), (high, error_of_high) = known[0], known[-1]
    return high - low if high - low > BEYOND_NOISE * math.hypot(error_of_low, error_of_high) else 0.0


def _error(logs: Sequence[float]) -> float:
    """Return the standard error of a median, from the median of the deviations, as for a normal distribution."""
    middle = statistics.median(logs)
    return 1.2533 * 1.4826 * statistics.median(abs(log - middle) for log in logs) / math.sqrt(len(logs))


def _files(measured: Measured) -> Iterator[str]:
    for place, candidate in enumerate(measured.candidates):
        processes = [
            process for process in measured.processes if process.candidate == place and process.cache == "none"
        ]
        first = [process.open_s for process in processes if process.round == 0]
        later = [process.open_s for process in processes if process.round > 0]
        if first and later and first[0] > COLD_FILES * statistics.median(later):
            yield (
                f"the first process of {candidate.target} opened in {first[0]:.2g} s, later ones in "
                f"{statistics.median(later):.2g} s, as if files were read from the disk: measure again, now that the "
                "system holds them in memory"
            )


def _name(measured: Measured, candidate: int, case: int) -> str:
    name = measured.cases[case].name
    return measured.candidates[candidate].target + (f" ({name})" if name else "")
