"""Define the options that several commands share."""

from __future__ import annotations

import click

from epkit.cli import _limit

target = click.option(
    "-t", "--target", metavar="NAME", help="Run on this target of the config, or on this provider and no other."
)
config = click.option("--config", metavar="FILE", help="Read this config file instead of the nearest epkit.toml.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
refresh = click.option("--refresh", is_flag=True, help="Probe again instead of using cached results.")
timeout = click.option(
    "--timeout",
    type=float,
    callback=_limit.limited,
    expose_value=False,
    metavar="SECONDS",
    help="End the command after this time, with exit code 4.",
)


def sizes(context: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:  # noqa: ARG001
    """Parse "1,4,16" (the callback of an option)."""
    try:
        return tuple(int(part) for part in value.split(",")) if value is not None else ()
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of numbers such as 1,4,16") from None


def _one_size(context: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, int]:
    """Parse "frames=2", given once or repeated (the callback of an option)."""
    found = dimensions(context, param, value)
    for name, listed in found.items():
        if len(listed) != 1:
            raise click.BadParameter(f"{name!r} has {len(listed)} sizes; give one: NAME=2")
    return {name: listed[0] for name, listed in found.items()}


def dimensions(context: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Parse "frames=1,2", given once or repeated (the callback of an option)."""
    found: dict[str, tuple[int, ...]] = {}
    for item in value:
        name, equals, listed = item.rpartition("=")
        if not (equals and name):
            raise click.BadParameter(f"{item!r} names no dimension; write NAME=1,2")
        found[name] = (*found.get(name, ()), *sizes(context, param, listed))
    return found


one_size = click.option(
    "--dim",
    "dimensions",
    callback=_one_size,
    multiple=True,
    metavar="NAME=2",
    help="Set the size of a dynamic dimension of generated inputs.",
)
