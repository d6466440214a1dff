"""What the tests need of a machine, in one place: asked for by capability, skipped with the probe's own reason.

    @needs(SECOND)              an engine beside the CPU's, whichever it is; LIBRARY and COMPILER likewise
    @needs("openvino")          a provider that the test is about
    @needs("plugin openvino")   a plugin that is installed, whether its provider can be had or not
    @needs("2 cores")           what this process may use; also "8 GiB" of free memory
    @needs("avx512f")           instructions, as Linux spells them
    @needs("torch")             PyTorch, which epkit requires nowhere
    @needs("an Intel CPU")      where a library of Intel's itself looks for one

A parameter that is a provider's name, alone or in a tuple, is needed without saying so.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SECOND = "openvino"
"""An engine beside the CPU's own."""
LIBRARY = "openvino"
"""A provider that comes as a plugin library of ONNX Runtime."""
COMPILER = "openvino"
"""A provider that compiles a model when it opens it, and starts from what is kept of that."""

_NAMES = ("openvino", "webgpu")
_FAULTY = re.compile(r"faulty-(openvino)-.+")


def needs(*capabilities: str) -> pytest.MarkDecorator:
    """Mark a test, a parameter or, as `pytestmark`, a module as one that needs all of these."""
    return pytest.mark.needs(*capabilities)


def lacking(capability: str) -> str:
    """Return why this machine does not have it; empty where it does."""
    from epkit._system import platform

    if found := re.fullmatch(r"(\d+) cores", capability):
        cores = platform.usable_cores()
        return "" if cores >= int(found[1]) else f"needs {capability}, and this process may use {cores}"
    if found := re.fullmatch(r"(\d+) GiB", capability):
        free = (platform.free_memory() or 0) / 2**30
        return "" if free >= int(found[1]) else f"needs {capability} of memory, and {free:.1f} GiB are free"
    if found := re.fullmatch(r"plugin (\S+)", capability):
        return _left_out(found[1])
    if capability == "torch":
        return "" if importlib.util.find_spec("torch") else "PyTorch is not installed: pip install torch"
    if capability == "an Intel CPU":
        return "" if "GenuineIntel" in _of_the_processor("vendor_id") else "this processor is not Intel's"
    if re.match(r"(avx|amx|sse)", capability):
        return "" if capability in _of_the_processor("flags") else f"this processor has no {capability}"
    return _unusable(capability)


def skip_unless_there(item: pytest.Item) -> None:
    """Skip a test where the machine lacks something that it needs."""
    for capability in dict.fromkeys(_needed(item)):
        if why := lacking(capability):
            pytest.skip(why)


def _needed(item: pytest.Item) -> Iterator[str]:
    for mark in item.iter_markers("needs"):
        yield from mark.args
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    for parameter in parameters:
        yield from _named(parameter)


def _named(parameter: Any) -> Iterator[str]:
    for part in parameter if isinstance(parameter, tuple) else (parameter,):
        if isinstance(part, str):
            found = _FAULTY.fullmatch(part)
            name = found[1] if found else part
            if name in _NAMES:
                yield name


@functools.cache
def _of_the_processor(key: str) -> frozenset[str]:
    try:
        found = re.search(rf"^{key}\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(found[1].split()) if found else frozenset()


@functools.cache
def _left_out(name: str) -> str:
    from epkit.discovery.registry import discover

    found = {entry.name: entry.reason for entry in discover().entries if entry.provider is None}
    return found.get(name, "") if name in {entry.name for entry in discover().entries} else f"{name} is not installed"


@functools.cache
def _unusable(provider: str) -> str:
    import epkit

    rows = {row.name: row for row in epkit.providers().rows}
    if provider not in rows:
        return f"{provider} is not installed"
    return "" if rows[provider].status == "usable" else f"{provider}: {rows[provider].reason}"
