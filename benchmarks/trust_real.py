"""How often are epkit's verdicts wrong on this machine?

A trial is one `epkit.bench` of two targets that are the same, or of which one takes a known share longer: it runs
through the faulty provider, which waits after each run, for a share of what ONNX Runtime took.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import epkit

BUDGET_S = 90.0
MODELS = ("mlp", "sample", "shufflenet", "resnet50")
THREADS = {"one": {"intra_op_num_threads": 1}, "default": {}}
"""Of ONNX Runtime's threads, what a target says."""
DIFFERENCES = (0, 0, 5)
"""What is tried on a model in a row, in percent."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One trial to come."""

    model: str
    threads: str
    percent: int


def asked(seed: int, models: Sequence[str] = MODELS, done: int = 0) -> Iterator[Asked]:
    """Yield trials for ever, each kind as often as every other, in random order; those already done are left out."""
    chance = random.Random(seed)
    number = 0
    while True:
        for percent in DIFFERENCES:
            kinds = [Asked(model, threads, percent) for model in models for threads in THREADS]
            for one in chance.sample(kinds, len(kinds)):
                if number >= done:
                    yield one
                number += 1


def write_models(folder: Path) -> Mapping[str, Path]:
    """Write the models into a folder; return their files."""
    from advice_arms import models

    contents = models()
    found = {}
    for name in MODELS:
        found[name] = folder / f"{name}.onnx"
        found[name].write_bytes(contents[name])
    return found


def config(one: Asked) -> Mapping[str, Any]:
    """Return two targets, `plain` and `other`."""
    settings = {"session_options": THREADS[one.threads]} if THREADS[one.threads] else {}
    plain = {"provider": "cpu", **settings}
    slow = {"provider": "faulty-slow", "options": {"percent": float(one.percent)}, **settings}
    return {"targets": {"plain": plain, "other": slow if one.percent else plain}}


def trial(one: Asked, file: Path, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure once, and return what it said as a row, and the machine."""
    os.environ["EPKIT_PLUGINS"] = "epkit_faulty"
    before, started = os.getloadavg()[0], time.monotonic()
    measured = epkit.bench(file, ["plain", "other"], config=config(one), budget=BUDGET_S, seed=seed)
    row = {
        "model": one.model,
        "threads": one.threads,
        "percent": one.percent,
        "seed": seed,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - started, 1),
        "load": [round(before, 2), round(os.getloadavg()[0], 2)],
        "status": [candidate.status for candidate in measured.candidates],
        "rounds": max((block.round for block in measured.measured.blocks), default=0),
    }
    about = measured.measured.environment
    machine = {"cpu": about.cpu, "cores": about.cores, "versions": dict(about.versions)}
    found = measured.comparison("plain", "other")
    if found is None:
        reasons = "; ".join(one.reason for one in measured.candidates if one.reason)
        return row | {"verdict": None, "reason": reasons}, machine
    row |= {
        "ratio": round(found.time.ratio, 5),
        "low": round(found.time.low, 5),
        "high": round(found.time.high, 5),
        "floor": round(found.floor, 5),
        "verdict": found.verdict,
        "processes": found.processes,
        "meetings": found.pairs,
    }
    if found.p99:
        row["p99"] = [round(one, 5) for one in (found.p99.ratio, found.p99.low, found.p99.high)]
    return row, machine
