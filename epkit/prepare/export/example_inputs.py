"""Make inputs of other batch sizes from the example that a person gave, in its dtypes and its range of values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

BATCH = "batch"
DynamicAxes = Mapping[str, Mapping[int, str]]
"""Input name to axis to the name of the dimension there."""


def find_batch_axes(tensors: Mapping[str, Any]) -> dict[str, dict[int, str]]:
    """Return axis 0 of every input that has the batch size of the first one with an axis."""
    sizes = [tensor.shape[0] for tensor in tensors.values() if tensor.ndim]
    return {name: {0: BATCH} for name, tensor in tensors.items() if tensor.ndim and tensor.shape[0] == sizes[0]}


def resize(tensors: Mapping[str, Any], axes: DynamicAxes, sizes: Mapping[str, int], seed: int) -> dict[str, Any]:
    """Return inputs in which each named dimension has its size, with values drawn from those of the example.

    Floating-point inputs stay near those of the example for seed 0, have the other sign for seed 1, and are spread
    wider for other seeds: a branch on their values then goes both ways. For seed 0, those that are only 0 and 1, or
    reach the ends of the range, are whole rows: they are masks. Whole numbers are shuffled within their row, so that
    ids stay valid; booleans and masks of whole numbers are whole rows.
    """
    draws = np.random.default_rng(seed)
    return {
        name: _vary(
            tensor, {axis: sizes[size] for axis, size in axes.get(name, {}).items() if size in sizes}, draws, seed
        )
        for name, tensor in tensors.items()
    }


def _vary(tensor: Any, sizes: Mapping[int, int], draws: np.random.Generator, seed: int) -> Any:
    import torch

    for axis, size in sizes.items():
        have = tensor.shape[axis]
        rows = draws.integers(0, have, size) if axis == 0 else np.arange(size) % max(have, 1)
        tensor = tensor.index_select(axis, torch.from_numpy(rows).to(tensor.device))
    if tensor.ndim == 0 or tensor.numel() == 0 or tensor.dtype == torch.bool or tensor.is_complex():
        return tensor.clone()
    if tensor.is_floating_point():
        return tensor.clone() if seed == 0 and _is_mask(tensor) else _move(tensor, draws, seed)
    return tensor.clone() if tensor.ndim < 2 or _is_mask(tensor) else _shuffle_rows(tensor, draws)


def _is_mask(tensor: Any) -> bool:
    """Whether the values are only 0 and 1, or reach the ends of the range: those say what counts, not how much."""
    values = tensor.double()
    return bool(((values == 0) | (values == 1)).all() and (values != 0).any()) or bool((values.abs() > 1e4).any())


def _move(tensor: Any, draws: np.random.Generator, seed: int) -> Any:
    import torch

    spread = float(tensor.double().std(correction=0)) or 10.0
    noise = torch.from_numpy(draws.standard_normal(tuple(tensor.shape))).to(tensor.device)
    sign, share = {0: (1, 0.1), 1: (-1, 0.1)}.get(seed, (1, 1.0))
    return (sign * tensor.double() + share * spread * noise).to(tensor.dtype)


def _shuffle_rows(tensor: Any, draws: np.random.Generator) -> Any:
    import torch

    rows = tensor.reshape(tensor.shape[0], -1)
    order = torch.from_numpy(np.stack([draws.permutation(rows.shape[1]) for _ in range(rows.shape[0])]))
    return rows.gather(1, order.to(tensor.device)).reshape(tensor.shape)
