"""What does the caller's value become before ONNX Runtime sees it?

ONNX Runtime checks little: it reads a big-endian array as if it were a native one, cuts texts at a zero character, and
lets None die inside a kernel. So every value is checked and converted here; `values` does one tensor.

Sizes that share a name ("N" in two inputs) may differ, as they may for ONNX Runtime: such names are only labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from epkit._system.arguments import type_name
from epkit.errors import InputError, nearest
from epkit.model.dtypes import Array, DType, needs_ml_dtypes, numpy_dtype
from epkit.runtime.convert import Unfit, sized, tensor

if TYPE_CHECKING:
    from epkit.model.file import TensorInfo

_NESTED = re.compile(r"(optional|sequence|map)\((.+)\)")


class Inputs:
    """The inputs of a model, and how a caller's values are made to fit them. Built once, when a session opens.

    `overridable` are initializers that a run may replace; None leaves them as they are. `cast` allows conversion within
    a kind: float64 to float32.
    """

    def __init__(
        self, wanted: Sequence[TensorInfo], *, cast: bool = False, overridable: Sequence[TensorInfo] = ()
    ) -> None:
        self.exotic = any(needs_ml_dtypes(one.dtype) for one in (*wanted, *overridable))
        """Whether there is a type that ONNX Runtime's plain `run` cannot carry: bfloat16, float8, 4 or 2 bits."""
        self._wanted = tuple(_Input(one) for one in wanted)
        self._by_name = {one.name: one for one in self._wanted}
        self._overridable = {one.name: one for one in overridable}
        self._cast = cast

    def feed(self, inputs: Mapping[str, object] | object) -> dict[str, object]:
        """Return what `InferenceSession.run` wants: arrays of the right dtype, native, C-contiguous and aligned.

        Arrays that are so already are passed on, and a dict of nothing else is itself passed on. Optional inputs that
        are None are left out, which is "no value" to ONNX Runtime. Raises InputError.
        """
        if type(inputs) is np.ndarray and len(self._wanted) == 1:
            inputs = {self._wanted[0].name: inputs}
        if type(inputs) is dict and len(inputs) == len(self._wanted):
            for one in self._wanted:
                value = inputs.get(one.name)
                if (
                    type(value) is not np.ndarray
                    or value.dtype is not one.dtype
                    or not value.flags.carray
                    or (value.shape != one.seen and not one.admits(value.shape))
                ):
                    break
            else:
                return inputs
        return {name: self.value(name, given) for name, given in self.named(inputs).items()}

    def named(self, inputs: Mapping[str, object] | object, *, some: bool = False) -> dict[str, object]:
        """Return the values by name, those left out that may be and are None. With `some`, not all need be there.

        Raises InputError for a name that the model does not have, and for one that is missing.
        """
        if not isinstance(inputs, Mapping):
            if len(self._wanted) != 1:
                message = f"the model has {len(self._wanted)} inputs, got {type_name(inputs)}"
                raise InputError(message, hint=f"give a mapping from names to values; {self._listed()}")
            inputs = {self._wanted[0].name: inputs}
        self._check_names(inputs, some)
        return {name: given for name, given in inputs.items() if given is not None or not self._may_be_none(name)}

    def value(self, name: str, given: object) -> object:
        """Return what ONNX Runtime is to see for one input; raises InputError."""
        one = self._one(name)
        try:
            return one.value(given, self._cast)
        except Unfit as unfit:
            raise InputError(f"input {name!r} wants {one.wants}, got {unfit.got}", hint=unfit.hint) from unfit

    def check(self, name: str, dtype: str, shape: tuple[int, ...], what: str) -> None:
        """Hold a tensor that cannot be converted, since it is not on the CPU, to what the model wants."""
        one = self._one(name)
        if dtype != one.element or not one.admits(shape):
            told = f"input {name!r} wants {one.wants}, got {what} of {sized(dtype, shape)}"
            raise InputError(told, hint="it is bound as it is: convert it where it is")

    def _one(self, name: str) -> _Input:
        return self._by_name.get(name) or _Input(self._overridable[name])

    def _may_be_none(self, name: str) -> bool:
        return name in self._overridable or self._by_name[name].optional

    def _check_names(self, inputs: Mapping[str, object], some: bool) -> None:
        known = self._by_name.keys() | self._overridable.keys()
        for name in inputs:
            if name not in known:
                raise InputError(f"the model has no input {name!r}", hint=nearest(str(name), known, "inputs"))
        missing = [one.name for one in self._wanted if one.name not in inputs and not one.optional]
        if missing and not some:
            names = f"s {', '.join(map(repr, missing))} are" if missing[1:] else f" {missing[0]!r} is"
            raise InputError(f"input{names} missing", hint=self._listed())

    def _listed(self) -> str:
        return f"inputs: {', '.join(self._by_name)}"


class _Input:
    """One input: what the model says of it, and what it makes of a value."""

    __slots__ = ("_fixed", "_form", "_key", "_rank", "dtype", "element", "name", "optional", "seen", "wants")

    def __init__(self, info: TensorInfo) -> None:
        self.name = info.name
        form, inner = _unnested(info.dtype)
        self.optional = form == "optional"
        self._form, element = _unnested(inner) if self.optional else (form, inner)
        self._key, _, mapped = element.partition(", ")
        self.element = mapped if self._form == "map" else element
        tensors = not self._form
        self.dtype = numpy_dtype(element) if tensors and element != "string" and not self.optional else None
        """What the quick look compares with; None where it takes more than a look."""
        self.seen: tuple[int, ...] | None = None
        """The shape that was admitted last."""
        shape = info.shape if tensors else None
        self._rank = None if shape is None else len(shape)
        self._fixed = tuple((axis, size) for axis, size in enumerate(shape or ()) if isinstance(size, int))
        self.wants = info.dtype if not tensors else sized(info.dtype, shape)

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape fits."""
        if self._rank is not None:
            if len(shape) != self._rank:
                return False
            for axis, size in self._fixed:
                if shape[axis] != size:
                    return False
        self.seen = shape
        return True

    def value(self, given: object, cast: bool) -> object:
        """Return what ONNX Runtime is to see; raises Unfit."""
        if self._form == "sequence":
            return self._sequence(given, cast)
        if self._form == "map":
            return self._map(given)
        array = tensor(given, numpy_dtype(self.element), cast=cast)
        if not self.admits(array.shape):
            raise Unfit(sized(self.element, array.shape), self._reshaped(array))
        return array

    def _reshaped(self, array: Array) -> str:
        """Return how an array becomes one of the right rank, where only dimensions of 1 are too many or too few."""
        rank = array.ndim if self._rank is None else self._rank
        if rank == 0 and array.size == 1:
            return "it is a single number, without dimensions: .reshape(())"
        for axis in [axis for axis, size in enumerate(array.shape) if size == 1] if rank < array.ndim else ():
            if self._fits(array.squeeze(axis).shape):
                return f"leave out a dimension of 1: .squeeze({axis})"
        return "add the batch: array[None]" if rank == array.ndim + 1 and self._fits((1, *array.shape)) else ""

    def _fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == self._rank and all(shape[axis] == size for axis, size in self._fixed)

    def _sequence(self, given: object, cast: bool) -> list[object]:
        if "(" in self.element:
            raise Unfit(type_name(given), "ONNX Runtime's Python interface takes sequences of tensors only")
        if not isinstance(given, list | tuple):
            raise Unfit(type_name(given), "give a list of arrays")
        arrays: list[object] = []
        for place, one in enumerate(given):
            try:
                arrays.append(tensor(one, numpy_dtype(self.element), cast=cast))
            except Unfit as unfit:
                raise Unfit(f"{unfit.got} at position {place}", unfit.hint) from unfit
        return arrays

    def _map(self, given: object) -> dict[object, object]:
        if self.element != "float32":
            raise Unfit(type_name(given), "ONNX Runtime's Python interface takes maps to float32 only")
        if not isinstance(given, Mapping):
            raise Unfit(type_name(given), "give a dict")
        if not given:
            raise Unfit("an empty map", "ONNX Runtime takes none")
        key_dtype, dtype = numpy_dtype(self._key), np.dtype(np.float32)
        return {_single(key, key_dtype): _single(number, dtype) for key, number in given.items()}


def _single(value: object, dtype: DType) -> object:
    try:
        array = tensor(value, dtype)
    except Unfit as unfit:
        raise Unfit(f"{unfit.got} in the map", unfit.hint) from unfit
    if array.ndim:
        raise Unfit(f"{type_name(value)} in the map", "give single keys and numbers")
    single: object = array.item()
    return single


def _unnested(dtype: str) -> tuple[str, str]:
    """Split "sequence(float32)" into "sequence" and "float32"; of a tensor's type the first part is empty."""
    found = _NESTED.fullmatch(dtype)
    return (found[1], found[2]) if found else ("", dtype)
