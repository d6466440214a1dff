"""Define the errors of epkit, as one tree.

EpkitError
├── ConfigError         the request is wrong; also a ValueError                 exit 2
│   ├── UnknownTarget       no target or provider has that name
│   └── InputError          the inputs of a run do not fit the model
├── PluginError         a plugin is broken (EPKIT_STRICT_PLUGINS=1 raises it)   exit 3
├── ProviderError       a required provider is unavailable                      exit 3
│   ├── ProviderUnavailable     this machine does not have it
│   └── ProviderDropped         it failed to open, or took too few nodes
├── RuntimeMissing      ONNX Runtime itself is not installed                    exit 3
├── ModelError          the model cannot be read or run by any provider         exit 4
├── ExportRefused       what was exported does not compute what the module does exit 1
└── RunError            a run failed; never silently retried elsewhere          exit 4
    ├── RunTimeout          its time limit passed; also a TimeoutError
    ├── RunCancelled        its options were cancelled
    └── SessionClosed       the session was closed

A message is one sentence: what was asked and what was found. `hint` is the next thing to type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

LISTED = 24
"""The most names that an error lists."""
# Some paths have a thousand characters.
_LONGEST_WORD = 1024
_LONGEST_TEXT = 2000


class EpkitError(Exception):
    """The base class of all errors of epkit."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = shorten(message)
        self.hint = shorten(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class ConfigError(EpkitError, ValueError):
    """The request is invalid: a key, a value, a name, a file."""

    exit_code = 2


class UnknownTarget(ConfigError):
    """No target or provider has the requested name."""


class InputError(ConfigError):
    """The inputs of a run do not fit the model."""


class PluginError(EpkitError):
    """A plugin is broken."""

    exit_code = 3


class ProviderError(EpkitError):
    """A required provider is unavailable."""

    exit_code = 3


class ProviderUnavailable(ProviderError):
    """This machine does not have the provider."""


class ProviderDropped(ProviderError):
    """A provider that the target requires failed to open or took too few nodes, or no provider is left."""


class RuntimeMissing(EpkitError):
    """ONNX Runtime is not installed, or cannot be imported."""

    exit_code = 3


class ModelError(EpkitError):
    """The model cannot be read, or no provider can run it."""

    exit_code = 4


class ExportRefused(EpkitError):
    """What was exported does not compute what the module does, or the module is no function of its inputs.

    Nothing was written. `exported` describes what was tried, where it came to a file: an `Exported`.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", exported: object = None) -> None:
        super().__init__(message, hint=hint)
        self.exported = exported


class RunError(EpkitError):
    """A run failed. It is never silently retried on another provider."""

    exit_code = 4


class RunTimeout(RunError, TimeoutError):
    """A run exceeded its time limit."""


class RunCancelled(RunError):
    """A run was stopped by `cancel` of its options."""


class SessionClosed(RunError):
    """The session was closed before this call."""


def shorten(text: str) -> str:
    """Return a text with the middle of an overlong word, or of an overlong text, cut out."""
    if len(text) <= _LONGEST_WORD:
        return text
    cut = re.sub(rf"\S{{{_LONGEST_WORD},}}", lambda word: _ends(word[0], _LONGEST_WORD // 4), text)
    return cut if len(cut) <= _LONGEST_TEXT else _ends(cut, _LONGEST_TEXT // 2)


def _ends(text: str, kept: int) -> str:
    return f"{text[:kept]}... ({len(text)} characters) ...{text[-kept:]}"


def nearest(word: str, known: Iterable[str], what: str = "known") -> str:
    """Return a hint: the nearest spelling if one is close, and the valid names."""
    names = sorted(known)
    near = get_close_matches(word.lower(), names, n=1) or get_close_matches(word, names, n=1)
    # A long list is left out if there is a suggestion.
    shown = names if len(names) <= LISTED else [] if near else [*names[:LISTED], f"and {len(names) - LISTED} more"]
    listing = f"{what}: {', '.join(shown) or 'none'}" if shown or not near else ""
    return " ".join(filter(None, (f"did you mean {near[0]!r}?" if near else "", listing)))
