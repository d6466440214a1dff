"""The options that several commands share."""

from __future__ import annotations

import click

target = click.option("-t", "--target", metavar="NAME", help="A target of the config, or a provider (then strictly).")
config = click.option("--config", metavar="FILE", help="The config file, instead of the nearest epkit.toml.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
refresh = click.option("--refresh", is_flag=True, help="Probe anew instead of trusting remembered answers.")
