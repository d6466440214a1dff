"""By how much does a node shrink an image?"""

from __future__ import annotations

from collections.abc import Sequence

from epkit.model.protobuf import Message

_SHRINKING = frozenset({"Conv", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool"})
_GROWING = frozenset({"Resize", "Upsample", "ConvTranspose", "DepthToSpace"})

_MOST = 64
"""What is more is no network for images."""


def shrinking(operator: str, attributes: Sequence[Message]) -> float:
    """Return the factor: 2 for a convolution with strides of 2.

    What makes an image larger counts as doubling it, whatever it does: the exact factor is often computed.
    """
    if operator in _GROWING:
        return 0.5
    strides = _strides(attributes) if operator in _SHRINKING else []
    return min(max(1, *strides), _MOST) if len(strides) == 2 else 1


def _strides(attributes: Sequence[Message]) -> list[int]:
    for attribute in attributes:
        name, numbers = "", list[int]()
        for one in attribute:
            match one:
                case 1, Message() as text:
                    name = text.text()
                case 8, int(number):
                    numbers.append(number)
                case 8, Message() as packed:
                    numbers.extend(packed.integers())
        if name == "strides":
            return numbers
    return []
