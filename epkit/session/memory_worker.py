"""Measure what one batch size takes, in a process of its own.

Memory is read before the model is opened, with it open, and while it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epkit._system.platform import peak_rss, reset_peak_rss, rss
from epkit._system.process import serve_one

RUNS = 2
"""ONNX Runtime plans the memory of a shape with its first run and allocates by that plan from the second on."""


def measure(request: Mapping[str, Any]) -> dict[str, object]:
    """Open the model and run it."""
    from epkit.model.assumed_sizes import read_image_hints
    from epkit.model.shapes import batch_dimensions
    from epkit.runtime import api
    from epkit.runtime.size_search import KnownInputs, first_run
    from epkit.session.opening import open_plan
    from epkit.session.request import OpenRequest, apart

    model, planned = OpenRequest.from_json(request).resolve(apart)
    api.load()
    before = rss()
    session = open_plan(model, planned.plan, planned.answers)
    opened = rss()
    dimensions = planned.plan.target.warmup.dimensions | request["dimensions"]
    sizes = dimensions | dict.fromkeys(batch_dimensions(session.inputs, dimensions), request["batch"])
    ran = first_run(session.run, session.inputs, KnownInputs(dimensions=sizes), read_image_hints(model))
    assumed, feed = ran.made.assumed, ran.made.feed
    del ran
    reset_peak_rss()  # of inputs that were tried in vain
    for _ in range(RUNS):
        session.run(feed)
    peak = peak_rss()
    del feed
    kept = rss()
    return {
        "provider": session.report.provider,
        "summary": session.report.summary(),
        "assumed": assumed,
        "opened": _more(opened, before),
        "run": _more(peak, opened),
        "kept": _more(kept, opened),
    }


def _more(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else max(0, after - before)


if __name__ == "__main__":
    serve_one(measure)
