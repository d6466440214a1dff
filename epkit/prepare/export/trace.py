"""Let PyTorch write a module as an ONNX graph, and say what stands in the way where it cannot."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from epkit.errors import ConfigError, ModelError
from epkit.prepare.export.example_inputs import DynamicAxes
from epkit.prepare.export.leaves import find_tensors
from epkit.prepare.export.subject import Subject
from epkit.prepare.export.user_code import describe_place

if TYPE_CHECKING:
    import onnx_ir as ir

OPSETS = range(18, 27)
"""The opsets that `torch.onnx.export` writes itself; ONNX Runtime 1.31 reads up to 26."""
LEGACY_OPSETS = range(9, 24)
_STATIC = re.compile(
    r"inferred a static shape of (?P<size>\d+) for dimension inputs\['?(?P<name>[^'\]]+)'?\].*shape\[(?P<axis>\d+)\]"
)
_VIOLATED = re.compile(
    r"Constraints violated \(L\['(?P<name>[^']+)'\]\.size\(\)\[(?P<axis>\d+)\].*?(?:constant \((?P<size>\d+)\)|\Z)",
    re.DOTALL,
)
_OPERATOR = re.compile(r"No (?:ONNX function|decompositions) (?:found|registered) for .*?op='(?P<name>[^']+)'")


def trace(
    subject: Subject, tensors: Mapping[str, Any], axes: DynamicAxes, opset: int | None, *, legacy: bool
) -> ir.Model:
    """Return the graph of the module, traced with these inputs; `axes` are left open.

    Raises ModelError with the line of the user's code, ConfigError for an opset that the exporter does not write.
    """
    known = LEGACY_OPSETS if legacy else range(min(OPSETS), max(OPSETS) + 1)
    if opset is not None and (opset > max(known) or opset < min(LEGACY_OPSETS)):
        raise ConfigError(f"opset {opset} cannot be written", hint=f"opsets: {min(known)} to {max(known)}")
    try:
        with _quiet():
            return _trace_legacy(subject, tensors, axes, opset) if legacy else _trace(subject, tensors, axes, opset)
    except Exception as error:
        raise explain_failure(error, legacy=legacy) from error


def _trace(subject: Subject, tensors: Mapping[str, Any], axes: DynamicAxes, opset: int | None) -> ir.Model:
    import torch

    program = subject.program
    if program is None:
        args, kwargs = subject.arguments(tensors)
        program = _capture(subject.module, args, kwargs, _dynamic_shapes(subject, axes))
    written = torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False)
    assert written is not None
    traced: ir.Model = written.model
    return traced


def _capture(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any) -> Any:
    """Return the module as a torch.export program; where one tracer fails, the other takes some modules."""
    import torch

    try:
        return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        with contextlib.suppress(Exception):
            return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=True)
        raise error from None


def _dynamic_shapes(subject: Subject, axes: DynamicAxes) -> Any:
    """Return for each argument which of its axes stay open, in the structure that `torch.export` asks for."""
    import inspect

    import torch
    from torch.utils import _pytree as pytree

    names = {id(tensor): name for name, tensor in subject.tensors.items()}

    def open_axes(leaf: object) -> object:
        name = names.get(id(leaf))
        return None if name is None else dict.fromkeys(axes.get(name, {}), torch.export.Dim.DYNAMIC)

    bound = inspect.signature(subject.module.forward).bind(*subject.args, **subject.kwargs)
    return pytree.tree_map(open_axes, dict(bound.arguments))


def _trace_legacy(subject: Subject, tensors: Mapping[str, Any], axes: DynamicAxes, opset: int | None) -> ir.Model:
    import onnx
    import onnx_ir as ir
    import torch

    if subject.program is not None:
        raise ConfigError("the legacy exporter reads no .pt2 file", hint="leave out --legacy")
    args, kwargs = subject.arguments(tensors)
    outputs = [path for path, _ in find_tensors(subject.call(tensors))]
    contents: Any = io.BytesIO()  # which the exporter takes, and does not declare
    torch.onnx.export(
        subject.module,
        (*args, kwargs),  # the last dict is taken for the arguments by name
        contents,
        dynamo=False,
        input_names=list(subject.tensors),
        output_names=subject.name_outputs(outputs),
        dynamic_axes={name: dict(open_axes) for name, open_axes in axes.items()},
        opset_version=opset,
    )
    return ir.from_proto(onnx.load_model_from_string(contents.getvalue()))


def explain_failure(error: Exception, *, legacy: bool = False) -> ModelError | ConfigError:
    """Return what PyTorch's error means for the person whose module it is."""
    if isinstance(error, ModelError | ConfigError):
        return error
    text = "\n".join(str(cause) for cause in _chain(error))
    place = describe_place(error)
    if found := _STATIC.search(text) or _VIOLATED.search(text):
        told = f"axis {found['axis']} of input {found['name']!r} came out fixed" + (
            f" at {found['size']}" if found["size"] else ""
        )
        hint = (
            "replace a loop over the batch, or a branch on its size, by operations on whole tensors; or: --dynamic none"
        )
        return ModelError(f"{told}: the module's code depends on that size{place}", hint=hint)
    if "data-dependent" in text:
        hint = "write the branch as torch.cond(predicate, if_true, if_false, operands), or as torch.where"
        return ModelError(
            f"the module branches on the values of its inputs, which a graph cannot follow{place}", hint=hint
        )
    if found := _OPERATOR.search(text):
        told = f"operator {found['name']} has no form in ONNX"
        hint = "write it with operators of PyTorch, or export from the part of the module before it"
        return ModelError(told + place, hint=hint)
    if "pytree" in text.lower():
        told = "an input or output is of a class that PyTorch cannot take apart"
        return ModelError(told + place, hint="torch.export.register_dataclass(YourClass), or return a dict")
    if "ScriptModule" in text or "RecursiveScriptModule" in text:
        told = "a ScriptModule cannot be traced again"
        return ModelError(told, hint="export the nn.Module that it was made from, or: --legacy")
    first = next((line for line in str(_chain(error)[-1]).splitlines() if line.strip()), type(error).__name__)
    return ModelError(
        f"PyTorch cannot export the module: {first.strip()}{place}",
        hint="leave out --legacy" if legacy else "--legacy tries PyTorch's older exporter",
    )


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    return chain


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and its hints to PyTorch's developers off stdout and stderr."""
    loggers = [logging.getLogger("torch"), logging.getLogger("onnxscript")]
    levels = [logger.level for logger in loggers]
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
