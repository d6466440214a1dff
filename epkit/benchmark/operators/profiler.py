"""Profile the operators of candidates, each in a process of its own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from epkit._system.folders import make_scratch_folder
from epkit.benchmark.operators.profile import Operators
from epkit.benchmark.process import LEAST_LIMIT_S
from epkit.benchmark.run import BenchmarkRun
from epkit.config.file import ConfigSource
from epkit.parity.feed import Feed
from epkit.session.fault import WorkerFault
from epkit.session.request import OpenRequest, PlannedTarget, ask

WORKER = "epkit.benchmark.operators.worker"
LIMIT_S = 600.0
"""The time limit of opening and all runs: TensorRT builds an engine for minutes."""
RUNNING_S = 5.0
"""How long the runs with the profiler and without take, in addition to starting."""
LEAST_RUNS = 6


@dataclass(frozen=True, slots=True)
class Task:
    """What is profiled, the same for every candidate."""

    model: Path
    in_memory: bool
    """Whether the model was given as bytes, which are in that file now."""
    config: ConfigSource
    feed: Feed
    bound: bool = False
    """Whether buffers are bound once, where the provider runs; otherwise arrays go in and out at every run."""


def profile(candidate: PlannedTarget, task: Task, *, limit_s: float = LIMIT_S) -> Operators | WorkerFault:
    """Open a candidate once more, with ONNX Runtime's profiler, and read the profile."""
    with make_scratch_folder() as folder:
        profiling = {"enable_profiling": True, "profile_file_prefix": str(folder / "profile")}
        opening = OpenRequest(task.model, session_options=profiling, config=task.config, in_memory=task.in_memory)
        request = {**opening.to_json(), "feed": asdict(task.feed), "bound": task.bound}
        reply = ask(candidate, WORKER, request, doing="it was profiled", limit_s=limit_s)
    if isinstance(reply, WorkerFault):
        return reply
    from pydantic import TypeAdapter

    return TypeAdapter(Operators).validate_python(reply["operators"])


def profiling_s(run: BenchmarkRun) -> float:
    """Return about how long it takes to profile all active candidates."""
    return sum(each.starting_s + max(RUNNING_S, LEAST_RUNS * each.run_s) for each in run.active)


def profile_all(run: BenchmarkRun, task: Task) -> None:
    """Profile one candidate after the other; one that cannot be profiled keeps its figures."""
    for candidate in run.active:
        if candidate.planned is not None:
            run.report(f"profiling {candidate.name}")
            left = run.budget.left + run.budget.reserved_s
            found = profile(candidate.planned, task, limit_s=max(LEAST_LIMIT_S, left))
            if isinstance(found, WorkerFault):
                candidate.notes = (*candidate.notes, f"its operators could not be profiled: {found.reason}")
            else:
                candidate.operators = found
