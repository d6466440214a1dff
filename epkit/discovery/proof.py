"""Bring the tiny models that prove that a provider computes, one for each kind of network.

Each is about the least that takes a provider's real libraries (cuDNN, an engine builder) to run. Every number on the
way is a small whole one or a quarter, exact in float16 and TF32 too. `benchmarks/make_sample.py` makes the bytes.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping

from epkit.provider import Network, Proof, Provider

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

MLP = Proof(
    model=b64decode(
        "CAgSBWVwa2l0OsIBChkKAXgKAXcSAW0aBm1hdG11bCIGTWF0TXVsChIKAW0SAXkaBHJlbHUiBFJlbHUSBXByb29mKksIBAgEEAFC"
        "AXdKQAAAgD8AAABAAACAvwAAAMAAAIA/AAAAQAAAgL8AAADAAACAPwAAAEAAAIC/AAAAwAAAgD8AAABAAACAvwAAAMBaEwoBeBIO"
        "CgwIARIICgIIAQoCCARiEwoBeRIOCgwIARIICgIIAQoCCARqEwoBbRIOCgwIARIICgIIAQoCCARCBAoAEA0="
    ),
    input=tuple(map(float, range(4))),
    output=(6.0, 12.0, 0.0, 0.0),
    input_shape=(1, 4),
)
"""The sum of 0 to 3, twice it, and their negatives behind a Relu."""

ATTENTION = Proof(
    model=b64decode(
        "CAgSBWVwa2l0OrIDChkKAXgKAndxEgFxGgVxdWVyeSIGTWF0TXVsChkKAXgKAnd2EgF2GgV2YWx1ZSIGTWF0TXVsCicKAXgSAWsa"
        "A2tleSIJVHJhbnNwb3NlKg8KBHBlcm1AAEACQAGgAQcKGAoBcQoBaxIBcxoFYWxpa2UiBk1hdE11bAosCgFzEgFwGgVzaGFyZSIH"
        "U29mdG1heCoUCgRheGlzGP///////////wGgAQIKFwoBcAoBdhIBeRoEc2VlbiIGTWF0TXVsEgVwcm9vZiocCAIIAhABQgJ3cUoQ"
        "AAAAAAAAAAAAAAAAAAAAACocCAIIAhABQgJ3dkoQAAAAAAAAAEAAAIA/AAAAAFoXCgF4EhIKEAgBEgwKAggBCgIIBAoCCAJiFwoB"
        "eRISChAIARIMCgIIAQoCCAQKAggCahcKAXESEgoQCAESDAoCCAEKAggECgIIAmoXCgF2EhIKEAgBEgwKAggBCgIIBAoCCAJqFwoB"
        "axISChAIARIMCgIIAQoCCAIKAggEahcKAXMSEgoQCAESDAoCCAEKAggECgIIBGoXCgFwEhIKEAgBEgwKAggBCgIIBAoCCARCBAoA"
        "EA0="
    ),
    input=tuple(map(float, range(8))),
    output=(4.0, 6.0) * 4,
    input_shape=(1, 4, 2),
)
"""Four tokens see one another alike, so each gets the mean of all, (3, 4), which its weights turn into (4, 6)."""

OF: Mapping[Network, Proof] = {"convolutions": CONVOLUTION, "mlp": MLP, "attention": ATTENTION}


def proof_of(provider: Provider) -> Proof:
    """Return the model that proves a provider: its own, else epkit's for the first kind of network that it is for."""
    return provider.self_test.proof or OF.get(next(iter(provider.self_test.networks), "convolutions"), CONVOLUTION)
