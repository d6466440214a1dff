"""x"""

import click


@click.command()
def bench() -> None:
    """X"""
