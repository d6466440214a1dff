"""Find the tensors in the arguments and the results of a module, and name each as the person who wrote it did."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

Path = tuple[str, ...]


def find_leaves(value: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    """Return what lies in nested containers, in PyTorch's order, with the keys, fields and positions on the way."""
    if isinstance(value, Mapping):
        parts: list[tuple[str, object]] = [(str(key), part) for key, part in value.items()]
    elif is_dataclass(value) and not isinstance(value, type):
        parts = [(field.name, getattr(value, field.name)) for field in fields(value)]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = list(zip(value._fields, value, strict=True))
    elif isinstance(value, list | tuple):
        parts = [(str(position), part) for position, part in enumerate(value)]
    else:
        yield path, value
        return
    for key, part in parts:
        yield from find_leaves(part, (*path, key))


def find_tensors(value: object) -> list[tuple[Path, Any]]:
    """Return the tensors in nested containers."""
    import torch

    return [(path, leaf) for path, leaf in find_leaves(value) if isinstance(leaf, torch.Tensor)]


def name_outputs(paths: Sequence[Path], taken: Collection[str] = ()) -> tuple[str, ...]:
    """Name outputs after the keys and fields that lead to them; a position becomes `output_0`."""
    named = [path if path and not path[0].isdigit() else ("output", *(path or ("0",))) for path in paths]
    return _unique([_joined(path) for path in named], taken)


def name_inputs(forward: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[tuple[Path, object]]:
    """Return what `forward` is called with, each leaf with its parameter's name in front of its path.

    Raises TypeError where the arguments do not fit the signature.
    """
    try:
        signature = inspect.signature(forward)
    except ValueError:  # a module that was compiled has none
        return list(find_leaves({**{f"input_{at}": value for at, value in enumerate(args)}, **kwargs}))
    bound = signature.bind(*args, **kwargs)
    found: dict[str, object] = {}
    for name, value in bound.arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            found |= value
        else:
            found[name] = value
    return list(find_leaves(found))


def join_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return one name for each path."""
    return _unique([_joined(path) for path in paths])


def _joined(path: Path) -> str:
    return re.sub(r"\W+", "_", "_".join(path)).strip("_") or "value"


def _unique(names: Sequence[str], taken: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names; one that is `taken` gets a prefix, and one that is used a number behind it."""
    unique: list[str] = []
    for name in names:
        first = f"output_{name}" if name in taken else name
        free = first
        number = 2
        while free in unique or free in taken or (free != first and free in names):
            free, number = f"{first}_{number}", number + 1
        unique.append(free)
    return tuple(unique)
