"""`epkit explain`: the plan, the effective configuration with origins, the plain ONNX Runtime script."""

from __future__ import annotations

import click

from epkit.cli import _options, _show


@click.command()
@click.argument("model")
@_options.target
@_options.timeout
@_options.config
@_options.refresh
@_options.as_json
def explain(model: str, target: str | None, config: str | None, refresh: bool, as_json: bool) -> None:
    """Say what would be tried for MODEL, with which settings and why, without opening it.

    It ends with the same session as a script in plain ONNX Runtime.
    """
    from epkit import explanation

    told = explanation.explain(model, target, config=config, refresh=refresh)
    if as_json:
        _show.document(told.as_json())
        return
    _show.title(f"{told.target}: {told.why}")
    if told.refusal:
        _show.line(f"it would be refused: {told.refusal}")
    _show.table(("provider", "decision", "why"), [(row.provider, row.decision, row.reason) for row in told.plan])
    _show.advice((row.provider, row.hint) for row in told.plan)
    _show.table(("key", "value", "origin"), [(one.key, _value(one.value), one.origin) for one in told.effective])
    _show.line(f"buffers of a binding: {told.device}")
    _show.table(("call", "inputs", "outputs"), [(one.call, one.inputs, one.outputs) for one in told.copies])
    _show.line(told.graph.summary())
    _show.line(f"warm-up: {told.warmup_why}")
    if len(told.warmup) > 1:
        rows = [
            (_show.shapes(one.shapes), f"{one.runs} to {one.most}" if one.most > one.runs else one.runs, one.why)
            for one in told.warmup
        ]
        _show.table(("warm-up", "runs", "why"), rows, numbers=("runs",))
    _show.caches(told.cache)
    for note in told.notes:
        _show.line(f"note: {note}")
    _show.title("the same without epkit:")
    _show.lines(told.script)


def _value(value: object) -> str:
    match value:
        case None:
            return "not set"
        case bool():
            return str(value).lower()
        case "":
            return '""'
        case _:
            return str(value).replace("\n", "\\n")
