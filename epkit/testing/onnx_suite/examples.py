"""Read the inputs of a case, and compare outputs with the expected ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper
from onnx.backend.test.runner import Runner

from epkit.testing.onnx_suite.cases import SuiteCase

_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_TRAINING_MODE = 3  # Dropout draws random numbers where it is given its third input


@dataclass(frozen=True, slots=True)
class Example:
    """Inputs by name, and the outputs that they must give, in order."""

    inputs: Mapping[str, Any]
    outputs: Sequence[Any]
    random: bool
    """Whether the model draws random numbers: then only the dtypes and shapes of its outputs can be expected."""


def examples(case: SuiteCase) -> Iterator[Example]:
    """Read the inputs and expected outputs of a case, as the onnx package's own runner does."""
    model = onnx.load(case.model, load_external_data=False)
    random = _is_random(model)
    given = {tensor.name for tensor in model.graph.initializer}
    inputs = [tensor for tensor in model.graph.input if tensor.name not in given]
    if not case.folder:
        made = {tensor.name: Runner.generate_dummy_data(tensor, name=case.name) for tensor in inputs}
        stem = case.model.removesuffix(".onnx")
        files = [f"{stem}_output_{place}.pb" for place in range(len(model.graph.output))]
        outputs = [_value(Path(file), tensor.type) for file, tensor in zip(files, model.graph.output, strict=True)]
        yield Example(made, outputs, random)
        return
    for folder in sorted(Path(case.folder).glob("test_data_set_*")):
        yield Example(
            {tensor.name: value for tensor, value in zip(inputs, _values(folder, "input", inputs), strict=True)},
            _values(folder, "output", model.graph.output),
            random,
        )


def difference(case: SuiteCase, example: Example, outputs: Sequence[Any]) -> str:
    """Say what about the outputs is not as expected, in a sentence; empty when nothing is."""
    if example.random:
        forms, expected = _forms(outputs), _forms(example.outputs)
        return "" if forms == expected else f"the outputs are {forms}, not {expected}"
    # The runner looks into sequences itself, but not into those of scalars.
    if _outline(outputs) != _outline(example.outputs):
        return f"the outputs are {_outline(outputs)}, not {_outline(example.outputs)}"
    found, wanted = list(_tensors(outputs)), list(_tensors(example.outputs))
    try:
        Runner.assert_similar_outputs(wanted, found, rtol=case.rtol, atol=case.atol)
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        return _sentence(error)
    return ""


def _is_random(model: onnx.ModelProto) -> bool:
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    return any(
        node.op_type in _RANDOM or (node.op_type == "Dropout" and len(node.input) == _TRAINING_MODE) for node in nodes
    )


def _forms(values: Sequence[Any]) -> list[str]:
    return [f"{value.dtype} {list(value.shape)}" for value in values]


def _outline(values: Any) -> Any:
    """Show where there are tensors, sequences, and optionals without a value."""
    if isinstance(values, list | tuple):
        return [_outline(value) for value in values]
    return None if values is None else "tensor"


def _tensors(values: Any) -> Iterator[Any]:
    if isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
    elif values is not None:
        yield values


def _values(folder: Path, what: str, wanted: Sequence[onnx.ValueInfoProto]) -> list[Any]:
    files = sorted(folder.glob(f"{what}_*.pb"), key=lambda file: int(file.stem.rpartition("_")[2]))
    return [_value(file, tensor.type) for file, tensor in zip(files, wanted, strict=True)]


def _value(file: Path, kind: onnx.TypeProto) -> Any:
    match kind.WhichOneof("value"):
        case "sequence_type":
            return numpy_helper.to_list(onnx.SequenceProto.FromString(file.read_bytes()))
        case "optional_type":
            return numpy_helper.to_optional(onnx.OptionalProto.FromString(file.read_bytes()))
        case _:
            return numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))


def _sentence(error: Exception) -> str:
    """Return NumPy's report of a difference in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # " ACTUAL: array(...)" and what follows shows the numbers, of any length.
    shown = next((place for place, line in enumerate(lines) if re.match(r"(ACTUAL|x|\[?array)\b", line)), len(lines))
    return "; ".join(lines[:shown])
