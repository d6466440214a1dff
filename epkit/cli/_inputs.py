"""Parse `--input NAME=FILE.npy`."""

from __future__ import annotations

from collections.abc import Iterable

from epkit.errors import ConfigError


def named_files(given: Iterable[str]) -> dict[str, str]:
    """Return the file of each input; raises ConfigError for an item without a name."""
    inputs = {}
    for pair in given:
        name, equals, file = pair.rpartition("=")
        if not equals:
            raise ConfigError(f"--input {pair} names no input", hint="write --input NAME=FILE.npy")
        inputs[name] = file
    return inputs
