"""Run the module that is exported as it will be served: in eval mode, without gradients, and put back afterwards."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epkit.errors import ConfigError, ModelError
from epkit.prepare.export.leaves import Path, find_tensors, join_names, name_inputs, name_outputs
from epkit.prepare.export.user_code import describe_place


@dataclass(frozen=True, slots=True)
class Subject:
    """A module, the arguments it is called with, and the names of the tensors in them."""

    module: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    tensors: Mapping[str, Any]
    """The example's tensors by input name, in PyTorch's order."""
    constants: Mapping[str, object]
    """Arguments that are no tensors: the file holds their values."""
    program: Any = None
    """The torch.export.ExportedProgram that the module comes from; None for a module with source."""

    def arguments(self, tensors: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call with other tensors in place of the example's."""
        from torch.utils import _pytree as pytree

        leaves, structure = pytree.tree_flatten((self.args, dict(self.kwargs)))
        replaced = dict(zip((id(tensor) for tensor in self.tensors.values()), tensors.values(), strict=True))
        args, kwargs = pytree.tree_unflatten([replaced.get(id(leaf), leaf) for leaf in leaves], structure)
        return args, kwargs

    def call(self, tensors: Mapping[str, Any]) -> Any:
        """Return what the module returns; raises ModelError with the line of the user's code that failed."""
        import torch

        args, kwargs = self.arguments({name: tensor.clone() for name, tensor in tensors.items()})
        try:
            with torch.no_grad():
                return self.module(*args, **kwargs)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
            place = describe_place(error)
            raise ModelError(
                f"the module fails on {shapes}: {type(error).__name__}: {error}{place}",
                hint="if it takes one batch size only: --dynamic none, or dynamic=None",
            ) from error

    def name_outputs(self, paths: Sequence[Path]) -> list[str]:
        """Return names for what the module returns, none of them an input's."""
        return list(name_outputs(paths, taken=self.tensors))

    def run(self, tensors: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """Return the tensors in what the module returns, by output name."""
        found = find_tensors(self.call(tensors))
        names = self.name_outputs([path for path, _ in found])
        return {name: to_numpy(tensor) for name, (_, tensor) in zip(names, found, strict=True)}


def make_subject(module: Any, example: object) -> Subject:
    """Return the module with its example taken apart: a tensor, a sequence of arguments, or a mapping by name.

    Raises ConfigError.
    """
    return _make_subject(module, *_split(example))


def make_program_subject(program: Any, example: object) -> Subject:
    """Return the module of a torch.export program, with another example or, for None, its own; raises ConfigError."""
    args, kwargs = (program.example_inputs or ((), {})) if example is None else _split(example)
    return _make_subject(program.module(), tuple(args), dict(kwargs), program)


def _make_subject(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], program: Any = None) -> Subject:
    forward = module.forward if program is None else module
    try:
        leaves = name_inputs(forward, args, kwargs)
    except TypeError as error:
        raise ConfigError(
            f"the example does not fit {type(module).__name__}.forward: {error}",
            hint="give a tensor, a tuple of arguments, or a dict of arguments by name",
        ) from error
    tensors: list[tuple[Path, Any]] = [(path, leaf) for path, leaf in leaves if _is_tensor(leaf)]
    if not tensors:
        raise ConfigError("the example has no tensor", hint="give a tensor, a tuple of tensors, or a dict by name")
    if len({id(leaf) for _, leaf in tensors}) < len(tensors):
        raise ConfigError("the example holds one tensor twice", hint="give a tensor for each input: x.clone()")
    for path, leaf in tensors:
        if leaf.numel() == 0 or (leaf.is_floating_point() and bool(leaf.isnan().any())):
            found = "is empty" if leaf.numel() == 0 else "holds NaN"
            raise ConfigError(f"the example of {'.'.join(path)} {found}", hint="give values that a request may have")
    names = join_names([path for path, _ in tensors])
    if program is not None and len(inputs := program.graph_signature.user_inputs) == len(tensors):
        names = tuple(str(name) for name in inputs)
    order = list(dict.fromkeys(path[0] for path, _ in leaves))
    kwargs = {
        name: kwargs[name] for name in sorted(kwargs, key=lambda name: order.index(name) if name in order else -1)
    }
    constants = {".".join(path): leaf for path, leaf in leaves if not _is_tensor(leaf) and leaf is not None}
    return Subject(
        module, args, kwargs, dict(zip(names, (leaf for _, leaf in tensors), strict=True)), constants, program
    )


@contextlib.contextmanager
def evaluating(module: Any) -> Iterator[list[str]]:
    """Put a module into eval mode for the block, and return the names of the parts that were in train mode."""
    training = [(name or type(module).__name__, part) for name, part in module.named_modules() if part.training]
    try:
        for _, part in training:
            part.training = False
        yield [name for name, _ in training]
    finally:
        for _, part in training:
            part.training = True


def digest_state(module: Any) -> str:
    """Return the SHA-256 of a module's parameters and buffers: names, dtypes, shapes and values."""
    import torch

    digest = hashlib.sha256()
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        host = value.detach().cpu().contiguous().reshape(-1)
        digest.update(host.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def to_numpy(tensor: Any) -> np.ndarray[Any, Any]:
    """Return a tensor as an array on the host; bfloat16 as that of ml_dtypes."""
    import torch

    host = tensor.detach().cpu().contiguous()
    if host.dtype == torch.bfloat16:
        import ml_dtypes

        return np.asarray(host.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
    return np.array(host.resolve_conj().resolve_neg().numpy())


def _split(example: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    import torch

    def tensor(value: Any) -> Any:
        return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value

    if isinstance(example, Mapping):
        return (), {str(name): tensor(value) for name, value in example.items()}
    if isinstance(example, list | tuple):
        return tuple(tensor(value) for value in example), {}
    return (tensor(example),), {}


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)
