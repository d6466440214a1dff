"""How are a candidate's operators profiled, seen from outside the process that runs it?"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from epkit._child import Child
from epkit.benchmark.operators import Operators
from epkit.candidates import Candidate, Feed
from epkit.faults import Fault, lost, told

WORKER = "epkit.benchmark.profiling_worker"
LIMIT_S = 600.0
"""How long opening and all runs may take: TensorRT builds an engine for minutes."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is profiled, the same for every candidate."""

    model: Path
    in_memory: bool
    """Whether the model was given as bytes, which now lie in that file."""
    config: object
    feed: Feed
    bound: bool = False
    """Whether buffers are bound once, where the provider runs; otherwise arrays go in and out at every run."""


def profile(candidate: Candidate, task: Task, *, limit_s: float = LIMIT_S) -> Operators | Fault:
    """Open a candidate once more, in a process of its own and with ONNX Runtime's profiler, and read what it wrote."""
    if candidate.plan.refusal is not None:
        refusal = candidate.plan.refusal
        return Fault("unusable", "ProviderUnavailable", refusal.reason, refusal.hint)
    with tempfile.TemporaryDirectory(prefix="epkit-profile-") as folder, Child(WORKER) as child:
        child.send(
            {
                "target": candidate.name,
                "answers": {name: answer.as_json() for name, answer in candidate.answers.items()},
                "config": task.config,
                "model": str(task.model),
                "model_is_bytes": task.in_memory,
                "feed": asdict(task.feed),
                "bound": task.bound,
                "folder": folder,
            }
        )
        reply: Mapping[str, Any] | None = child.receive(limit_s)
        if reply is None:
            return lost(child, "it was profiled", candidate.name)
    fault = told(reply)
    if fault is not None:
        return fault
    from pydantic import TypeAdapter

    return TypeAdapter(Operators).validate_python(reply["operators"])
