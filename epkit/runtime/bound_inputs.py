"""Bind the inputs of a binding: large arrays on its device without a copy, others through its own buffers."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from epkit.model.dtypes import Array, DType
from epkit.runtime.copies import Copy
from epkit.runtime.device_array import CPU, split_place, supports_dlpack

# Up to here, copying an array costs less than binding its memory anew: measured with Identity on one core.
SMALL = 64 * 1024
_NDARRAY = np.ndarray  # looked up once
_NONE: frozenset[str] = frozenset()
_WRITTEN = "the run writes over it"


_Small: TypeAlias = tuple[str, DType, tuple[int, ...], Array]
"""A small input: its name, dtype, shape and buffer."""


@dataclass(frozen=True, slots=True)
class DeviceInput:
    """An input in a device's memory: the user's object, and ONNX Runtime's value over the same memory."""

    given: object
    value: Any
    dtype: DType
    shape: tuple[int, ...]
    nbytes: int


@dataclass(slots=True)
class _BoundInput:
    """One input, as it is bound."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    nbytes: int
    array: Array | None = None
    """The binding's own buffer on the CPU."""
    value: Any = None
    """The binding's own buffer on a device."""
    held: Any = None
    """The user's memory, bound without a copy."""
    converted: str = ""
    """Why it was converted or copied first; empty if it was not."""


class BoundInputs:
    """The inputs of one binding."""

    def __init__(
        self,
        session: Any,
        binding: Any,
        place: str,
        runs_at: str,
        is_output: Callable[[Any], bool],
        *,
        in_place: bool,
        pinned: bool = False,
    ) -> None:
        """`in_place` and `pinned` say whether ONNX Runtime reads what is bound at each run.

        `pinned` buffers, those of a captured graph, are never bound anew. `is_output` says whether an array or value is
        memory that the run writes to: then it is copied, since nothing may be read and written at once.
        """
        self._session = session
        self._binding = binding
        self._place = place
        self._runs_at = runs_at
        self._is_output = is_output
        self._in_place = in_place or pinned
        self._pinned = pinned
        self._inputs: dict[str, _BoundInput] = {}
        self._small: list[_Small] | None = None
        self._single: _Small | None = None
        self._refilled = _NONE
        self._all_copied = _NONE
        """What `copy` refills: a set of its own, by which it is known that nothing had to be converted."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each input."""
        return {name: item.shape for name, item in self._inputs.items()}

    def copy(self, inputs: object) -> bool:
        """Copy inputs into the small CPU buffers; return False, and copy nothing, unless all of them fit."""
        item = self._single
        if item is not None:
            name, dtype, shape, buffer = item
            array: Any = inputs.get(name) if type(inputs) is dict and len(inputs) == 1 else inputs
            if type(array) is not _NDARRAY or array.dtype is not dtype or array.shape != shape:
                return False
            buffer[...] = array
            self._refilled = self._all_copied
            return True
        small = self._small
        if small is None:
            return False
        if type(inputs) is not dict or len(inputs) != len(small):
            return False
        for name, dtype, shape, _ in small:
            array = inputs.get(name)
            if type(array) is not np.ndarray or array.dtype is not dtype or array.shape != shape:
                return False
        for name, _, _, buffer in small:
            buffer[...] = inputs[name]
        self._refilled = self._all_copied
        return True

    def bind(self, values: dict[str, tuple[Array | DeviceInput, str]]) -> None:
        """Bind values that fit the model, each with what had to be made of it first."""
        for name, (value, converted) in values.items():
            if isinstance(value, DeviceInput):
                self._put_from_device(name, value)
            elif self._place == CPU:
                self._put_on_cpu(name, value)
            else:
                item = self._buffer(name, value)
                item.value.update_inplace(value)
                self._bind(item)
            self._inputs[name].converted = converted or self._inputs[name].converted
        self._bind_held(but=values)
        self._synchronize()
        self._refilled = frozenset(values)
        self._all_copied = frozenset(self._inputs)
        # A large one has a buffer of its own too, once it was the binding's own result; the next is read where it is.
        small = [
            (item.name, item.dtype, item.shape, item.array)
            for item in self._inputs.values()
            if item.array is not None and item.nbytes <= SMALL
        ]
        self._small = small if self._in_place and len(small) == len(self._inputs) else None
        self._single = small[0] if self._small is not None and len(small) == 1 else None

    def rebind(self) -> None:
        """Bind again what is bound as it is, where ONNX Runtime would not see that its contents changed.

        For a provider with memory of its own, binding copies what is consumed elsewhere than where it is.
        """
        self._refilled = _NONE
        self._bind_held()
        self._synchronize()

    @property
    def held(self) -> dict[str, Array]:
        """The arrays on the CPU that are bound as they are, and may have been edited since."""
        return {name: item.held for name, item in self._inputs.items() if isinstance(item.held, np.ndarray)}

    def read(self) -> dict[str, Array]:
        """Return what is bound as arrays of their own."""
        return {name: np.array(_read(item)) for name, item in self._inputs.items()}

    def write(self, arrays: dict[str, Array]) -> None:
        """Write arrays of the same shapes into the binding's own buffers."""
        for name, array in arrays.items():
            self._inputs[name].value.update_inplace(array)

    def contains(self, array: Array) -> bool:
        """Whether an array on the CPU is memory that an input is read from."""
        memory = (item.array if item.array is not None else item.held for item in self._inputs.values())
        return any(isinstance(held, np.ndarray) and np.may_share_memory(array, held) for held in memory)

    def copies(self) -> Iterator[Copy]:
        """Yield the inputs that the last run copied."""
        for item in self._inputs.values():
            why = self._why_copied(item)
            if why:
                yield Copy(item.name, "in", item.nbytes, why)

    def _put_on_cpu(self, name: str, array: Array) -> None:
        item = self._inputs.get(name)
        written = array.nbytes > SMALL and self._is_output(array)
        if array.nbytes > SMALL and not written:
            if item is None or item.held is not array or item.shape != array.shape or not self._in_place:
                item = self._inputs[name] = _BoundInput(name, array.dtype, array.shape, array.nbytes, held=array)
                self._bind(item)
            item.converted = ""
            return
        bound = item is not None and item.array is not None and item.shape == array.shape
        item = self._buffer(name, array)
        assert item.array is not None
        item.array[...] = array
        item.converted = _WRITTEN if written else ""
        if not bound or not self._in_place:
            self._bind(item)

    def _put_from_device(self, name: str, given: DeviceInput) -> None:
        """Bind memory of the device as it is, unless the run would write over it, or replays another address."""
        written = self._is_output(given.value)
        if not written and not self._pinned:
            item = self._inputs[name] = _BoundInput(name, given.dtype, given.shape, given.nbytes, held=given)
        else:
            item = self._buffer(name, given)
            item.value.update_inplace(given.value)
            item.converted = _WRITTEN if written else "a captured graph reads one address only"
        self._bind(item)

    def _buffer(self, name: str, like: Array | DeviceInput) -> _BoundInput:
        """Return the input with a buffer of its own for such a value: the one it has, if that fits."""
        item = self._inputs.get(name)
        if item is None or item.held is not None or item.shape != like.shape:
            item = self._inputs[name] = _BoundInput(name, like.dtype, like.shape, like.nbytes)
            if self._place == CPU:
                item.array = np.empty(like.shape, like.dtype)
            else:
                item.value = allocate(self._session, like.shape, like.dtype, self._place)
                if self._pinned:
                    self._binding.bind_ortvalue_input(name, item.value)
        item.converted = ""
        return item

    def _bind_held(self, but: Container[str] = ()) -> None:
        if not self._in_place:
            for item in self._inputs.values():
                if item.held is not None and item.name not in but:
                    self._bind(item)

    def _synchronize(self) -> None:
        """Wait for writes to the user's device memory: ONNX Runtime's stream waits for no other stream."""
        if supports_dlpack(self._place) and any(isinstance(item.held, DeviceInput) for item in self._inputs.values()):
            self._binding.synchronize_inputs()

    def _bind(self, item: _BoundInput) -> None:
        if self._pinned:
            return
        if isinstance(item.held, DeviceInput):
            self._binding.bind_ortvalue_input(item.name, item.held.value)
        elif item.value is not None:
            self._binding.bind_ortvalue_input(item.name, item.value)
        else:
            self._binding.bind_cpu_input(item.name, item.held if item.held is not None else item.array)

    def _why_copied(self, item: _BoundInput) -> str:
        fresh = item.name in self._refilled
        if fresh and item.converted and self._refilled is not self._all_copied:
            return item.converted
        if fresh and item.value is not None:
            return f"from the CPU to {self._place}"
        if self._place == CPU and not self._in_place and (fresh or item.held is not None):
            to = f"to {self._runs_at}" if self._runs_at != CPU else "into the provider's memory"
            return f"ONNX Runtime copies it {to} when it is bound"
        if fresh and item.array is not None:
            return f"{SMALL // 1024} KiB or less: copying costs less than binding anew"
        return ""


def allocate(session: Any, shape: Sequence[int], dtype: DType, place: str) -> Any:
    """Return a new uninitialized value in a device's memory."""
    return session.create_ortvalue_from_shape_and_type(list(shape), dtype, *split_place(place))


def _read(item: _BoundInput) -> Array:
    if item.array is not None:
        return item.array
    if item.value is not None:
        return item.value.numpy()  # type: ignore[no-any-return]
    return item.held.value.numpy() if isinstance(item.held, DeviceInput) else item.held  # type: ignore[no-any-return]
