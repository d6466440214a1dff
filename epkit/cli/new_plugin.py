"""`epkit new-plugin`: write a plugin that installs and passes the conformance kit."""

from __future__ import annotations

import click

from epkit.cli import _options, output


@click.command("new-plugin")
@click.argument("name")
@click.option("--library", metavar="WHEEL", help="Use the plugin library in WHEEL, such as onnxruntime-ep-openvino.")
@click.option("--output-dir", metavar="DIR", help="Write to DIR instead of ./epkit-NAME.")
@_options.as_json
def new_plugin(name: str, library: str | None, output_dir: str | None, as_json: bool) -> None:
    """Write a plugin with a provider NAME: a distribution that installs and passes the conformance kit.

    Without --library, the provider is one that is built into ONNX Runtime. An existing directory is an error.
    """
    from epkit.discovery import scaffold

    written = scaffold.new_plugin(name, library=library, output_dir=output_dir)
    if as_json:
        output.document(written.as_json())
        return
    output.title(f"wrote {written.directory}, a plugin with the provider {name} ({written.ort_name})")
    for file in written.files:
        output.line(f"  {file}")
    for note in written.notes:
        output.line(f"note: {note}")
    output.line(f"next: {written.next}")
