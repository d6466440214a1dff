"""Write a benchmark in the format of pytest-benchmark, whose `pytest-benchmark compare` reads many of them.

A candidate on a case is a benchmark, the case is its group. The statistics are those of the counted runs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from epkit._system.text import printable
from epkit.benchmark.document import Benchmark
from epkit.benchmark.report import sentences, tables

FORMAT = "5.0.0"
"""The version of pytest-benchmark whose format it is."""


def as_pytest_benchmark(found: Benchmark) -> dict[str, Any]:
    """Return the document in the format that pytest-benchmark saves."""
    where = found.measured.environment
    return {
        "machine_info": {
            "node": "",
            "system": printable(where.system),
            "python_version": printable(where.versions.get("python", "")),
            "cpu": {"brand_raw": printable(where.cpu), "count": where.logical_cpus},
            "versions": dict(where.versions),
        },
        "commit_info": {"id": "", "branch": ""},
        "benchmarks": [_benchmark(found, at, place, runs) for (at, place), runs in tables.runs(found).items() if runs],
        "datetime": where.at,
        "version": FORMAT,
    }


def _benchmark(found: Benchmark, at: int, place: int, runs: Sequence[float]) -> dict[str, Any]:
    case, label = sentences.case(found, at), sentences.label(found, place)
    model = sentences.model(found)
    name = f"{label}[{case}]" if case else label
    return {
        "group": f"{model} {case}".strip(),
        "name": name,
        "fullname": f"{model}::{name}",
        "params": {**found.measured.cases[at].dimensions},
        "param": case or None,
        "extra_info": {"summary": found.candidates[place].summary, "model_sha256": found.measured.request.model_sha256},
        "options": {
            "disable_gc": False,
            "timer": "perf_counter",
            "min_rounds": 1,
            "max_time": found.measured.request.budget_s,
            "min_time": 0.0,
            "warmup": True,
        },
        "stats": _stats(runs),
    }


def _stats(runs: Sequence[float]) -> dict[str, Any]:
    """Compute the statistics of pytest-benchmark from the runs, the fastest first."""
    mean, spread = statistics.fmean(runs), statistics.stdev(runs) if len(runs) > 1 else 0.0
    q1, median, q3 = statistics.quantiles(runs, n=4, method="inclusive") if len(runs) > 1 else [runs[0]] * 3
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    near = [run for run in runs if low <= run <= high]
    outliers = len(runs) - len(near)
    far = sum(abs(run - mean) > spread for run in runs)
    return {
        "min": runs[0],
        "max": runs[-1],
        "mean": mean,
        "stddev": spread,
        "rounds": len(runs),
        "median": median,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": outliers,
        "stddev_outliers": far,
        "outliers": f"{far};{outliers}",
        "ld15iqr": near[0],
        "hd15iqr": near[-1],
        "ops": 1 / mean,
        "total": math.fsum(runs),
        "iterations": 1,
    }
