"""Run an ONNX model on the best execution provider that works on this machine, and report which one it was.

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
    from epkit.benchmark.bench import bench
    from epkit.discovery.listing import providers
    from epkit.discovery.scaffold import new_plugin
    from epkit.model.zipmap import drop_zipmap
    from epkit.parity.compare import compare
    from epkit.prepare.export.export import export
    from epkit.runtime.binding import Binding
    from epkit.runtime.copies import Copy
    from epkit.runtime.device_array import DeviceArray
    from epkit.runtime.events import observe
    from epkit.runtime.run_options import RunOptions
    from epkit.session.compile import compile
    from epkit.session.doctor import doctor
    from epkit.session.explain import explain
    from epkit.session.memory import inspect
    from epkit.session.open import open
    from epkit.session.session import Session

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
    "export",
    "inspect",
    "new_plugin",
    "observe",
    "open",
    "providers",
]

# Imported on first use: `import epkit` brings neither pydantic nor NumPy nor ONNX Runtime.
_MODULES = {
    "Binding": "epkit.runtime.binding",
    "Copy": "epkit.runtime.copies",
    "DeviceArray": "epkit.runtime.device_array",
    "RunOptions": "epkit.runtime.run_options",
    "Session": "epkit.session.session",
    "bench": "epkit.benchmark.bench",
    "compare": "epkit.parity.compare",
    "compile": "epkit.session.compile",
    "doctor": "epkit.session.doctor",
    "drop_zipmap": "epkit.model.zipmap",
    "explain": "epkit.session.explain",
    "export": "epkit.prepare.export.export",
    "inspect": "epkit.session.memory",
    "new_plugin": "epkit.discovery.scaffold",
    "observe": "epkit.runtime.events",
    "open": "epkit.session.open",
    "providers": "epkit.discovery.listing",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'epkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
