"""How are a candidate's operators profiled, seen from outside the process that runs it?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from epkit._system.folders import make_scratch_folder
from epkit.benchmark.operators.profile import Operators
from epkit.parity.feed import Feed
from epkit.session.fault import Fault
from epkit.session.request import Candidate, ask, located

WORKER = "epkit.benchmark.operators.worker"
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
    with make_scratch_folder() as folder:
        request = {
            **located(task.model, in_memory=task.in_memory),
            "config": task.config,
            "feed": asdict(task.feed),
            "bound": task.bound,
            "folder": str(folder),
        }
        reply = ask(candidate, WORKER, request, doing="it was profiled", limit_s=limit_s)
    if isinstance(reply, Fault):
        return reply
    from pydantic import TypeAdapter

    return TypeAdapter(Operators).validate_python(reply["operators"])
