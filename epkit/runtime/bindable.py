"""Hold what a binding is made from, and what its runs take once they all go the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from epkit.model.file import TensorInfo
from epkit.runtime.bound_outputs import Result
from epkit.runtime.inputs import Inputs
from epkit.runtime.narrow import Narrowed
from epkit.runtime.output_buffers import Target


@dataclass(frozen=True, slots=True)
class Bindable:
    """What a binding knows of its session."""

    inputs: Inputs
    narrowed: Narrowed
    wanted: Sequence[TensorInfo]
    """The inputs that have to be given."""
    outputs: Sequence[TensorInfo]
    """The outputs that are wanted."""
    targets: Mapping[str, Target]
    """Buffers to write outputs into."""
    place: str
    """Where the buffers are: `cpu`, `cuda:0`."""
    runs_at: str
    """Where the provider runs."""

    why_not: str = ""
    """Why the tensors cannot be bound; empty when they can."""


class Steady(NamedTuple):
    """What a run takes when nothing changes but the contents of small inputs."""

    copy: Callable[[object], bool]
    run_bound: Callable[[Any], None]
    binding: Any
    fixed: dict[str, Result]
