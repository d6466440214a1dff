"""Run the model on one target in a process of its own, seen from outside that process.

Each target has a process of its own, one at a time: a crash costs nobody else his outputs, and no two providers meet.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from epkit.parity.feed import Feed
from epkit.session.fault import WorkerFault
from epkit.session.request import OpenRequest, PlannedTarget, ask

WORKER = "epkit.parity.worker"
LIMIT_S = 600.0
"""How long opening the model and all runs of one target may take: TensorRT builds an engine for minutes."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: the seed of its made-up inputs, their digest, and the file that holds the outputs."""

    seed: int
    inputs_sha256: str
    file: Path


@dataclass(frozen=True, slots=True)
class TargetRun:
    """What a target computed, and what it said of itself."""

    provider: str | None
    summary: str
    notes: tuple[str, ...]
    runs: tuple[Run, ...]
    inputs: tuple[Mapping[str, object], ...]
    assumed: Mapping[str, int]
    """Sizes of the dimensions that nobody gave."""
    outputs: tuple[Mapping[str, Any], ...]
    """Name, dtype and shape of all outputs; a size that is not known is a text or None."""


@dataclass(frozen=True, slots=True)
class ComparisonTask:
    """What all targets of a comparison are asked to do."""

    request: OpenRequest
    """The model, in a file, and the config."""
    weights: str
    """Where the external data of the model lies; empty for none."""
    feed: Feed
    seeds: tuple[int, ...]
    folder: Path
    altered: bool = False
    repeats: bool = False
    """Whether a seed that comes again is run again."""


def run(candidate: PlannedTarget, task: ComparisonTask) -> TargetRun | WorkerFault:
    """Run the model on one target in a process of its own."""
    request = {
        **task.request.to_json(),
        "feed": asdict(task.feed),
        "seeds": list(task.seeds),
        "into": tempfile.mkdtemp(dir=task.folder),
        "altered": task.altered,
        "repeats": task.repeats,
    }
    reply = ask(candidate, WORKER, request, doing="running the model", limit_s=LIMIT_S)
    if isinstance(reply, WorkerFault):
        return reply
    return TargetRun(
        reply["provider"],
        reply["summary"],
        tuple(reply["notes"]),
        tuple(Run(run["seed"], run["inputs_sha256"], Path(run["file"])) for run in reply["runs"]),
        tuple(reply["inputs"]),
        reply["assumed"],
        tuple(reply["outputs"]),
    )
