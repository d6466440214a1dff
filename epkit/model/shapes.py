"""Name the dynamic dimensions of a model, infer their sizes, and compare shapes with the declared ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from epkit.errors import ConfigError, nearest
from epkit.model.types import TensorInfo

_INTEGERS = [f"{sign}int{size}" for sign in ("", "u") for size in (8, 16, 32, 64)]
BINDABLE_DTYPES = frozenset(["float16", "float32", "float64", "bool", *_INTEGERS])
"""Element types that can be bound: those that NumPy has, except strings."""

SHAPE_MISMATCH = "but the computed output shape for this run is"
"""Part of ONNX Runtime's error for a bound output with another shape than its buffer."""


def name_dimensions(tensor: TensorInfo) -> tuple[int | str, ...]:
    """Return the shape with a name for each dynamic dimension: its own, or input and axis such as "x[0]"."""
    return tuple(f"{tensor.name}[{axis}]" if size is None else size for axis, size in enumerate(tensor.shape or ()))


def dynamic_dimensions(inputs: Iterable[TensorInfo]) -> dict[str, tuple[str, ...]]:
    """Return the dynamic dimensions by name, with the inputs that have each."""
    users: dict[str, dict[str, None]] = {}
    for tensor in inputs:
        for size in name_dimensions(tensor):
            if isinstance(size, str):
                users.setdefault(size, {})[tensor.name] = None
    return {name: tuple(used) for name, used in users.items()}


def check_sizes(inputs: Iterable[TensorInfo], sizes: Mapping[str, int]) -> None:
    """Check sizes by name of dimension; raises ConfigError for an unknown dimension or a size below 1."""
    known = dynamic_dimensions(inputs)
    for name, size in sizes.items():
        if name not in known:
            hint = nearest(name, known, "dynamic dimensions")
            raise ConfigError(f"{name!r} is not a dynamic dimension of the model", hint=hint)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigError(f"the dimension {name!r} cannot have the size {size!r}", hint=f"--dim {name}=4")


def batch_dimensions(inputs: Iterable[TensorInfo], fixed: Collection[str] = ()) -> tuple[str, ...]:
    """Return the batch dimensions: the dynamic first dimensions of the inputs, except those in `fixed`.

    Exporters name the batch differently in each input, so names are not compared. Raises ConfigError if there is none.
    """
    inputs = tuple(inputs)
    first = dict.fromkeys(size for tensor in inputs for size in name_dimensions(tensor)[:1] if isinstance(size, str))
    found = tuple(size for size in first if size not in fixed)
    if found:
        return found
    if first:
        problem = f"the size of {', '.join(first)} is set already, so no batch dimension is left to vary"
        raise ConfigError(problem, hint="set it in one place")
    shapes = ", ".join(f"{tensor.name} {_format_shape(tensor)}" for tensor in inputs) or "it has no input"
    raise ConfigError(
        f"the model has no input whose first dimension is dynamic, so no batch size can be chosen: {shapes}",
        hint="export it with a dynamic batch dimension",
    )


def infer_sizes(inputs: Iterable[TensorInfo], shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Return the sizes of the dynamic dimensions that the shapes of some inputs determine."""
    sizes: dict[str, int] = {}
    for tensor in inputs:
        shape = shapes.get(tensor.name, ())
        if len(shape) == len(tensor.shape or ()):
            for name, size in zip(name_dimensions(tensor), shape, strict=True):
                if isinstance(name, str):
                    sizes.setdefault(name, size)
    return sizes


def _format_shape(tensor: TensorInfo) -> str:
    return "of any shape" if tensor.shape is None else f"[{', '.join(map(str, name_dimensions(tensor)))}]"


def matches_declared(tensor: TensorInfo, shape: Sequence[int]) -> bool:
    """Whether a shape matches the declared one, which ONNX Runtime requires of bound outputs, but not in `run`."""
    if tensor.shape is None:
        return True
    sizes = zip(tensor.shape, shape, strict=False)
    return len(shape) == len(tensor.shape) and all(size == found for size, found in sizes if isinstance(size, int))


def explain_unbindable(tensors: Iterable[TensorInfo]) -> str:
    """Return which tensor cannot be bound, and why; "" if all can."""
    found = next((tensor for tensor in tensors if tensor.dtype not in BINDABLE_DTYPES), None)
    return f"{found.name!r} is {found.dtype}, which ONNX Runtime's Python interface cannot bind" if found else ""


def can_preallocate(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> bool:
    """Whether output buffers can be allocated before a run: the input shapes determine those of the outputs."""
    bindable = all(tensor.dtype in BINDABLE_DTYPES and tensor.shape is not None for tensor in (*inputs, *outputs))
    return bindable and not find_unknown_outputs(inputs, outputs)


def find_unknown_outputs(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> list[TensorInfo]:
    """Return the outputs with a dimension that is neither fixed nor named in an input."""
    sizes = {size for tensor in inputs for size in tensor.shape or () if isinstance(size, str)}
    return [
        tensor
        for tensor in outputs
        if tensor.shape is None or not all(isinstance(size, int) or size in sizes for size in tensor.shape)
    ]
