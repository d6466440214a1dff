"""What speaks against believing a benchmark, and what can be done about it?

Pure: read from the document alone. A doubt changes no verdict; the intervals hold what the machine's noise did to them.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence

from epkit.benchmark.document import Findings, Measured
from epkit.benchmark.environment.nvidia_smi import SLOWED_BY
from epkit.benchmark.statistics.quantiles import counted, counts
from epkit.benchmark.statistics.verdicts import by_candidate

OTHERS = 0.1
"""The share of all CPUs that other processes may take."""
STOLEN = 0.02
"""The share of all CPUs that the host of a virtual machine may take."""
APART = 1.1
"""By how much the slowest of a candidate's processes may be slower than the quickest."""
LEAST_BLOCKS = 8
BEYOND_NOISE = 4.0
"""How many standard errors two processes must be apart; the most different two are picked among many."""
COLD_FILES = 2.0
"""By how much the first process may open more slowly than those after it."""
_HARMLESS = frozenset({"idle", "clocks set by the user", "clocks set for a display"})


def doubts(measured: Measured, findings: Findings) -> tuple[str, ...]:
    """Say them, each in a sentence that ends in what to do."""
    return (
        *_of_neighbours(measured),
        *_of_clocks(measured),
        *_of_warm_up(measured, findings),
        *_of_processes(measured),
        *_of_medians(measured, findings),
        *_of_files(measured),
    )


def _of_neighbours(measured: Measured) -> Iterator[str]:
    machine = measured.environment
    if (machine.others_cores or 0.0) > OTHERS * machine.logical_cpus:
        yield (
            f"other processes kept {machine.others_cores:.1f} of {machine.logical_cpus} CPUs busy meanwhile: "
            "end them, and measure again"
        )
    if (machine.stolen_cores or 0.0) > STOLEN * machine.logical_cpus:
        yield (
            f"the host of this virtual machine took {machine.stolen_cores:.1f} of {machine.logical_cpus} CPUs "
            "for others meanwhile: measure at another time, or on a machine of its own"
        )


def _of_clocks(measured: Measured) -> Iterator[str]:
    machine = measured.environment
    if machine.governor == "powersave":
        yield "the CPU saves power, so its clock follows the load: sudo cpupower frequency-set -g performance"
    for number, gpu in enumerate(machine.gpus_after):
        reasons = [one for one in gpu.get(SLOWED_BY, "").split(", ") if one and one not in _HARMLESS]
        if reasons:
            yield (
                f"GPU {number} ran below its clocks ({', '.join(reasons)}): let it cool down or raise its limit, "
                "or set clocks that it can keep with nvidia-smi --lock-gpu-clocks"
            )


def _of_warm_up(measured: Measured, findings: Findings) -> Iterator[str]:
    for one in findings.figures:
        if not one.steady:
            yield (
                f"{_named(measured, one.candidate, one.case)} had not come to rest when warm-up ended: "
                "its times may fall further, so measure again on a quieter machine"
            )


def _of_processes(measured: Measured) -> Iterator[str]:
    for (case, candidate), blocks in sorted(by_candidate(measured.blocks, measured.processes).items()):
        rounds: defaultdict[int, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for block in blocks:
            if counts(block):
                rounds[block.round][block.process].append(math.log(statistics.median(counted(block))))
        apart = math.exp(max((_apart(list(processes.values())) for processes in rounds.values()), default=0.0))
        if apart > APART:
            yield (
                f"{_named(measured, candidate, case)} takes {(apart - 1) * 100:.0f} % longer in one of its processes "
                "than in another, more than their noise explains: have more processes, with a larger --budget"
            )


def _of_medians(measured: Measured, findings: Findings) -> Iterator[str]:
    medians = {(one.case, one.candidate): one.median.value_s for one in findings.figures}
    for one in findings.comparisons:
        a, b = medians.get((one.case, one.a)), medians.get((one.case, one.b))
        if a and b and ((one.verdict == "faster" and b > a) or (one.verdict == "slower" and b < a)):
            both = f"{measured.candidates[one.a].target} and {_named(measured, one.b, one.case)}"
            yield (
                f"the medians of {both} say the opposite of their verdict, which compares only runs that lay side by "
                "side: the machine's speed changed meanwhile, so measure again"
            )


def _apart(processes: Sequence[Sequence[float]]) -> float:
    """Return how far the slowest process lies above the quickest; 0 where that may be the noise of their blocks."""
    known = sorted((statistics.median(one), _error(one)) for one in processes if len(one) >= LEAST_BLOCKS)
    if len(known) < 2:
        return 0.0
    (low, error_of_low), (high, error_of_high) = known[0], known[-1]
    return high - low if high - low > BEYOND_NOISE * math.hypot(error_of_low, error_of_high) else 0.0


def _error(logs: Sequence[float]) -> float:
    """Return the standard error of a median, from the median of the deviations, as for a normal distribution."""
    middle = statistics.median(logs)
    return 1.2533 * 1.4826 * statistics.median(abs(one - middle) for one in logs) / math.sqrt(len(logs))


def _of_files(measured: Measured) -> Iterator[str]:
    for place, candidate in enumerate(measured.candidates):
        its = [one for one in measured.processes if one.candidate == place and one.cache == "none"]
        first = [one.open_s for one in its if one.round == 0]
        later = [one.open_s for one in its if one.round > 0]
        if first and later and first[0] > COLD_FILES * statistics.median(later):
            yield (
                f"the first process of {candidate.target} opened in {first[0]:.2g} s, later ones in "
                f"{statistics.median(later):.2g} s, as if files had come from the disk: measure again, now that the "
                "system holds them in memory"
            )


def _named(measured: Measured, candidate: int, case: int) -> str:
    name = measured.cases[case].name
    return measured.candidates[candidate].target + (f" ({name})" if name else "")
