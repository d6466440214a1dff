"""What are the dimensions of a model's inputs called, and which of them hold the batch?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from epkit.errors import ConfigError, nearest
from epkit.model.file import TensorInfo


def named(one: TensorInfo) -> tuple[int | str, ...]:
    """Return the shape with a name for each dynamic dimension; one without a name is called by its place: "x[0]"."""
    return tuple(f"{one.name}[{axis}]" if size is None else size for axis, size in enumerate(one.shape or ()))


def dynamic(inputs: Iterable[TensorInfo]) -> dict[str, tuple[str, ...]]:
    """Return the dynamic dimensions, and the inputs that use each."""
    users: dict[str, dict[str, None]] = {}
    for one in inputs:
        for size in named(one):
            if isinstance(size, str):
                users.setdefault(size, {})[one.name] = None
    return {name: tuple(used) for name, used in users.items()}


def check_sizes(inputs: Iterable[TensorInfo], sizes: Mapping[str, int]) -> None:
    """Refuse sizes for dimensions that the inputs lack, and sizes below 1; raises ConfigError."""
    known = dynamic(inputs)
    for name, size in sizes.items():
        if name not in known:
            hint = nearest(name, known, "dynamic dimensions")
            raise ConfigError(f"{name!r} is not a dynamic dimension of the model", hint=hint)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigError(f"the dimension {name!r} cannot have the size {size!r}", hint=f"--dim {name}=4")


def batch_dimensions(inputs: Iterable[TensorInfo], fixed: Collection[str] = ()) -> tuple[str, ...]:
    """Return the dimensions that hold the batch: the dynamic first ones, but for those whose size is `fixed` elsewhere.

    Exporters give the same batch another name in each input, so names are not compared. Raises ConfigError when there
    is none.
    """
    inputs = tuple(inputs)
    first = dict.fromkeys(size for one in inputs for size in named(one)[:1] if isinstance(size, str))
    found = tuple(size for size in first if size not in fixed)
    if found:
        return found
    if first:
        said = f"the size of {', '.join(first)} is said already, so there is no batch dimension left to vary"
        raise ConfigError(said, hint="say it in one place")
    shapes = ", ".join(f"{one.name} {_written(one)}" for one in inputs) or "it has no input"
    raise ConfigError(
        f"the model has no input whose first dimension is dynamic, so no batch size can be chosen: {shapes}",
        hint="export it with a dynamic batch dimension",
    )


def bound(inputs: Iterable[TensorInfo], shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Return the sizes of dynamic dimensions that follow from the shapes of some inputs."""
    sizes: dict[str, int] = {}
    for one in inputs:
        given = shapes.get(one.name, ())
        if len(given) == len(one.shape or ()):
            for name, size in zip(named(one), given, strict=True):
                if isinstance(name, str):
                    sizes.setdefault(name, size)
    return sizes


def _written(one: TensorInfo) -> str:
    return "of any shape" if one.shape is None else f"[{', '.join(str(size) for size in named(one))}]"
