"""Which tiny model proves that a provider computes?

A convolution and a Relu: about the least that takes a provider's real libraries (cuDNN, an engine builder) to run. The
kernel is a sum over 3x3 places, so every number on the way is a small whole one, exact in float16 and TF32 too.
`benchmarks/make_sample.py` makes the bytes.
"""

from __future__ import annotations

from base64 import b64decode

from epkit.provider import Proof

CONVOLUTION = Proof(
    model=b64decode(
        "CAgSBWVwa2l0OtUBCiwKAXgKAXcSAWMaBGNvbnYiBENvbnYqFQoMa2VybmVsX3NoYXBlQANAA6ABBwoSCgFjEgF5GgRyZWx1IgRS"
        "ZWx1EgVwcm9vZiozCAEIAQgDCAMQAUIBd0okAACAPwAAgD8AAIA/AACAPwAAgD8AAIA/AACAPwAAgD8AAIA/WhsKAXgSFgoUCAES"
        "EAoCCAEKAggBCgIIBAoCCARiGwoBeRIWChQIARIQCgIIAQoCCAEKAggCCgIIAmobCgFjEhYKFAgBEhAKAggBCgIIAQoCCAIKAggC"
        "QgQKABAN"
    ),
    input=tuple(map(float, range(16))),
    output=(45.0, 54.0, 81.0, 90.0),
    input_shape=(1, 1, 4, 4),
)
"""Input 0 to 15, row by row, is the 4x4 image; the outputs are the sums of its four 3x3 squares."""
