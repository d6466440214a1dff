"""Compute by which factor a node shrinks an image."""

from __future__ import annotations

from collections.abc import Sequence

from epkit.model.protobuf import Message

_SHRINKING = frozenset({"Conv", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool"})
_GROWING = frozenset({"Resize", "Upsample", "ConvTranspose", "DepthToSpace"})

_MAX_FACTOR = 64
"""A larger stride is not one of a network for images."""


def shrink_factor(operator: str, attributes: Sequence[Message]) -> float:
    """Return the factor: 2 for a convolution with strides of 2.

    An operator that enlarges an image returns 0.5, since its exact factor is often computed at run time.
    """
    if operator in _GROWING:
        return 0.5
    strides = _strides(attributes) if operator in _SHRINKING else []
    return min(max(1, *strides), _MAX_FACTOR) if len(strides) == 2 else 1


def _strides(attributes: Sequence[Message]) -> list[int]:
    for attribute in attributes:
        name, numbers = "", list[int]()
        for field in attribute:
            match field:
                case 1, Message() as text:
                    name = text.text()
                case 8, int(number):
                    numbers.append(number)
                case 8, Message() as packed:
                    numbers.extend(packed.integers())
        if name == "strides":
            return numbers
    return []
