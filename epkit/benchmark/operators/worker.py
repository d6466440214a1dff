"""Profile the operators of one candidate; the entry point of a process.

Opens the model with ONNX Runtime's profiler, warms up, runs for a short while, and reads the profile. Then it runs on
without the profiler, to measure what that costs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epkit._system.process import serve_one
from epkit.errors import RunError

if TYPE_CHECKING:
    from epkit.config.target import Target
    from epkit.session.session import Session

WARM_RUNS, WARM_S = 10, 1.0
RUNS, RUN_S = 20, 2.0
LEAST = 2
"""ONNX Runtime plans the memory of a shape with its first run, and allocates by that plan from the second on."""
EVENTS = 50_000
"""A profile takes a kilobyte an event."""


def profile(request: Mapping[str, Any]) -> dict[str, object]:
    """Open the model with the profiler, run it, and read the profile."""
    from dataclasses import replace

    from pydantic import TypeAdapter

    from epkit.benchmark.operators.profile import Operators, read_profile
    from epkit.model.assumed_sizes import read_image_hints
    from epkit.parity.feed import Feed, made
    from epkit.runtime.api import CPU_ORT_NAME
    from epkit.runtime.configured import CPU
    from epkit.runtime.plugin_calls import call_plugin
    from epkit.session.opening import open_plan
    from epkit.session.request import OpenRequest, strictly

    notes: list[str] = []

    def without_graph(target: Target) -> Target:
        if target.cuda_graph:
            notes.append("profiled without its CUDA graph: replaying one shows no nodes")
        return replace(strictly(target), cuda_graph=False)

    model, planned = OpenRequest.from_json(request).resolve(without_graph)
    plan = planned.plan
    with open_plan(model, plan, planned.answers) as session:
        feed = made(session.inputs, Feed(**request["feed"]), read_image_hints(model)).feed
        binding = session.bind(feed) if request["bound"] else None
        run: Callable[[], object] = binding.run if binding is not None else lambda: session.run(feed)
        nodes = sum(share.nodes for share in session.report.placement.values())
        most = LEAST if session.report.placement_unknown else min(RUNS, max(LEAST, EVENTS // max(1, nodes)))
        _times(run, min(WARM_RUNS, most), WARM_S)
        last = len(_times(run, most, RUN_S))
        events = json.loads(_end_profiling(session).read_bytes())
        plain_s = min(_times(run, last, RUN_S, least=1))
    found = read_profile(
        events,
        {CPU_ORT_NAME: CPU} | {each.provider.ort_name: each.name for each in plan.chain},
        first=plan.target.first.name,
        last=last,
        plain_s=plain_s,
        launched=[
            each.name for each in plan.chain if call_plugin(each.provider.devices.memory_device, each.device) != "cpu"
        ],
        notes=notes,
    )
    if found is None:
        raise RunError("a run of this model has more events than ONNX Runtime's profiler keeps, a million")
    return {"operators": TypeAdapter(Operators).dump_python(found, mode="json")}


def _times(run: Callable[[], object], most: int, seconds: float, *, least: int = LEAST) -> list[float]:
    """Run so often, or for so long, and `least` times in any case; return the seconds of each run."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or (len(times) < most and time.perf_counter() < end):
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return times


def _end_profiling(session: Session) -> Path:
    """Have ONNX Runtime write the profile, and return where."""
    return Path(session._caller.session.end_profiling())


if __name__ == "__main__":
    serve_one(profile)
