"""Provide the tiny models that the kit runs, with their inputs and expected outputs.

The models lie beside this file, named after the capability that they ask for and what they are, a kind of network or
something smaller; `benchmarks/make_testing_models.py` makes them. What must come out is what ONNX Runtime's own CPU
gives without optimizing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from epkit.discovery import proof
from epkit.model.dtypes import numpy_dtype
from epkit.model.file import TensorInfo, read_model
from epkit.parity.metrics import measure
from epkit.parity.tolerance import BY_DTYPE, Tolerance, judge
from epkit.provider import Capability, Network, Provider
from epkit.runtime import api
from epkit.testing.promise import Broken

MODELS = Path(__file__).parent / "models"
WORDS = ("epkit", "späß", "", "a b")

Feed = dict[str, Any]

ALLOWED = {**BY_DTYPE, "float64": 1e-9}
"""The share of an output's largest magnitude by which an element may be off. Float32 is not taken for float64."""


@dataclass(frozen=True)
class Sample:
    """One tiny model."""

    name: str
    contents: bytes
    whole: bool = False
    """Whether its floats are whole numbers, so that every step of a quantized model is exact."""
    network: Network | None = None
    """The kind of network that it is; None for what is smaller than one."""

    @property
    def inputs(self) -> Sequence[TensorInfo]:
        """Name, dtype and shape of each input."""
        return read_model(self.contents).inputs

    def feed(self, seed: int = 0, sizes: Mapping[str, int] | None = None) -> Feed:
        """Make inputs; a dynamic dimension is as long as `sizes` says, else 2."""
        random = np.random.default_rng(seed)
        sizes = sizes or {}
        return {
            tensor.name: _values(
                tensor.dtype,
                [size if isinstance(size, int) else sizes.get(str(size), 2) for size in tensor.shape or ()],
                random,
                whole=self.whole,
            )
            for tensor in self.inputs
        }


def of(claim: Capability | Literal["retrained"], provider: Provider | None = None) -> list[Sample]:
    """Return the models that ask for a capability, without the kinds of network that `provider` is not for.

    Where none would be left, all are: what is claimed is tried. `retrained` are those of `float32` with other weights.
    """
    every = [_read(file, whole=claim == "int8") for file in sorted(MODELS.glob(f"{claim}.*.onnx"))]
    return [
        sample for sample in every if provider is None or sample.network in (None, *provider.self_test.networks)
    ] or every


def networks(claim: Capability | Literal["retrained"], provider: Provider) -> list[Sample]:
    """Return the networks among them, one for each kind that `provider` is for and that there is a model of."""
    found = of(claim, provider)
    return [sample for sample in found if sample.network] or found


def _read(file: Path, *, whole: bool) -> Sample:
    kind = file.stem.partition(".")[2]
    return Sample(
        file.stem, file.read_bytes(), whole, next((network for network in get_args(Network) if network == kind), None)
    )


def proof_of(provider: Provider) -> Sample:
    """Return the model by which epkit proves the provider."""
    return Sample("proof", proof.proof_of(provider).model, whole=True)


def wanted(sample: Sample, feed: Feed) -> dict[str, Any]:
    """Return what ONNX Runtime's CPU gives, by the output's name."""
    session = _reference(sample.contents)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def check_same(sample: Sample, feed: Feed, found: Mapping[str, Any], tolerances: Mapping[str, float], how: str) -> None:
    """Compare results with the CPU's; raises Broken for the first that is too far off."""
    for name, right in wanted(sample, feed).items():
        if name not in found:
            raise Broken(f"{sample.name} {how} gave no output {name!r}")
        message = apart(name, np.asarray(right), np.asarray(found[name]), tolerances)
        if message:
            raise Broken(f"{sample.name} {how}: {message}", "compare its kernels with the CPU's: epkit compare")


def apart(name: str, right: Any, found: Any, tolerances: Mapping[str, float]) -> str:
    """Say in which way two arrays differ by more than their dtype allows; empty when they do not."""
    dtype = str(right.dtype)
    allowed = Tolerance("kit", {**ALLOWED, **tolerances}.get(dtype))
    judged = judge(measure(name, right, found, dtype, str(found.dtype)), allowed)
    return "" if judged.agree else judged.told


@cache
def _reference(contents: bytes) -> Any:
    runtime = api.load()
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return runtime.InferenceSession(contents, options, providers=[api.CPU_ORT_NAME])


def _values(dtype: str, shape: Sequence[int], random: np.random.Generator, *, whole: bool) -> Any:
    if dtype == "string":
        return random.choice(np.array(WORDS, object), tuple(shape))
    kind = numpy_dtype(dtype)
    if kind.kind == "f" and not whole:
        return random.standard_normal(shape).astype(kind)
    if dtype == "int64":
        return random.integers(-(2**40), 2**40, shape)  # more than 32 bits hold
    return random.integers(-8, 8, shape).astype(kind)
