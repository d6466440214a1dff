"""Do the shapes of the outputs follow from those of the inputs, so that buffers can be made before a run?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from epkit.model.file import TensorInfo

_INTEGERS = [f"{sign}int{size}" for sign in ("", "u") for size in (8, 16, 32, 64)]
PLAIN = frozenset(["float16", "float32", "float64", "bool", *_INTEGERS])
"""The types of tensors that NumPy has too, texts apart: what can be bound."""

OTHER_SHAPE = "but the computed output shape for this run is"
"""ONNX Runtime's words for a bound output whose shape came out differently."""


def as_declared(tensor: TensorInfo, shape: Sequence[int]) -> bool:
    """Whether a model declares such a shape; a bound output of any other is refused, though a plain run gives it."""
    if tensor.shape is None:
        return True
    sizes = zip(tensor.shape, shape, strict=False)
    return len(shape) == len(tensor.shape) and all(size == found for size, found in sizes if isinstance(size, int))


def unbindable(tensors: Iterable[TensorInfo]) -> str:
    """Say which of a model's tensors cannot be bound; empty when all can."""
    found = next((one for one in tensors if one.dtype not in PLAIN), None)
    return f"{found.name!r} is {found.dtype}, which ONNX Runtime's Python interface cannot bind" if found else ""


def settled(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> bool:
    """Whether all tensors can be bound, and the outputs' shapes follow from the inputs', as far as the model says."""
    plain = all(one.dtype in PLAIN and one.shape is not None for one in (*inputs, *outputs))
    return plain and not unsettled(inputs, outputs)


def unsettled(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> list[TensorInfo]:
    """Return the outputs with a size that is neither fixed nor that of an input."""
    sizes = {size for one in inputs for size in one.shape or () if isinstance(size, str)}
    return [
        one
        for one in outputs
        if one.shape is None or not all(isinstance(size, int) or size in sizes for size in one.shape)
    ]
