"""Check the buffers that a user gives for outputs, and whether a run wrote into its buffers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from epkit._system.arguments import type_name
from epkit.errors import InputError
from epkit.model.dtypes import Array, numpy_dtype, onnx_name
from epkit.model.file import TensorInfo, parse_ort_type
from epkit.model.shapes import BINDABLE_DTYPES, matches_declared
from epkit.runtime.convert import format_type
from epkit.runtime.device_array import CPU, DeviceArray, find_dlpack_place, overlaps, to_ort_value


@dataclass(frozen=True, slots=True)
class OutputBuffer:
    """The buffer for one output: what the caller gave, and the same memory as NumPy or ONNX Runtime sees it."""

    name: str
    given: object
    array: Array
    """On the CPU; of a device, an empty stand-in."""
    value: Any = None
    declared: bool = True
    """Whether the model declares such a shape: ONNX Runtime writes into no other, though it gives others."""

    @property
    def address(self) -> int | None:
        """Where it begins; None for a buffer without a byte."""
        if self.value is not None:
            return int(self.value.data_ptr())
        return int(self.array.ctypes.data) if self.array.nbytes else None

    def overlaps(self, other: OutputBuffer, place: str) -> bool:
        """Whether a byte of it is a byte of another's, where both are at one place."""
        if self.value is None or other.value is None:
            return np.may_share_memory(self.array, other.array)
        return overlaps(self.value, other.value, place)

    def bind(self, binding: Any) -> None:
        """Let ONNX Runtime write into it."""
        if self.value is not None:
            binding.bind_ortvalue_output(self.name, self.value)
            return
        array = self.array
        binding.bind_output(self.name, CPU, 0, array.dtype, array.shape, array.ctypes.data)


def check_buffers(
    given: Mapping[str, object], outputs: Sequence[TensorInfo], place: str, runtime: Any, session: Any
) -> dict[str, OutputBuffer]:
    """Check the buffers that a caller gives for outputs; raises InputError before ONNX Runtime sees one."""
    declared = {output.name: output for output in outputs}
    found = {
        name: check_buffer(declared[name], buffer, place, runtime, session)
        for name, buffer in given.items()
        if buffer is not None
    }
    for name, target in found.items():
        for other, second in found.items():
            if other != name and target.overlaps(second, place):
                raise InputError(f"outputs {name!r} and {other!r} are given the same buffer", hint="give each its own")
    return found


def check_buffer(output: TensorInfo, given: object, place: str, runtime: Any, session: Any) -> OutputBuffer:
    """Return the target for an output; raises InputError for a buffer that a result cannot be written into."""
    if output.dtype not in BINDABLE_DTYPES:
        message = f"output {output.name!r} is {output.dtype}, which cannot be written into a buffer"
        raise InputError(message, hint="leave it out of outputs")
    target = _on_cpu(output, given, runtime) if place == CPU else _on_device(output, given, place, runtime, session)
    if target.value is not None:
        dtype, shape = parse_ort_type(target.value.data_type()), tuple(target.value.shape())
    else:
        dtype, shape = onnx_name(target.array.dtype), target.array.shape
    if dtype != output.dtype or (output.shape is not None and len(shape) != len(output.shape)):
        declared = format_type(output.dtype, output.shape)
        message = f"output {output.name!r} is {declared}, its buffer {format_type(dtype, shape)}"
        raise InputError(message, hint="give a buffer of that type and shape, or none")
    return replace(target, declared=matches_declared(output, shape))


def are_written(addresses: Iterable[int | None], values: Iterable[Any]) -> bool:
    """Whether the outputs of a run, ONNX Runtime's `values`, are in the buffers at these addresses.

    An output that is an input passed through is not: ONNX Runtime replaces the buffer by the input's memory. A buffer
    without a byte has no address (None).
    """
    return all(address in (None, value.data_ptr()) for address, value in zip(addresses, values, strict=True))


def _on_cpu(output: TensorInfo, given: object, runtime: Any) -> OutputBuffer:
    if isinstance(given, DeviceArray) or find_dlpack_place(given):
        message = f"the buffer of output {output.name!r} is not on the CPU, where the binding is"
        raise InputError(message, hint="bind where it is: session.bind(inputs, outputs)")
    if isinstance(given, np.ndarray):
        array = given
    else:
        try:
            array = np.from_dlpack(given)  # type: ignore[arg-type]
            if not array.flags.writeable:
                # NumPy takes whatever comes through DLPack 0 for read-only; ONNX Runtime does not, and refuses bool.
                array = runtime.OrtValue.from_dlpack(given).numpy()
        except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
            message = f"the buffer of output {output.name!r} is {type_name(given)}, which NumPy cannot see"
            raise InputError(message, hint="give a NumPy array") from error
    for fault, found in (
        ("is read-only", not array.flags.writeable),
        ("is not C-contiguous", not array.flags.c_contiguous),
        ("is not aligned", not array.flags.aligned),
        ("is big-endian", array.dtype != numpy_dtype(output.dtype) and array.dtype.newbyteorder("=") == output.dtype),
    ):
        if found:
            raise InputError(f"the buffer of output {output.name!r} {fault}", hint="give one made by numpy.empty")
    return OutputBuffer(output.name, given, array)


def _on_device(output: TensorInfo, given: object, place: str, runtime: Any, session: Any) -> OutputBuffer:
    found = given.device if isinstance(given, DeviceArray) else find_dlpack_place(given) or CPU
    if found != place:
        message = f"the buffer of output {output.name!r} is on {found}, and the binding on {place}"
        hint = 'bind on the CPU: session.bind(..., device="cpu")' if found == CPU else f"give one on {place}"
        raise InputError(message, hint=hint)
    value = to_ort_value(runtime, session, given, output.name)
    return OutputBuffer(output.name, given, np.empty(0, np.uint8), value)
