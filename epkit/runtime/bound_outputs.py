"""Bind the outputs of a binding to buffers, and collect the results of its runs.

If the output shapes follow from the input shapes, buffers are allocated once and each run overwrites them. Otherwise
ONNX Runtime allocates new ones in each run, which the user keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from epkit.errors import RunError
from epkit.model.dtypes import Array
from epkit.model.file import TensorInfo
from epkit.model.shapes import matches_declared
from epkit.runtime.bound_inputs import allocate
from epkit.runtime.copies import Copy
from epkit.runtime.device_array import CPU, DeviceArray, overlaps, split_place
from epkit.runtime.output_buffers import OutputBuffer, are_written

Result: TypeAlias = "Array | DeviceArray | Any"

_UNTRUSTED = "the provider does not write into a buffer that is given, or does not check its shape"


class BoundOutputs:
    """The outputs of one binding."""

    def __init__(
        self,
        session: Any,
        binding: Any,
        place: str,
        runs_at: str,
        outputs: Sequence[TensorInfo],
        targets: Mapping[str, OutputBuffer],
        *,
        trusts: bool,
        turn: Any,
    ) -> None:
        """`trusts` says that the provider refuses a buffer of another shape than the result's."""
        self.fixed: dict[str, Result] | None = None
        """The buffers that further runs write into, once there are such."""
        self.copied: list[Copy] = []
        """What the last run copied out."""
        self._session = session
        self._binding = binding
        self._place = place
        self._runs_at = runs_at
        self._outputs = outputs
        self._names = [output.name for output in outputs]
        self._targets = targets
        self._trusts = trusts
        self._turn = turn
        self.verified = False
        """Whether a run was seen to write the outputs into their buffers."""

    @property
    def given(self) -> bool:
        """Whether there are buffers that the caller gave."""
        return bool(self._targets)

    def bind_new(self) -> None:
        """Let ONNX Runtime allocate the outputs, except those with a buffer from the user."""
        self.fixed = None
        self._binding.clear_binding_outputs()
        for name in self._names:
            target = self._targets.get(name)
            if target is not None and self._trusts and target.declared:
                target.bind(self._binding)
            else:
                self._binding.bind_output(name, *split_place(self._place))

    def collect(self, is_input: Callable[[Array], bool]) -> dict[str, Result]:
        """Return what the run gave, wherever ONNX Runtime put it; an input passed through is copied."""
        self.copied = []
        results: dict[str, Result] = {}
        for name, value in zip(self._names, self._binding.get_outputs(), strict=True):
            target = self._targets.get(name)
            if self._place != CPU:
                results[name] = self._into_device(target, value) if target else self._wrap(value)
                continue
            found: Array = value.numpy()
            if self._runs_at != CPU:
                self._record_copy(name, found.nbytes, f"ONNX Runtime copies it from {self._runs_at} in each run")
            if target is not None:
                results[name] = self.copy_into(target, found)
            elif is_input(found):
                self._record_copy(name, found.nbytes, "it is an input, passed through")
                results[name] = found.copy()
            else:
                results[name] = found
        return results

    def copy_into(self, target: OutputBuffer, found: Array) -> object:
        """Put a result into the buffer that was given for it, unless it is there; raises RunError."""
        if not found.nbytes or found.ctypes.data != target.array.ctypes.data:
            if found.shape != target.array.shape:
                raise _shape_error(target.name, found.shape, target.array.shape)
            target.array[...] = found
            self._record_copy(target.name, found.nbytes, _UNTRUSTED)
        return target.given

    def as_declared(self, results: Mapping[str, Result]) -> bool:
        """Whether the model declares the shapes of these results: into buffers of any other, no run would write."""
        own = [output for output in self._outputs if output.name not in self._targets]
        return all(target.declared for target in self._targets.values()) and all(
            matches_declared(output, results[output.name].shape) for output in own
        )

    def fix(self, results: Mapping[str, Result]) -> dict[str, Result]:
        """Bind buffers of these results' shapes, for every further run of these inputs' shapes, and return them."""
        self.verified = False
        fixed: dict[str, Result] = {}
        for name, result in results.items():
            target = self._targets.get(name)
            if target is not None:
                fixed[name] = target.given
            elif isinstance(result, DeviceArray):
                value = allocate(self._session, result.shape, result.dtype, self._place)
                value.update_inplace(result._value)
                self._binding.bind_ortvalue_output(name, value)
                fixed[name] = self._wrap(value)
            else:
                buffer = result.copy()
                self._binding.bind_output(name, CPU, 0, buffer.dtype, buffer.shape, buffer.ctypes.data)
                fixed[name] = buffer
        self.copied = []
        self.fixed = fixed  # only now: an interrupted run leaves no buffer that some outputs lack
        return fixed

    def verify_written(self) -> bool:
        """Return, after a run, whether the outputs are in their buffers, and remember it if they are."""
        if not self.verified:
            assert self.fixed is not None
            addresses = [self._address(name, result) for name, result in self.fixed.items()]
            self.verified = are_written(addresses, self._binding.get_outputs())
        return self.verified

    def is_output(self, memory: Any) -> bool:
        """Whether an array on the CPU, or a value on this device, is memory that a run writes to."""
        results = [*(self.fixed or {}).values(), *(target.array for target in self._targets.values())]
        if isinstance(memory, np.ndarray):
            return any(isinstance(result, np.ndarray) and np.may_share_memory(memory, result) for result in results)
        values = [result._value for result in results if isinstance(result, DeviceArray)]
        values += [target.value for target in self._targets.values() if target.value is not None]
        return any(overlaps(memory, value, self._place) for value in values)

    def read(self) -> dict[str, Array]:
        """Return the fixed buffers' contents as arrays of their own."""
        values = {name: result._value for name, result in (self.fixed or {}).items() if isinstance(result, DeviceArray)}
        values |= {name: target.value for name, target in self._targets.items()}
        return {name: np.array(value.numpy()) for name, value in values.items()}

    def _into_device(self, target: OutputBuffer, value: Any) -> object:
        if value.data_ptr() != target.address:
            if list(value.shape()) != list(target.value.shape()):
                raise _shape_error(target.name, value.shape(), target.value.shape())
            target.value.update_inplace(value)
            self._record_copy(target.name, value.tensor_size_in_bytes(), _UNTRUSTED)
        return target.given

    def _wrap(self, value: Any) -> DeviceArray:
        return DeviceArray(value, self._place, self._turn, self._binding.synchronize_outputs, self._session)

    def _record_copy(self, name: str, size: int, why: str) -> None:
        self.copied.append(Copy(name, "out", size, why))

    def _address(self, name: str, result: Result) -> int | None:
        """Return where a buffer begins; None for one without a byte, which begins nowhere."""
        target = self._targets.get(name)
        if target is not None:
            return target.address
        if not result.nbytes:
            return None
        return int(result.ctypes.data if isinstance(result, np.ndarray) else result._value.data_ptr())


def _shape_error(name: str, found: Sequence[int], given: Sequence[int]) -> RunError:
    message = f"output {name!r} came out as {list(found)}, and the buffer given for it is {list(given)}"
    return RunError(message, hint="give a buffer of that shape, or none")
