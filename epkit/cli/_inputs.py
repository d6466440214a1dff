"""What files does `--input` name?"""

from __future__ import annotations

from collections.abc import Iterable

from epkit.errors import ConfigError


def named_files(given: Iterable[str]) -> dict[str, str]:
    """Read `NAME=FILE.npy` pairs; raises ConfigError for one without a name."""
    inputs = {}
    for pair in given:
        name, equals, file = pair.rpartition("=")
        if not equals:
            raise ConfigError(f"--input {pair} names no input", hint="write --input NAME=FILE.npy")
        inputs[name] = file
    return inputs
