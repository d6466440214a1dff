"""The command line: one module a command, each a thin skin over one function of the Python API.

Heavy imports are inside the commands, so that `epkit --help` is fast.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from epkit._system import telemetry
from epkit._version import __version__
from epkit.cli import _edge
from epkit.cli.bench import bench
from epkit.cli.cache import cache
from epkit.cli.compare import compare
from epkit.cli.compile import compile
from epkit.cli.doctor import doctor
from epkit.cli.explain import explain
from epkit.cli.export import export
from epkit.cli.inspect import inspect
from epkit.cli.new_plugin import new_plugin
from epkit.cli.providers import providers
from epkit.cli.run import run
from epkit.errors import nearest


class _Commands(click.Group):
    """List commands in the order of definition, and suggest the nearest name for an unknown one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            ctx.fail(f"no command is named {args[0]!r}; {nearest(args[0], self.commands, what='commands')}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="epkit %(version)s")
def app() -> None:
    """Run ONNX models on the best ONNX Runtime execution provider that works on this machine.

    \b
    Exit codes:
      0: success
      1: the answer is no
      2: the request is invalid
      3: a required provider is unavailable
      4: the model cannot be read or run
    """  # noqa: D301 - click takes the character \b, not its spelling


for _command in (providers, doctor, inspect, explain, run, bench, compare, compile, cache, export, new_plugin):
    app.add_command(_command)


def main() -> NoReturn:
    """Run the command line, and exit with its exit code."""
    telemetry.keep_off()
    sys.exit(_edge.call(app))
