"""Explain why a model cannot be opened by any provider, and what to do about it."""

from __future__ import annotations

import contextlib
import re

from epkit.errors import ConfigError, ModelError
from epkit.model.file import Model, read_model

# ONNX Runtime has no code for these causes; they are recognised by its words.
_OLDEST = 7
"""The oldest opset of which ONNX Runtime has kernels of all operators."""


def model_fault(model: str | bytes, cause: str, *, cpu: bool) -> ModelError:
    """Return the error of a model that not even the CPU alone opens, or, where that is forbidden, any provider."""
    name = model if isinstance(model, str) else "the model given as bytes"
    tried = "the CPU alone" if cpu else "any provider alone"
    return ModelError(f"{name} cannot be opened, not even by {tried}: {cause}", hint=_advice(cause, model))


def _advice(cause: str, model: str | bytes) -> str:
    lowered = cause.lower()
    escapes = re.search(r'path: "(.*?)" resolved path: "(.*?)" allowed directory: "(.*?)"', cause)
    if escapes and not re.search(r"^/|\.\.", escapes[1]):
        return (
            f"the data may be no link to another folder: cp --remove-destination {escapes[2]} {escapes[3]}/{escapes[1]}"
        )
    if escapes or "absolute path not allowed" in lowered:
        return "save it with its data beside it: onnx.save(onnx.load(MODEL), NEW, save_as_external_data=True)"
    domain = re.search(r"no opset import for domain '(.*?)'", cause, re.IGNORECASE)
    if domain:
        return (
            f"say the version: model.opset_import.append(onnx.helper.make_opsetid({domain[1]!r}, 1)), and save it again"
        )
    found = _reread(model)
    if found is not None and found.format != _expected_format(model):
        return f"it is in {found.format.upper()} format, and ONNX Runtime goes by the suffix: call it .{found.format}"
    if found is not None and 0 < found.opsets.get("ai.onnx", _OLDEST) < _OLDEST:
        message = f"its opset is {found.opsets['ai.onnx']}, and ONNX Runtime has operators from {_OLDEST} on"
        return f"{message}: onnx.version_converter.convert_version(onnx.load(MODEL), 17)"
    if "ir version" in lowered or "ir_version" in lowered:
        return "export it with an older onnx package, or: pip install -U onnxruntime-gpu"
    if "opset" in lowered:
        return "export it with an older opset, or: pip install -U onnxruntime-gpu"
    if "is not a registered function/op" in lowered or "no op registered for" in lowered:
        return "name the library that brings the operator under session_options.custom_ops_libraries"
    return f"epkit inspect {model if isinstance(model, str) else 'MODEL'}"


def _reread(model: str | bytes) -> Model | None:
    """Read the model's file once more, for its format and opsets; None where that fails."""
    with contextlib.suppress(ModelError, ConfigError):
        return read_model(model)
    return None


def _expected_format(model: str | bytes) -> str:
    """Return the format in which ONNX Runtime reads the model: of a file it looks at the suffix."""
    if isinstance(model, str):
        return "ort" if model.endswith(".ort") else "onnx"
    return "ort" if model[4:8] == b"ORTM" else "onnx"
