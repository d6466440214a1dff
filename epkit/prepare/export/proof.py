"""Prove that a module is a function of its inputs, and that the exported file computes the same function."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epkit.errors import EpkitError, ModelError
from epkit.parity.agreement import Agreement, agreement, incomparable
from epkit.parity.outputs import flat
from epkit.parity.tolerance import Tolerance
from epkit.prepare.export.example_inputs import DynamicAxes, resize
from epkit.prepare.export.subject import Subject, to_numpy
from epkit.session.open import open as open_session
from epkit.session.session import Session

BATCHES = (1, 2, 3, 5)
SEEDS = (0, 1, 2)
_REPEATABLE = Tolerance("repeatable", 1e-5)
"""Threads may add in another order from run to run; randomness and counters move results by far more."""
EAGER = "PyTorch"
WITHOUT_FAST_PATH = "PyTorch without its fast path"


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of inputs: the sizes of the open dimensions, the seed, and how far the outputs are apart."""

    sizes: Mapping[str, int]
    seed: int
    agreement: Agreement

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {"sizes": dict(self.sizes), "seed": self.seed, **self.agreement.as_json()}


def check_repeats(subject: Subject, tensors: Mapping[str, Any]) -> Agreement:
    """Run the module twice on one input, and compare."""
    first, second = (flat(subject.run(tensors)) for _ in range(2))
    return agreement("its first run", first, second, _REPEATABLE)


def prove(file: Path, subject: Subject, axes: DynamicAxes, tolerance: Tolerance) -> tuple[Trial, ...]:
    """Run file and module on the example and on inputs of other sizes and seeds, and compare the outputs.

    Where they differ, the module runs again without the fast path of PyTorch's transformer layers, which skips padded
    rows and so gives other values there than the layers are defined to give.
    """
    with open_session(file, "cpu", config={}) as session:
        return tuple(
            Trial(sizes, seed, _compare(session, subject, tensors, expected, tolerance))
            for sizes in plan_sizes(subject.tensors, axes)
            for seed in SEEDS
            for tensors in [resize(subject.tensors, axes, sizes, seed)]
            if (expected := _expect(subject, tensors, needed=seed == SEEDS[0])) is not None
        )


def _expect(subject: Subject, tensors: Mapping[str, Any], *, needed: bool) -> dict[str, np.ndarray[Any, Any]] | None:
    """Run the module; None where it takes no such values, or returns NaN for them, and need not."""
    try:
        outputs = subject.run(tensors)
    except ModelError:
        if needed:
            raise
        return None
    numbers = not any(np.isnan(array).any() for array in outputs.values() if array.dtype.kind == "f")
    return outputs if needed or numbers else None


def plan_sizes(tensors: Mapping[str, Any], axes: DynamicAxes) -> list[dict[str, int]]:
    """Return the sizes to run: batches of 1, 2, 3 and 5; other open dimensions in full, less one, and half."""
    given = {
        name: tensors[tensor].shape[axis] for tensor, open_axes in axes.items() for axis, name in open_axes.items()
    }
    if not given:
        return [{}]
    rows = []
    for at, batch in enumerate(BATCHES):
        others = {name: _other_size(size, at) for name, size in given.items()}
        rows.append(others | {name: batch for tensor in axes.values() for axis, name in tensor.items() if axis == 0})
    return rows


def _other_size(size: int, at: int) -> int:
    return max(1, (size, size - 1, size // 2, size)[at]) if size > 1 else (1, 2, 1, 2)[at]


def _compare(
    session: Session,
    subject: Subject,
    tensors: Mapping[str, Any],
    expected: Mapping[str, np.ndarray[Any, Any]],
    tolerance: Tolerance,
) -> Agreement:
    try:
        found = session.run({name: to_numpy(tensor) for name, tensor in tensors.items()})
    except EpkitError as error:
        return incomparable(EAGER, f"the file fails: {error.message}")
    eager = agreement(EAGER, flat(expected), flat(found), tolerance)
    if eager.agree:
        return eager
    with _without_fast_path():
        plain = agreement(WITHOUT_FAST_PATH, flat(subject.run(tensors)), flat(found), tolerance)
    return plain if plain.agree else eager


def summarize(trials: Sequence[Trial]) -> Agreement:
    """Return the worst of the trials: one that differs, else the one that is furthest off."""
    return max((trial.agreement for trial in trials), key=lambda found: (not found.agree, found.share or 0.0))


@contextlib.contextmanager
def _without_fast_path() -> Iterator[None]:
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
