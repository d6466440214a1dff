"""Breaks a promise: what it has compiled is good for ever, it says, whatever compiled it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from epkit.hookspecs import hookimpl
from epkit.provider import Caching, Device, Options, Provider


class BrokenOptions(Options):
    """One option."""

    context_file_path: str | None = None
    """The folder for compiled models (none)."""


class NeverStale(Caching):
    """Keeps what is compiled for ever."""

    def with_dir(self, options: Options, device: Device | None, folder: Path | None) -> Options:
        """Keep what is compiled in the folder."""
        return options.model_copy(update={"context_file_path": folder and str(folder)})

    def fingerprint(self, device: Device | None) -> Sequence[str]:
        """List something that never changes."""
        return ["the Acme compiler"]


class Broken(Provider):
    """Forgets that compilers change."""

    name = "broken-never-stale"
    ort_name = "CPUExecutionProvider"
    options = BrokenOptions
    caching = NeverStale(compiles="opening")

    def add(self, runtime: ModuleType, session_options: Any, sent: Mapping[str, str], devices: Sequence[Any]) -> None:
        """Add the CPU, and compile: a file stands for it."""
        super().add(runtime, session_options, sent, devices)
        folder = sent.get("context_file_path")
        if folder and not (file := Path(folder) / "compiled.bin").exists():
            file.write_bytes(b"compiled")


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
