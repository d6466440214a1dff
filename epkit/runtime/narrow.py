"""Do the inputs survive a provider that computes in a narrower type than the model says?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from epkit.errors import InputError
from epkit.model.dtypes import Array
from epkit.model.file import TensorInfo


class Narrowed:
    """The inputs of a session that its provider computes in a narrower type: int64 in int32, float64 in float32."""

    def __init__(self, inputs: Sequence[TensorInfo], narrows: Mapping[str, tuple[str, str]]) -> None:
        """`narrowed_types` maps a tensor type to the type it is computed in, and the provider that does so."""
        self._inputs = [(one.name, *narrows[one.dtype]) for one in inputs if one.dtype in narrows]

    def __bool__(self) -> bool:
        return bool(self._inputs)

    def check(self, feed: Mapping[str, Any]) -> None:
        """Refuse numbers that the narrower type cannot hold; raises InputError."""
        for name, dtype, provider in self._inputs:
            array = feed.get(name)
            if not isinstance(array, np.ndarray) or array.size == 0:
                continue
            lost = _lost(array, dtype)
            if lost is not None:
                told = f"input {name!r} holds {lost}, which {provider} would compute in {dtype}"
                raise InputError(told, hint="run this model on cpu")


def _lost(array: Array, dtype: str) -> object:
    """Return a number that the dtype cannot hold, or None."""
    if array.dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return next((one for one in (array.max(), array.min()) if not limits.min <= one <= limits.max), None)
    finite = array[np.isfinite(array)]
    return next((one for one in finite[np.abs(finite) > np.finfo(dtype).max][:1]), None)
