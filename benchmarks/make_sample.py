"""Make the sample that epkit brings and the models of its proofs: `python benchmarks/make_sample.py`.

The sample network is a small image classifier of the parts that real ones are made of: convolutions with batch
normalisation and residual sums, depthwise convolutions, attention over the places of the last map, a dense head. Its
weights are seeded and scaled so that activations keep their size from layer to layer: providers then agree closely.

The same bytes come out on every machine: the legacy generator of NumPy is frozen, and its uniform numbers need no
function that differs between platforms.
"""

from __future__ import annotations

import base64
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

TARGET = Path(__file__).parent.parent / "epkit" / "model" / "sample" / "sample.onnx"

SIDE = 128
CHANNELS = (32, 64, 96)
CLASSES = 100


class Builder:
    """Collects nodes and weights; each method adds a layer and returns the name of what it computes."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.RandomState(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: Sequence[str], name: str, **attributes: float | Sequence[int]) -> str:
        """Add one node, whose output carries its name."""
        node = helper.make_node(operator, list(inputs), [name], name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        self.nodes.append(node)
        return name

    def constant(self, name: str, values: Sequence[int]) -> str:
        """Add int64 numbers, as Reshape wants them."""
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def uniform(self, name: str, shape: Sequence[int], low: float, high: float) -> str:
        """Add seeded float32 weights."""
        values: NDArray[np.float64] = low + (high - low) * self.random.random_sample(tuple(shape))
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def dense(self, name: str, shape: Sequence[int], fan_in: int, gain: float = 1.0) -> str:
        """Add weights whose products with unit variance have the variance `gain`."""
        bound = float(np.sqrt(3.0 * gain / fan_in))
        return self.uniform(name, shape, -bound, bound)

    def conv(self, x: str, name: str, sizes: tuple[int, int], *, kernel: int, stride: int = 1, groups: int = 1) -> str:
        """Add a convolution without bias and its batch normalisation."""
        into, out = sizes[0] // groups, sizes[1]
        weight = self.dense(f"{name}.weight", (out, into, kernel, kernel), into * kernel * kernel, gain=2.0)
        pads = [kernel // 2] * 4
        x = self.add(
            "Conv",
            [x, weight],
            f"{name}.conv",
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=pads,
            group=groups,
        )
        statistics = [
            self.uniform(f"{name}.scale", (out,), 0.8, 1.2),
            self.uniform(f"{name}.bias", (out,), -0.1, 0.1),
            self.uniform(f"{name}.mean", (out,), -0.1, 0.1),
            self.uniform(f"{name}.variance", (out,), 0.8, 1.2),
        ]
        return self.add("BatchNormalization", [x, *statistics], f"{name}.norm", epsilon=1e-5)

    def relu(self, x: str) -> str:
        """Add a Relu."""
        return self.add("Relu", [x], f"{x}.relu")

    def residual(self, x: str, name: str, channels: int) -> str:
        """Add two convolutions and the sum with what went in."""
        inner = self.relu(self.conv(x, f"{name}.1", (channels, channels), kernel=3))
        return self.relu(
            self.add("Add", [self.conv(inner, f"{name}.2", (channels, channels), kernel=3), x], f"{name}.sum")
        )

    def separable(self, x: str, name: str, sizes: tuple[int, int]) -> str:
        """Add a depthwise convolution that halves the map, and a pointwise one that widens it."""
        x = self.relu(self.conv(x, f"{name}.depthwise", (sizes[0], sizes[0]), kernel=3, stride=2, groups=sizes[0]))
        return self.relu(self.conv(x, f"{name}.pointwise", sizes, kernel=1))

    def layer_norm(self, x: str, name: str, width: int) -> str:
        """Add a layer normalisation over the last axis."""
        scale = self.uniform(f"{name}.scale", (width,), 0.8, 1.2)
        bias = self.uniform(f"{name}.bias", (width,), -0.1, 0.1)
        return self.add("LayerNormalization", [x, scale, bias], name, axis=-1, epsilon=1e-5)

    def matmul(self, x: str, name: str, sizes: tuple[int, int]) -> str:
        """Add a matrix product and its bias."""
        product = self.add("MatMul", [x, self.dense(f"{name}.weight", sizes, sizes[0])], f"{name}.product")
        return self.add("Add", [product, self.uniform(f"{name}.bias", sizes[1:], -0.1, 0.1)], name)

    def attention(self, x: str, name: str, width: int) -> str:
        """Add one head of self-attention over [batch, places, width], and the sum with what went in."""
        normed = self.layer_norm(x, f"{name}.norm", width)
        query, key, value = (self.matmul(normed, f"{name}.{one}", (width, width)) for one in ("query", "key", "value"))
        across = self.add("Transpose", [key], f"{name}.key.transposed", perm=[0, 2, 1])
        scale = self.uniform(f"{name}.scale", (), width**-0.5, width**-0.5)
        alike = self.add("Mul", [self.add("MatMul", [query, across], f"{name}.alike"), scale], f"{name}.scaled")
        seen = self.add("MatMul", [self.add("Softmax", [alike], f"{name}.share", axis=-1), value], f"{name}.seen")
        return self.add("Add", [self.matmul(seen, f"{name}.out", (width, width)), x], f"{name}.sum")

    def perceptron(self, x: str, name: str, width: int) -> str:
        """Add two dense layers with a gate between them, and the sum with what went in."""
        wide = self.matmul(self.layer_norm(x, f"{name}.norm", width), f"{name}.up", (width, 2 * width))
        gated = self.add("Mul", [wide, self.add("Sigmoid", [wide], f"{name}.gate")], f"{name}.gated")
        return self.add("Add", [self.matmul(gated, f"{name}.down", (2 * width, width)), x], f"{name}.sum")


def sample() -> bytes:
    """Build the sample network: `image` [batch, 3, 128, 128] to `scores` [batch, 100], both float32."""
    net = Builder(seed=20)
    narrow, middle, width = CHANNELS
    places = (SIDE // 8) ** 2
    x = net.relu(net.conv("image", "stem", (3, narrow), kernel=3, stride=2))
    x = net.residual(x, "stage1", narrow)
    x = net.residual(net.separable(x, "down1", (narrow, middle)), "stage2", middle)
    x = net.residual(net.separable(x, "down2", (middle, width)), "stage3", width)
    x = net.add("Reshape", [x, net.constant("tokens.shape", (0, width, places))], "tokens.flat")
    x = net.add("Transpose", [x], "tokens", perm=[0, 2, 1])
    x = net.perceptron(net.attention(x, "attention", width), "perceptron", width)
    x = net.add("Transpose", [x], "map.flat", perm=[0, 2, 1])
    x = net.add("Reshape", [x, net.constant("map.shape", (0, width, SIDE // 8, SIDE // 8))], "map")
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], "pool")], "features")
    x = net.layer_norm(x, "features.norm", width)
    head = [net.dense("head.weight", (CLASSES, width), width), net.uniform("head.bias", (CLASSES,), -0.1, 0.1)]
    net.add("Gemm", [x, *head], "scores", transB=1)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])
    graph = helper.make_graph(net.nodes, "sample", [image], [scores], net.weights)
    return _model(graph, opset=17)


def convolution() -> bytes:
    """Build the model that proves a provider: a 3x3 convolution of ones over a 4x4 image, and a Relu."""
    ones = numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 2, 2])
    return _model(helper.make_graph(nodes, "proof", [x], [y], [ones]), opset=13)


def perceptron() -> bytes:
    """Build the model that proves a provider of MLPs: the sums of ones and twos over four numbers, and a Relu."""
    weights = numpy_helper.from_array(np.float32([[1, 2, -1, -2]] * 4), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="matmul"),
        helper.make_node("Relu", ["m"], ["y"], name="relu"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    return _model(helper.make_graph(nodes, "proof", [x], [y], [weights]), opset=13)


def attention() -> bytes:
    """Build the model that proves a provider of attention: four tokens that each see all alike, so the mean of all.

    The query's weights are zeros, and every share of the softmax is a quarter.
    """
    zeros = numpy_helper.from_array(np.zeros((2, 2), np.float32), "wq")
    turned = numpy_helper.from_array(np.float32([[0, 2], [1, 0]]), "wv")
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"], name="query"),
        helper.make_node("MatMul", ["x", "wv"], ["v"], name="value"),
        helper.make_node("Transpose", ["x"], ["k"], name="key", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["s"], name="alike"),
        helper.make_node("Softmax", ["s"], ["p"], name="share", axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"], name="seen"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 2]) for name in "xy")
    return _model(helper.make_graph(nodes, "proof", [x], [y], [zeros, turned]), opset=13)


def _model(graph: onnx.GraphProto, *, opset: int) -> bytes:
    model = helper.make_model(
        graph, producer_name="epkit", ir_version=8, opset_imports=[helper.make_opsetid("", opset)]
    )
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def main() -> None:
    """Write the sample, and show the texts of the proofs that stand in epkit/discovery/proof.py."""
    TARGET.write_bytes(sample())
    sys.stdout.write(f"wrote {TARGET}\nepkit/_proof.py:\n")
    for proof in (convolution(), perceptron(), attention()):
        sys.stdout.write(f"\n{textwrap.fill(base64.b64encode(proof).decode(), 100)}\n")


if __name__ == "__main__":
    main()
