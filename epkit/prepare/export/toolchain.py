"""Import PyTorch and the packages that its exporter needs, or name the command that installs them."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from epkit.errors import ConfigError

TORCH_HINT = "pip install torch; its build for CPUs is enough"
_EXTRA = ("onnx", "onnx_ir", "onnxscript")


def require() -> ModuleType:
    """Return PyTorch; raises ConfigError where it, or what its exporter needs, is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError("PyTorch is not installed, and exporting needs it", hint=TORCH_HINT)
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ConfigError(
            f"exporting needs {', '.join(missing)}, which {verb} not installed", hint='pip install "epkit[export]"'
        )
    import torch

    module: ModuleType = torch
    return module
