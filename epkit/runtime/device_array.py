"""Hold a tensor in a device's memory, copy it to the CPU, and share it through DLPack.

A place is written as PyTorch writes it: `cpu`, `cuda:0`, `webgpu:0`. What is on the CPU is a NumPy array; what is
elsewhere is a `DeviceArray`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from epkit.errors import RunError
from epkit.model.dtypes import Array, DType, numpy_dtype
from epkit.model.file import parse_ort_type

CPU = "cpu"
CPU_MEMORY = "Cpu"
"""What ONNX Runtime calls the CPU's own memory; providers that compute on the CPU may have other memory there."""
# ONNX Runtime's names of devices whose memory DLPack can hand over, and DLPack's numbers for them.
_DLPACK = {"cuda": 2}
# DLPack's number of CUDA's legacy default stream, which ONNX Runtime waits for in `synchronize_inputs`.
_DEFAULT_STREAM = 1


def split_place(place: str) -> tuple[str, int]:
    """Split "cuda:1" into ONNX Runtime's name of the device and its number."""
    kind, _, index = place.partition(":")
    return kind, int(index or 0)


def overlaps(first: Any, second: Any, place: str) -> bool:
    """Whether two of ONNX Runtime's values at one place share memory."""
    begin, start = first.data_ptr(), second.data_ptr()
    size, length = first.tensor_size_in_bytes(), second.tensor_size_in_bytes()
    if not supports_dlpack(place):  # what is no address, but a handle, says nothing of where the next buffer begins
        return bool(begin == start and size and length)
    return bool(begin < start + length and start < begin + size)


def supports_dlpack(place: str) -> bool:
    """Whether the memory of a place can be handed to other libraries through DLPack, and be taken from them."""
    return split_place(place)[0] in _DLPACK


def find_dlpack_place(value: object) -> str | None:
    """Return the device of a DLPack producer, if ONNX Runtime can share its memory; else None."""
    ask = getattr(value, "__dlpack_device__", None)
    if ask is None:
        return None
    try:
        number, index = ask()
    except (BufferError, RuntimeError, TypeError, ValueError):
        return None
    return next((f"{kind}:{index}" for kind, known in _DLPACK.items() if known == number), None)


class DeviceArray:
    """An output in a device's memory, as `Binding.run` returns it for a provider that runs on a device.

    `numpy()` copies it to the CPU, and so does `numpy.asarray`. Where the device is one that DLPack knows (CUDA, not
    WebGPU), `torch.from_dlpack(array)` and its like take it as it is, without a copy.

    It views the binding's buffer: the next run of that binding writes over it.
    """

    __slots__ = ("_owner", "_synchronize", "_turn", "_value", "device", "dtype", "shape")

    def __init__(
        self,
        value: Any,
        place: str,
        turn: AbstractContextManager[Any],
        synchronize: Callable[[], None],
        session: Any,
    ) -> None:
        self._value = value
        self._owner = weakref.ref(session)
        self._turn = turn
        self._synchronize = synchronize
        self.device = place
        """The device, as PyTorch writes it: `cuda:0`, `webgpu:0`."""
        self.shape: tuple[int, ...] = tuple(value.shape())
        self.dtype: DType = numpy_dtype(parse_ort_type(value.data_type()))

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def numpy(self) -> Array:
        """Copy it to the CPU; return a new array of the same dtype and shape."""
        with self._turn:
            self._synchronize()
            array: Array = self._value.numpy()
        # On some devices ONNX Runtime gives a view of host memory.
        return array if array.flags.owndata else array.copy()

    def __array__(self, dtype: DType | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(f"an array on {self.device} cannot be seen from the CPU without a copy")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __dlpack__(self, *, stream: object = None, **_: object) -> object:
        """Hand the memory over as a DLPack capsule, once everything that writes to it is done.

        Raises BufferError where DLPack does not know the device, or has no name for the type (bool).
        """
        self.__dlpack_device__()
        if self.dtype == np.bool_:
            raise BufferError("ONNX Runtime hands out bool as uint8 through DLPack: take .numpy()")
        with self._turn:
            self._synchronize()
            return self._value.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's number of the device, and which of them it is; raises BufferError where it has none."""
        kind, index = split_place(self.device)
        if kind not in _DLPACK:
            raise BufferError(f"DLPack does not know memory on {kind}: take .numpy()")
        return _DLPACK[kind], index

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array without dimensions has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<epkit.DeviceArray {self.dtype} {list(self.shape)} on {self.device}>"


class _StreamOrdered:
    """A DLPack producer whose pending writes are ordered before CUDA's default stream when its memory is taken.

    It has the producer's type, by which ONNX Runtime knows bools from uint8.
    """

    def __init__(self, value: Any) -> None:
        self._value = value
        self.dtype: object = getattr(value, "dtype", None)

    def __dlpack__(self) -> object:
        try:
            return self._value.__dlpack__(stream=_DEFAULT_STREAM)
        except TypeError:
            return self._value.__dlpack__()


def to_ort_value(runtime: Any, session: Any, value: object, name: str) -> Any:
    """Return ONNX Runtime's value over memory of a device, which it keeps alive; raises RunError.

    `session` is ONNX Runtime's, which takes no value of another session, but takes what comes through DLPack.
    """
    if not isinstance(value, DeviceArray):
        return _from_dlpack(runtime, _StreamOrdered(value), value, name)
    if value._owner() is session or not supports_dlpack(value.device):
        return value._value
    with value._turn:
        value._synchronize()
        return _from_dlpack(runtime, value._value, value, name)  # its value, since that may be bool


def _from_dlpack(runtime: Any, producer: object, given: object, name: str) -> Any:
    try:
        return runtime.OrtValue.from_dlpack(producer)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        message = f"{name!r} cannot be bound where it is: {error}"
        grows = getattr(given, "requires_grad", False) is True
        hint = "give it detached: .detach()" if grows else "give it C-contiguous, as .contiguous() does"
        raise RunError(message, hint=hint) from error
