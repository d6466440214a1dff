"""Check a user's inputs, and convert them for ONNX Runtime.

ONNX Runtime checks little: it reads a big-endian array as if it were a native one, cuts texts at a zero character, and
crashes in a kernel on None. So every value is checked and converted here; `convert` converts single tensors.

Sizes that share a name ("N" in two inputs) may differ, as they may for ONNX Runtime: such names are only labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from epkit._system.arguments import type_name
from epkit.errors import InputError, nearest
from epkit.model.dtypes import Array, DType, needs_ml_dtypes, numpy_dtype
from epkit.runtime.convert import ConversionError, format_type, to_tensor

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
        self.exotic = any(needs_ml_dtypes(declared.dtype) for declared in (*wanted, *overridable))
        """Whether there is a type that ONNX Runtime's plain `run` cannot carry: bfloat16, float8, 4 or 2 bits."""
        self._wanted = tuple(_InputSpec(declared) for declared in wanted)
        self._by_name = {spec.name: spec for spec in self._wanted}
        self._overridable = {declared.name: declared for declared in overridable}
        self._cast = cast

    def feed(self, inputs: Mapping[str, object] | object) -> dict[str, object]:
        """Return what `InferenceSession.run` wants: arrays of the right dtype, native, C-contiguous and aligned.

        Arrays that are so already are passed on, and a dict of nothing else is itself passed on. Optional inputs that
        are None are left out, which is "no value" to ONNX Runtime. Raises InputError.
        """
        if type(inputs) is np.ndarray and len(self._wanted) == 1:
            inputs = {self._wanted[0].name: inputs}
        if type(inputs) is dict and len(inputs) == len(self._wanted):
            for spec in self._wanted:
                value = inputs.get(spec.name)
                if (
                    type(value) is not np.ndarray
                    or value.dtype is not spec.dtype
                    or not value.flags.carray
                    or (value.shape != spec.last_shape and not spec.admits(value.shape))
                ):
                    break
            else:
                return inputs
        return {name: self.value(name, given) for name, given in self.by_name(inputs).items()}

    def by_name(self, inputs: Mapping[str, object] | object, *, some: bool = False) -> dict[str, object]:
        """Return the values by name, those left out that may be and are None. With `some`, not all need be there.

        Raises InputError for a name that the model does not have, and for one that is missing.
        """
        if not isinstance(inputs, Mapping):
            if len(self._wanted) != 1:
                message = f"the model has {len(self._wanted)} inputs, got {type_name(inputs)}"
                raise InputError(message, hint=f"give a mapping from names to values; {self._list_names()}")
            inputs = {self._wanted[0].name: inputs}
        self._check_names(inputs, some)
        return {name: given for name, given in inputs.items() if given is not None or not self._may_be_none(name)}

    def value(self, name: str, given: object) -> object:
        """Convert the value of one input; raises InputError."""
        spec = self._get(name)
        try:
            return spec.value(given, self._cast)
        except ConversionError as error:
            raise InputError(f"input {name!r} wants {spec.wants}, got {error.got}", hint=error.hint) from error

    def check(self, name: str, dtype: str, shape: tuple[int, ...], what: str) -> None:
        """Check a tensor that is not on the CPU, so cannot be converted; raises InputError."""
        spec = self._get(name)
        if dtype != spec.element or not spec.admits(shape):
            message = f"input {name!r} wants {spec.wants}, got {what} of {format_type(dtype, shape)}"
            raise InputError(message, hint="it is bound as it is: convert it where it is")

    def _get(self, name: str) -> _InputSpec:
        return self._by_name.get(name) or _InputSpec(self._overridable[name])

    def _may_be_none(self, name: str) -> bool:
        return name in self._overridable or self._by_name[name].optional

    def _check_names(self, inputs: Mapping[str, object], some: bool) -> None:
        known = self._by_name.keys() | self._overridable.keys()
        for name in inputs:
            if name not in known:
                raise InputError(f"the model has no input {name!r}", hint=nearest(str(name), known, "inputs"))
        missing = [spec.name for spec in self._wanted if spec.name not in inputs and not spec.optional]
        if missing and not some:
            names = f"s {', '.join(map(repr, missing))} are" if missing[1:] else f" {missing[0]!r} is"
            raise InputError(f"input{names} missing", hint=self._list_names())

    def _list_names(self) -> str:
        return f"inputs: {', '.join(self._by_name)}"


class _InputSpec:
    """The type and shape that the model declares for one input."""

    __slots__ = ("_fixed", "_form", "_key", "_rank", "dtype", "element", "last_shape", "name", "optional", "wants")

    def __init__(self, info: TensorInfo) -> None:
        self.name = info.name
        form, inner = _split_container(info.dtype)
        self.optional = form == "optional"
        self._form, element = _split_container(inner) if self.optional else (form, inner)
        self._key, _, mapped = element.partition(", ")
        self.element = mapped if self._form == "map" else element
        tensors = not self._form
        self.dtype = numpy_dtype(element) if tensors and element != "string" and not self.optional else None
        """The dtype that the fast check compares with; None if a value needs more than that."""
        self.last_shape: tuple[int, ...] | None = None
        """The shape that was accepted last."""
        shape = info.shape if tensors else None
        self._rank = None if shape is None else len(shape)
        self._fixed = tuple((axis, size) for axis, size in enumerate(shape or ()) if isinstance(size, int))
        self.wants = info.dtype if not tensors else format_type(info.dtype, shape)

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape fits."""
        if self._rank is not None:
            if len(shape) != self._rank:
                return False
            for axis, size in self._fixed:
                if shape[axis] != size:
                    return False
        self.last_shape = shape
        return True

    def value(self, given: object, cast: bool) -> object:
        """Convert a value of this input; raises ConversionError."""
        if self._form == "sequence":
            return self._convert_sequence(given, cast)
        if self._form == "map":
            return self._convert_map(given)
        array = to_tensor(given, numpy_dtype(self.element), cast=cast)
        if not self.admits(array.shape):
            raise ConversionError(format_type(self.element, array.shape), self._advise_shape(array))
        return array

    def _advise_shape(self, array: Array) -> str:
        """Return how an array becomes one of the right rank, where only dimensions of 1 are too many or too few."""
        rank = array.ndim if self._rank is None else self._rank
        if rank == 0 and array.size == 1:
            return "it is a single number, without dimensions: .reshape(())"
        for axis in [axis for axis, size in enumerate(array.shape) if size == 1] if rank < array.ndim else ():
            if self._matches(array.squeeze(axis).shape):
                return f"leave out a dimension of 1: .squeeze({axis})"
        return "add the batch: array[None]" if rank == array.ndim + 1 and self._matches((1, *array.shape)) else ""

    def _matches(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == self._rank and all(shape[axis] == size for axis, size in self._fixed)

    def _convert_sequence(self, given: object, cast: bool) -> list[object]:
        if "(" in self.element:
            raise ConversionError(type_name(given), "ONNX Runtime's Python interface takes sequences of tensors only")
        if not isinstance(given, list | tuple):
            raise ConversionError(type_name(given), "give a list of arrays")
        arrays: list[object] = []
        for place, item in enumerate(given):
            try:
                arrays.append(to_tensor(item, numpy_dtype(self.element), cast=cast))
            except ConversionError as error:
                raise ConversionError(f"{error.got} at position {place}", error.hint) from error
        return arrays

    def _convert_map(self, given: object) -> dict[object, object]:
        if self.element != "float32":
            raise ConversionError(type_name(given), "ONNX Runtime's Python interface takes maps to float32 only")
        if not isinstance(given, Mapping):
            raise ConversionError(type_name(given), "give a dict")
        if not given:
            raise ConversionError("an empty map", "ONNX Runtime takes none")
        key_dtype, dtype = numpy_dtype(self._key), np.dtype(np.float32)
        return {_convert_scalar(key, key_dtype): _convert_scalar(number, dtype) for key, number in given.items()}


def _convert_scalar(value: object, dtype: DType) -> object:
    try:
        array = to_tensor(value, dtype)
    except ConversionError as error:
        raise ConversionError(f"{error.got} in the map", error.hint) from error
    if array.ndim:
        raise ConversionError(f"{type_name(value)} in the map", "give single keys and numbers")
    single: object = array.item()
    return single


def _split_container(dtype: str) -> tuple[str, str]:
    """Split "sequence(float32)" into "sequence" and "float32"; of a tensor's type the first part is empty."""
    found = _NESTED.fullmatch(dtype)
    return (found[1], found[2]) if found else ("", dtype)


class NarrowedInputs:
    """The inputs of a session that its provider computes in a narrower type: int64 in int32, float64 in float32."""

    def __init__(self, inputs: Sequence[TensorInfo], narrowed_types: Mapping[str, tuple[str, str]]) -> None:
        """`narrowed_types` maps a tensor type to the type it is computed in, and the provider that does so."""
        self._inputs = [
            (declared.name, *narrowed_types[declared.dtype]) for declared in inputs if declared.dtype in narrowed_types
        ]

    def __bool__(self) -> bool:
        return bool(self._inputs)

    def check(self, feed: Mapping[str, Any]) -> None:
        """Refuse numbers that the narrower type cannot hold; raises InputError."""
        for name, dtype, provider in self._inputs:
            array = feed.get(name)
            if not isinstance(array, np.ndarray) or array.size == 0:
                continue
            lost = _unrepresentable(array, dtype)
            if lost is not None:
                message = f"input {name!r} holds {lost}, which {provider} would compute in {dtype}"
                raise InputError(message, hint="run this model on cpu")


def _unrepresentable(array: Array, dtype: str) -> object:
    """Return a number that the dtype cannot hold, or None."""
    if array.dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return next((number for number in (array.max(), array.min()) if not limits.min <= number <= limits.max), None)
    finite = array[np.isfinite(array)]
    return next((number for number in finite[np.abs(finite) > np.finfo(dtype).max][:1]), None)
