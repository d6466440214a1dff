"""Run the model on one target, in a process of its own.

Opens a model, runs it on each input that is asked for, and writes the outputs to files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epkit._system.process import serve_one

if TYPE_CHECKING:
    from epkit.config.target import Target
    from epkit.model.file import TensorInfo


def run(request: Mapping[str, Any]) -> dict[str, object]:
    """Open the model, and run it on the inputs of each seed.

    A seed that makes no other inputs than one before is left out, unless runs are to be repeated. Without a seed, the
    model is only opened, for what it says of its outputs.
    """
    from epkit.model.assumed_sizes import read_image_hints
    from epkit.model.shapes import infer_sizes
    from epkit.parity.feed import Feed, made, settled
    from epkit.parity.outputs import described, digest, flat, write
    from epkit.session.opening import open_plan
    from epkit.session.request import OpenRequest, strictly

    model, planned = OpenRequest.from_json(request).resolve(_without_promises if request["altered"] else strictly)
    runs: list[dict[str, object]] = []
    with open_plan(model, planned.plan, planned.answers) as session:
        wanted = Feed(**request["feed"])
        if request["seeds"]:
            wanted = settled(session, model, wanted)
        known = read_image_hints(model)
        inputs = made(session.inputs, wanted, known)
        for seed in request["seeds"]:
            feed = made(session.inputs, wanted, known, seed).feed
            sha256 = digest(feed)
            if any(run["inputs_sha256"] == sha256 for run in runs) and not request["repeats"]:
                continue
            file = Path(request["into"]) / f"{len(runs)}.npz"
            write(flat(session.run(feed)), file)
            runs.append({"seed": seed, "inputs_sha256": sha256, "file": str(file)})
        sizes = infer_sizes(session.inputs, {name: getattr(value, "shape", ()) for name, value in inputs.feed.items()})
        return {
            "provider": session.report.provider,
            "summary": session.report.summary(),
            "notes": list(session.report.notes),
            "runs": runs,
            "inputs": described(inputs.feed, wanted.files),
            "assumed": inputs.assumed,
            "outputs": [_described(output, sizes) for output in session.outputs],
        }


def _without_promises(target: Target) -> Target:
    """Drop what is asked of placement, cache and graphs: it is meant for the model before it was altered."""
    from epkit.session.request import strictly

    return replace(strictly(target), min_placement=None, cache=False, cuda_graph=False)


def _described(output: TensorInfo, sizes: Mapping[str, int]) -> dict[str, object]:
    """Say what is known of an output; a size that is not known is a text or None."""
    shape = (None,) if output.shape is None else output.shape
    return {"name": output.name, "dtype": output.dtype, "shape": [sizes.get(str(size), size) for size in shape]}


if __name__ == "__main__":
    serve_one(run)
