"""`epkit explain`: print the plan, the settings with their origins, and a plain ONNX Runtime script."""

from __future__ import annotations

import click

from epkit.cli import _options, output


@click.command()
@click.argument("model")
@_options.target
@_options.timeout
@_options.config
@_options.refresh
@_options.as_json
def explain(model: str, target: str | None, config: str | None, refresh: bool, as_json: bool) -> None:
    """Show which providers would be tried for MODEL, with which settings and why, without opening it.

    The last part is a script that opens the same session with plain ONNX Runtime.
    """
    from epkit.session import explain as explanation

    told = explanation.explain(model, target, config=config, refresh=refresh)
    if as_json:
        output.document(told.as_json())
        return
    output.title(f"{told.target}: {told.why}")
    if told.refusal:
        output.line(f"it would be refused: {told.refusal}")
    output.table(("provider", "decision", "why"), [(row.provider, row.decision, row.reason) for row in told.plan])
    output.advice((row.provider, row.hint) for row in told.plan)
    output.table(
        ("key", "value", "origin"), [(entry.key, _value(entry.value), entry.origin) for entry in told.effective]
    )
    output.line(f"buffers of a binding: {told.device}")
    output.table(("call", "inputs", "outputs"), [(row.call, row.inputs, row.outputs) for row in told.copies])
    output.line(told.graph.summary())
    output.line(f"warm-up: {told.warmup_why}")
    if len(told.warmup) > 1:
        rows = [
            (output.shapes(one.shapes), f"{one.runs} to {one.most}" if one.most > one.runs else one.runs, one.why)
            for one in told.warmup
        ]
        output.table(("warm-up", "runs", "why"), rows, numbers=("runs",))
    output.caches(told.cache)
    for note in told.notes:
        output.line(f"note: {note}")
    output.title("the same without epkit:")
    output.lines(told.script)


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
