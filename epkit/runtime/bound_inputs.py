"""Which memory does a binding read its inputs from?

Large arrays that are where the binding is are read where they are. The rest is copied into buffers of the binding.
"""

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
    """What the caller gave in a device's memory, and ONNX Runtime's value over it."""

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
    """What the caller gave, bound as it is."""
    converted: str = ""
    """What had to be made of it first."""


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
        return {name: one.shape for name, one in self._inputs.items()}

    def copy(self, inputs: object) -> bool:
        """Copy inputs into small buffers on the CPU that fit them; False where more has to be done, and none is."""
        one = self._single
        if one is not None:
            name, dtype, shape, buffer = one
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
                one = self._buffer(name, value)
                one.value.update_inplace(value)
                self._bind(one)
            self._inputs[name].converted = converted or self._inputs[name].converted
        self._bind_held(but=values)
        self._synchronize()
        self._refilled = frozenset(values)
        self._all_copied = frozenset(self._inputs)
        # A large one has a buffer of its own too, once it was the binding's own result; the next is read where it is.
        small = [
            (one.name, one.dtype, one.shape, one.array)
            for one in self._inputs.values()
            if one.array is not None and one.nbytes <= SMALL
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
        return {name: one.held for name, one in self._inputs.items() if isinstance(one.held, np.ndarray)}

    def read(self) -> dict[str, Array]:
        """Return what is bound as arrays of their own."""
        return {name: np.array(_read(one)) for name, one in self._inputs.items()}

    def write(self, arrays: dict[str, Array]) -> None:
        """Write arrays of the same shapes into the binding's own buffers."""
        for name, array in arrays.items():
            self._inputs[name].value.update_inplace(array)

    def contains(self, array: Array) -> bool:
        """Whether an array on the CPU is memory that an input is read from."""
        memory = (one.array if one.array is not None else one.held for one in self._inputs.values())
        return any(isinstance(one, np.ndarray) and np.may_share_memory(array, one) for one in memory)

    def copies(self) -> Iterator[Copy]:
        """Say what the last run copied in."""
        for one in self._inputs.values():
            why = self._why_copied(one)
            if why:
                yield Copy(one.name, "in", one.nbytes, why)

    def _put_on_cpu(self, name: str, array: Array) -> None:
        one = self._inputs.get(name)
        written = array.nbytes > SMALL and self._is_output(array)
        if array.nbytes > SMALL and not written:
            if one is None or one.held is not array or one.shape != array.shape or not self._in_place:
                one = self._inputs[name] = _BoundInput(name, array.dtype, array.shape, array.nbytes, held=array)
                self._bind(one)
            one.converted = ""
            return
        bound = one is not None and one.array is not None and one.shape == array.shape
        one = self._buffer(name, array)
        assert one.array is not None
        one.array[...] = array
        one.converted = _WRITTEN if written else ""
        if not bound or not self._in_place:
            self._bind(one)

    def _put_from_device(self, name: str, given: DeviceInput) -> None:
        """Bind memory of the device as it is, unless the run would write over it, or replays another address."""
        written = self._is_output(given.value)
        if not written and not self._pinned:
            one = self._inputs[name] = _BoundInput(name, given.dtype, given.shape, given.nbytes, held=given)
        else:
            one = self._buffer(name, given)
            one.value.update_inplace(given.value)
            one.converted = _WRITTEN if written else "a captured graph reads one address only"
        self._bind(one)

    def _buffer(self, name: str, like: Array | DeviceInput) -> _BoundInput:
        """Return the input with a buffer of its own for such a value: the one it has, if that fits."""
        one = self._inputs.get(name)
        if one is None or one.held is not None or one.shape != like.shape:
            one = self._inputs[name] = _BoundInput(name, like.dtype, like.shape, like.nbytes)
            if self._place == CPU:
                one.array = np.empty(like.shape, like.dtype)
            else:
                one.value = allocate(self._session, like.shape, like.dtype, self._place)
                if self._pinned:
                    self._binding.bind_ortvalue_input(name, one.value)
        one.converted = ""
        return one

    def _bind_held(self, but: Container[str] = ()) -> None:
        if not self._in_place:
            for one in self._inputs.values():
                if one.held is not None and one.name not in but:
                    self._bind(one)

    def _synchronize(self) -> None:
        """Wait for what writes to the caller's memory on the device: ONNX Runtime's stream waits for no other."""
        if supports_dlpack(self._place) and any(isinstance(one.held, DeviceInput) for one in self._inputs.values()):
            self._binding.synchronize_inputs()

    def _bind(self, one: _BoundInput) -> None:
        if self._pinned:
            return
        if isinstance(one.held, DeviceInput):
            self._binding.bind_ortvalue_input(one.name, one.held.value)
        elif one.value is not None:
            self._binding.bind_ortvalue_input(one.name, one.value)
        else:
            self._binding.bind_cpu_input(one.name, one.held if one.held is not None else one.array)

    def _why_copied(self, one: _BoundInput) -> str:
        fresh = one.name in self._refilled
        if fresh and one.converted and self._refilled is not self._all_copied:
            return one.converted
        if fresh and one.value is not None:
            return f"from the CPU to {self._place}"
        if self._place == CPU and not self._in_place and (fresh or one.held is not None):
            to = f"to {self._runs_at}" if self._runs_at != CPU else "into the provider's memory"
            return f"ONNX Runtime copies it {to} when it is bound"
        if fresh and one.array is not None:
            return f"{SMALL // 1024} KiB or less: copying costs less than binding anew"
        return ""


def allocate(session: Any, shape: Sequence[int], dtype: DType, place: str) -> Any:
    """Return a new value in a device's memory, of no particular contents."""
    return session.create_ortvalue_from_shape_and_type(list(shape), dtype, *split_place(place))


def _read(one: _BoundInput) -> Array:
    if one.array is not None:
        return one.array
    if one.value is not None:
        return one.value.numpy()  # type: ignore[no-any-return]
    return one.held.value.numpy() if isinstance(one.held, DeviceInput) else one.held  # type: ignore[no-any-return]
