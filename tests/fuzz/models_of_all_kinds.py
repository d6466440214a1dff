"""Small models of all kinds, and changes to them that keep them whole."""

from __future__ import annotations

import random

import numpy as np
import onnx
from hostile import NAMES
from models import identity, mlp, model, value
from onnx import TensorProto, helper, numpy_helper

SIZES = (0, 1, 2, 7, 2**16, 2**31, 2**40, 2**62, -1)


def branches() -> bytes:
    """Build an If."""
    bodies = [
        helper.make_graph([helper.make_node(kind, ["x"], ["r"])], kind, [], [value("r", ["n"])])
        for kind in ("Relu", "Neg")
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
    return model([node], [value("x", ["n"]), value("c", [], TensorProto.BOOL)], [value("y", ["n"])])


def many_types() -> bytes:
    """Build a model with inputs of many types."""
    types = (
        TensorProto.FLOAT, TensorProto.STRING, TensorProto.BOOL, TensorProto.INT64, TensorProto.FLOAT16,
        TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.UINT4, TensorProto.COMPLEX64,
    )  # fmt: skip
    nodes = [helper.make_node("Identity", [f"x{at}"], [f"y{at}"]) for at in range(len(types))]
    inputs = [value(f"x{at}", ["n"], kind) for at, kind in enumerate(types)]
    return model(nodes, inputs, [value(f"y{at}", ["n"], kind) for at, kind in enumerate(types)], opset=19, ir=10)


def sequences() -> bytes:
    """Build a model that gives a sequence."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    nodes = [helper.make_node("SplitToSequence", ["x"], ["y"], axis=0)]
    return model(nodes, [value("x", ["n", 2])], [helper.make_value_info("y", kind)])


def outside() -> bytes:
    """Build a model whose weights lie in a file that is not there."""
    weight = numpy_helper.from_array(np.ones(4, np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, text in (("location", "weights.bin"), ("offset", "0"), ("length", "16")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, text
    return model([helper.make_node("Add", ["x", "w"], ["y"])], [value("x", [4])], [value("y", [4])], [weight])


def compiled() -> bytes:
    """Build what claims to have been compiled by somebody."""
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", source="nobody", embed_mode=1)
    node.attribute.append(helper.make_attribute("ep_cache_context", b"\x00\x01"))
    return model([node], [value("x", [4])], [value("y", [4])], domains=("com.microsoft",))


MODELS = {
    "mlp": mlp,
    "identity": identity,
    "branches": branches,
    "many types": many_types,
    "sequences": sequences,
    "outside": outside,
    "compiled": compiled,
}


def altered(contents: bytes, chance: random.Random) -> bytes:
    """Give names, types, shapes or versions that are odd, in a message that is whole."""
    found = onnx.ModelProto()
    found.ParseFromString(contents)
    infos = [*found.graph.input, *found.graph.output]
    info = chance.choice(infos)
    match chance.choice(("name", "shape", "type", "opset", "ir", "operator", "weight", "attribute")):
        case "name":
            _rename(found, info.name, chance.choice(NAMES).encode("utf-8", "replace").decode())
        case "shape":
            shape = info.type.tensor_type.shape
            dim = shape.dim.add() if chance.random() < 0.3 or not shape.dim else chance.choice(shape.dim)
            dim.dim_value = chance.choice(SIZES)
        case "type":
            info.type.tensor_type.elem_type = chance.randrange(40)
        case "opset":
            chance.choice(found.opset_import).version = chance.choice((0, -1, 1, 5, 26, 99, 2**62))
        case "ir":
            found.ir_version = chance.choice((0, 1, 3, 13, 14, 99, 2**62))
        case "operator":
            node = chance.choice(found.graph.node)
            node.op_type = chance.choice(("", "Add", "Conv", "Loop", "Nothing", "MatMul", "Reshape", "\x1b[2J"))
        case "weight" if found.graph.initializer:
            tensor = chance.choice(found.graph.initializer)
            tensor.data_type = chance.choice((tensor.data_type, chance.randrange(30)))
            tensor.dims.append(chance.choice(SIZES))
        case "attribute":
            chance.choice(found.graph.node).attribute.append(helper.make_attribute("axis", chance.choice(SIZES)))
    return found.SerializeToString()


def _rename(found: onnx.ModelProto, old: str, new: str) -> None:
    for info in (*found.graph.input, *found.graph.output):
        if info.name == old:
            info.name = new
    for node in found.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
