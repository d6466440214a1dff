"""Make the tiny models that the conformance kit runs: `python benchmarks/make_testing_models.py`.

A file is named after the capability that it asks for, and for what it is. Weights are seeded by NumPy's frozen legacy
generator, so that the same bytes come out on every machine.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

TARGET = Path(__file__).parent.parent / "epkit" / "testing" / "models"

WIDTH = 16
FLOAT, FLOAT16, FLOAT64, INT64, STRING = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.INT64,
    TensorProto.STRING,
)
node = helper.make_node
value = helper.make_tensor_value_info
Size = int | str


def models() -> dict[str, bytes]:
    """Build every model, by the name of its file."""
    return {
        "float32.mlp": mlp([2, WIDTH]),
        "float32.convolutions": convolutions(1, 8),
        "float32.attention": attention(2, 4),
        "float32.arithmetic": arithmetic(),
        "float16.mlp": mlp([2, WIDTH], FLOAT16),
        "float64.mlp": mlp([2, WIDTH], FLOAT64),
        "int64.sum": total(),
        "int8.mlp": quantized(),
        "strings.passed": passed(),
        "dynamic-shapes.mlp": mlp(["batch", WIDTH]),
        "dynamic-shapes.convolutions": convolutions("batch", "side"),
        "dynamic-shapes.attention": attention("batch", "tokens"),
        "data-shapes.positive": positive(),
        "retrained.mlp": mlp([2, WIDTH], seed=9),
        "retrained.convolutions": convolutions(1, 8, seed=9),
        "retrained.attention": attention(2, 4, seed=9),
    }


def mlp(shape: Sequence[Size], dtype: int = FLOAT, seed: int = 1) -> bytes:
    """Build two matrix products with a Relu between."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    weights = [
        numpy_helper.from_array((uniform((WIDTH, WIDTH), seed + at) * 0.5).astype(kind), name)
        for at, name in enumerate("ab")
    ]
    nodes = [node("MatMul", ["x", "a"], ["h"]), node("Relu", ["h"], ["r"]), node("MatMul", ["r", "b"], ["y"])]
    return model(nodes, [value("x", dtype, shape)], [value("y", dtype, shape)], weights)


def convolutions(batch: Size, side: Size, seed: int = 3) -> bytes:
    """Build two convolutions, the second with strides, then the mean of each channel and a softmax."""
    weights = [
        numpy_helper.from_array(uniform((8, 8, 3, 3), seed + at) * np.float32(0.3), name)
        for at, name in enumerate("ab")
    ]
    nodes = [
        node("Conv", ["x", "a"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "b"], ["d"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("GlobalAveragePool", ["d"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Softmax", ["f"], ["y"]),
    ]
    return model(nodes, [value("x", FLOAT, [batch, 8, side, side])], [value("y", FLOAT, [batch, 8])], weights)


def attention(batch: Size, tokens: Size, seed: int = 11) -> bytes:
    """Build one head of self-attention behind a layer normalisation, and the sum with what went in."""
    weights = [
        numpy_helper.from_array(uniform((WIDTH, WIDTH), seed + at) * np.float32(0.5), name)
        for at, name in enumerate(("wq", "wk", "wv", "wo"))
    ]
    constants = [
        numpy_helper.from_array(np.ones(WIDTH, np.float32), "scale"),
        numpy_helper.from_array(np.zeros(WIDTH, np.float32), "bias"),
        numpy_helper.from_array(np.array(WIDTH**-0.5, np.float32), "root"),
    ]
    nodes = [
        node("LayerNormalization", ["x", "scale", "bias"], ["n"], axis=-1),
        *(node("MatMul", ["n", f"w{one}"], [one]) for one in "qkv"),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["alike"]),
        node("Mul", ["alike", "root"], ["scaled"]),
        node("Softmax", ["scaled"], ["share"], axis=-1),
        node("MatMul", ["share", "v"], ["seen"]),
        node("MatMul", ["seen", "wo"], ["o"]),
        node("Add", ["o", "x"], ["y"]),
    ]
    shape = [batch, tokens, WIDTH]
    return model(nodes, [value("x", FLOAT, shape)], [value("y", FLOAT, shape)], [*weights, *constants])


def arithmetic() -> bytes:
    """Build two outputs of two inputs."""
    shape = [4, 8]
    nodes = [node("Add", ["a", "b"], ["sum"]), node("Sub", ["a", "b"], ["difference"])]
    inputs = [value(name, FLOAT, shape) for name in "ab"]
    return model(nodes, inputs, [value(name, FLOAT, shape) for name in ("sum", "difference")])


def total() -> bytes:
    """Build a sum of whole numbers."""
    inputs = [value(name, INT64, [4]) for name in "ab"]
    return model([node("Add", ["a", "b"], ["y"])], inputs, [value("y", INT64, [4])])


def quantized() -> bytes:
    """Build a matrix product of 8-bit integers in QDQ form. Small whole numbers go in, so that every step is exact."""
    rows, columns = 4, 8
    weights = np.random.RandomState(5).randint(-3, 4, (rows, columns)).astype(np.int8)
    constants = [
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(np.array(1, np.float32), "scale"),
        numpy_helper.from_array(np.array(0, np.int8), "zero"),
    ]
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
        node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
        node("DequantizeLinear", ["w", "scale", "zero"], ["wd"]),
        node("MatMul", ["xd", "wd"], ["h"]),
        node("QuantizeLinear", ["h", "scale", "zero"], ["hq"]),
        node("DequantizeLinear", ["hq", "scale", "zero"], ["y"]),
    ]
    return model(nodes, [value("x", FLOAT, [2, rows])], [value("y", FLOAT, [2, columns])], constants)


def passed() -> bytes:
    """Build texts that pass through beside numbers that are computed."""
    nodes = [node("Identity", ["t"], ["u"]), node("Relu", ["x"], ["y"])]
    inputs = [value("t", STRING, [3]), value("x", FLOAT, [3])]
    return model(nodes, inputs, [value("u", STRING, [3]), value("y", FLOAT, [3])])


def positive() -> bytes:
    """Build the positions of what is above zero: their number depends on the data."""
    nodes = [node("Relu", ["x"], ["h"]), node("NonZero", ["h"], ["y"])]
    return model(nodes, [value("x", FLOAT, [16])], [value("y", INT64, [1, "found"])])


def uniform(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return seeded numbers from -1 to 1."""
    numbers = 2 * np.random.RandomState(seed).random_sample(shape) - 1
    return numbers.astype(np.float32)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
) -> bytes:
    """Build a model, checked, and return its bytes."""
    graph = helper.make_graph(list(nodes), "kit", list(inputs), list(outputs), list(weights))
    made = helper.make_model(graph, producer_name="epkit", ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString(deterministic=True))


def main() -> None:
    """Write them."""
    for name, contents in models().items():
        (TARGET / f"{name}.onnx").write_bytes(contents)
    sys.stdout.write(f"wrote {len(models())} models to {TARGET}\n")


if __name__ == "__main__":
    main()
