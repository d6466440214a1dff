"""epkit runs an ONNX model on the best execution provider that a machine really has, and says which one it was.

import epkit

session = epkit.open("model.onnx")
print(session.report.provider, session.report.placement)
outputs = session.run({"image": image})
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from epkit import errors
from epkit._version import __version__
from epkit.errors import EpkitError

if TYPE_CHECKING:
    from epkit.benchmark.measure import bench
    from epkit.catalogue import providers
    from epkit.checkup import doctor
    from epkit.compilation import compile
    from epkit.events import observe
    from epkit.explanation import explain
    from epkit.footprint import inspect
    from epkit.opened import Session
    from epkit.parity.comparison import compare
    from epkit.run.binding import Binding
    from epkit.run.copies import Copy
    from epkit.run.device import DeviceArray
    from epkit.run.options import RunOptions
    from epkit.scaffold import new_plugin
    from epkit.session import open
    from epkit.zipmap import drop_zipmap

__all__ = [
    "Binding",
    "Copy",
    "DeviceArray",
    "EpkitError",
    "RunOptions",
    "Session",
    "__version__",
    "bench",
    "compare",
    "compile",
    "doctor",
    "drop_zipmap",
    "errors",
    "explain",
    "inspect",
    "new_plugin",
    "observe",
    "open",
    "providers",
]

# Imported on first use: `import epkit` brings neither pydantic nor NumPy nor ONNX Runtime.
_HOMES = {
    "Binding": "epkit.run.binding",
    "Copy": "epkit.run.copies",
    "DeviceArray": "epkit.run.device",
    "RunOptions": "epkit.run.options",
    "Session": "epkit.opened",
    "bench": "epkit.benchmark.measure",
    "compare": "epkit.parity.comparison",
    "compile": "epkit.compilation",
    "doctor": "epkit.checkup",
    "drop_zipmap": "epkit.zipmap",
    "explain": "epkit.explanation",
    "inspect": "epkit.footprint",
    "new_plugin": "epkit.scaffold",
    "observe": "epkit.events",
    "open": "epkit.session",
    "providers": "epkit.catalogue",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'epkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
