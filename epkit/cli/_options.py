"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable

import click

target = click.option("-t", "--target", metavar="NAME", help="A target of the config, or a provider (then strictly).")
config = click.option("--config", metavar="FILE", help="The config file, instead of the nearest epkit.toml.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
refresh = click.option("--refresh", is_flag=True, help="Probe anew instead of trusting remembered answers.")


class Sizes(click.ParamType):
    """A list of sizes, as in 1,4,16."""

    name = "sizes"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Read "1,4,16"."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 1,4,16", param, ctx)


class Dimension(click.ParamType):
    """A dynamic dimension with its sizes, as in frames=1,2."""

    name = "dimension"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """Read "frames=1,2"."""
        name, equals, sizes = value.rpartition("=")
        if not (equals and name):
            self.fail(f"{value!r} names no dimension; write NAME=1,2", param, ctx)
        return name, Sizes().convert(sizes, param, ctx)


def gathered(dimensions: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    """Return the sizes of each dimension that was named, once or several times."""
    found: dict[str, tuple[int, ...]] = {}
    for name, sizes in dimensions:
        found[name] = (*found.get(name, ()), *sizes)
    return found
