"""Models that the tests build for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def light(name: str) -> Path:
    """Return one of the nine models that the onnx package brings: real architectures, made-up weights."""
    return LIGHT / f"light_{name}.onnx"


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 17,
    ir: int = 8,
    domains: Sequence[str] = (),
) -> bytes:
    """Build a model and return its bytes."""
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), list(weights))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir).SerializeToString()


def value(name: str, shape: Sequence[int | str | None] | None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """Describe an input or output."""
    return helper.make_tensor_value_info(name, dtype, shape)


def identity(
    dtype: int = TensorProto.FLOAT, shape: Sequence[int | str | None] | None = ("N",), opset: int = 17
) -> bytes:
    """Build y = x."""
    return model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [value("x", shape, dtype)],
        [value("y", shape, dtype)],
        opset=opset,
    )


def mlp(batch: int | str = "batch", width: int = 16) -> bytes:
    """Build two matrix products with a Relu between; input "x" float32 [batch, width], output "y"."""
    random = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(random.standard_normal((width, width), dtype=np.float32) / width, name)
        for name in ("a", "b")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    return model(nodes, [value("x", [batch, width])], [value("y", [batch, width])], weights)
