"""`epkit export`: from a PyTorch module to an ONNX file that computes the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from epkit.cli import _options
from epkit.cli import output as show


def _read_dynamic(context: click.Context, param: click.Parameter, value: str) -> object:  # noqa: ARG001
    """Read "auto", "none", or "ids:0=batch,1=tokens;mask:0=batch"; the callback of an option."""
    if value in ("auto", "none"):
        return None if value == "none" else value
    axes: dict[str, dict[int, str]] = {}
    for part in value.split(";"):
        name, colon, listed = part.partition(":")
        try:
            pairs = [pair.split("=") for pair in listed.split(",")]
            axes[name] = {int(axis): size for axis, size in pairs}
        except ValueError:
            colon = ""
        if not colon:
            raise click.BadParameter(f"{part!r} names no axes; write INPUT:0=batch,1=tokens")
    return axes


@click.command()
@click.argument("source", metavar="FILE.py:NAME|FILE.pt2")
@click.option(
    "--example", metavar="FILE.py:NAME", help="The arguments of one call: a tensor, a tuple, or a dict by name."
)
@click.option("--output", required=True, metavar="FILE.onnx", help="Write the model to FILE.onnx.")
@click.option("--opset", type=int, metavar="N", help="The opset to write, 18 to 26; the exporter's default without it.")
@click.option(
    "--dynamic",
    default="auto",
    callback=_read_dynamic,
    metavar="auto|none|INPUT:0=NAME,...",
    help="Leave these axes open: axis 0 of the inputs (auto), no axis (none), or those listed, inputs divided by ';'.",
)
@click.option("--tolerance", default="auto", metavar="SHARE", help="Allow this share of an output's largest magnitude.")
@click.option("--legacy", is_flag=True, help="Use PyTorch's older exporter.")
@click.option("--force", is_flag=True, help="Replace FILE.onnx.")
@_options.as_json
@click.pass_context
def export(
    context: click.Context,
    source: str,
    example: str | None,
    output: str,
    opset: int | None,
    dynamic: object,
    tolerance: str,
    legacy: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Export a PyTorch module to one ONNX file, and prove that the file computes the same.

    FILE.py:NAME is a module, or a function that returns one; FILE.pt2 was written by torch.export.save. The module is
    run in eval mode, in PyTorch and in ONNX Runtime, at batch sizes of 1, 2, 3 and 5. Exit code 1 when the outputs
    differ, or when two runs of the module do: then nothing is written.
    """
    from epkit.prepare.export.process import export_in_child

    arguments = {
        "output": output,
        "opset": opset,
        "dynamic": dynamic,
        "tolerance": tolerance,
        "legacy": legacy,
        "force": force,
    }
    reply = export_in_child(source, example, arguments)
    if as_json and reply.document is not None:
        show.document(reply.document)
    if reply.refused:
        from epkit.errors import ExportRefused

        refusal = ExportRefused(reply.refused, hint=reply.hint)
        if not as_json or reply.document is None:
            raise refusal
        show.fault(refusal)
        context.exit(refusal.exit_code)
    if not as_json and reply.document is not None:
        _print(reply.document, reply.summary)


def _print(document: Mapping[str, Any], summary: str) -> None:
    show.title(f"{document['file']}: {summary}")
    show.line(f"{document['parity']['told']}, {show.format_bytes(document['bytes'])}")
    for note in document["notes"]:
        show.line(f"note: {note}")
