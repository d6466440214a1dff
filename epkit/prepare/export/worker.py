"""Export what a command names, in a process of its own: PyTorch and the user's code stay out of the command's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epkit._system.process import serve_one


def run(request: Mapping[str, Any]) -> dict[str, object]:
    """Load module and example, export, and return the document; a refusal is part of the reply."""
    from epkit.errors import ExportRefused
    from epkit.prepare.export.export import export
    from epkit.prepare.export.result import Exported
    from epkit.prepare.export.source import load_attribute
    from epkit.prepare.export.toolchain import require

    require()
    source, example = request["source"], request["example"]
    module = source if not source.rpartition(":")[0].endswith(".py") else load_attribute(source)
    given = None if example is None else load_attribute(example)
    try:
        exported = export(module, given, **_with_axes(request["arguments"]))
    except ExportRefused as refusal:
        document = refusal.exported.as_json() if isinstance(refusal.exported, Exported) else None
        return {"refused": refusal.message, "hint": refusal.hint, "document": document}
    return {"document": exported.as_json(), "summary": exported.summary()}


def _with_axes(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with axes as numbers, which JSON writes as texts."""
    dynamic = arguments["dynamic"]
    if isinstance(dynamic, Mapping):
        dynamic = {name: {int(axis): size for axis, size in axes.items()} for name, axes in dynamic.items()}
    return {**arguments, "dynamic": dynamic}


if __name__ == "__main__":
    serve_one(run)
