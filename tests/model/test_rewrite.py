"""Models that are changed without the onnx package, as the onnx package and ONNX Runtime read them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import light, mlp, model, value
from onnx import TensorProto, helper

import epkit
from epkit.model.edit import ROUNDING_STEPS, add_outputs, add_rounding_noise, find_dependent_nodes
from epkit.model.sample_inputs import make_sample_inputs


def branching() -> bytes:
    """Build a model with a branch that reads "h" from outside of it."""
    then = helper.make_graph([helper.make_node("Neg", ["h"], ["t"])], "then", [], [value("t", [2])])
    other = helper.make_graph([helper.make_node("Identity", ["h"], ["o"])], "else", [], [value("o", [2])])
    made = [
        helper.make_node("Constant", [], ["c"], value_float=1.0),
        helper.make_node("Abs", ["x"], ["h"], name="first"),
        helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=other),
        helper.make_node("Neg", ["c"], ["d"]),
        helper.make_node("Add", ["y", "d"], ["z"]),
    ]
    return model(made, [value("x", [2]), value("flag", [], TensorProto.BOOL)], [value("z", [2])])


def test_nodes_are_those_that_depend_on_inputs_through_branches_too():
    found = find_dependent_nodes(branching(), ["x"])
    assert [(one.operator, one.outputs) for one in found] == [("Abs", ("h",)), ("If", ("y",)), ("Add", ("z",))]
    assert {"flag", "h"} <= set(found[1].inputs)
    assert [one.label for one in found] == ["Abs 'first'", "If", "Add"]


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_nodes_of_a_real_model_are_those_that_the_onnx_package_reads(name):
    loaded = onnx.load(light(name))
    stored = {one.name for one in loaded.graph.initializer}
    inputs = [one.name for one in loaded.graph.input if one.name not in stored]
    real = {tuple(one.output) for one in loaded.graph.node if one.op_type != "ConstantOfShape"}
    assert {one.outputs for one in find_dependent_nodes(light(name).read_bytes(), inputs)} == real


def test_exposed_tensors_are_outputs_after_those_of_the_model():
    contents = add_outputs(mlp(), ["h", "r"])
    assert [one.name for one in onnx.load_from_string(contents).graph.output] == ["y", "h", "r"]
    x = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)
    with epkit.open(contents, "cpu") as session, epkit.open(mlp(), "cpu") as plain:
        found = session.run(x)
        np.testing.assert_array_equal(found["r"], np.maximum(found["h"], 0))
        np.testing.assert_array_equal(found["y"], plain.run(x)["y"])
    assert add_outputs(mlp(), []) == mlp()


@pytest.mark.parametrize("dtype", sorted(ROUNDING_STEPS.keys() - {"bfloat16"}))
def test_shaken_tensors_move_by_a_rounding_step_and_anew_in_each_run(dtype):
    number = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    made = [helper.make_node("Abs", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])]
    plain = model(made, [value("x", [512], number)], [value("y", [512], number)])
    moved = add_rounding_noise(plain, {"h": dtype}, seed=1)
    onnx.checker.check_model(onnx.load_from_string(moved), full_check=True)
    x = np.linspace(1, 2, 512).astype(dtype)
    with epkit.open(moved, "cpu") as session, epkit.open(moved, "cpu") as again:
        first, second = session.run(x)["y"], session.run(x)["y"]
        np.testing.assert_array_equal(again.run(x)["y"], first)
    for found in (first, second):
        off = np.abs(found.astype(np.float64) + x.astype(np.float64))
        assert 0 < off.max() <= 2 * ROUNDING_STEPS[dtype]
        assert 0.1 < np.mean(off > 0) < 0.9
    assert (first != second).any()


def test_a_whole_model_can_be_shaken_and_keeps_everything_else():
    contents = light("shufflenet").read_bytes()
    loaded = onnx.load_from_string(contents)
    stored = {one.name for one in loaded.graph.initializer}
    inputs = [one.name for one in loaded.graph.input if one.name not in stored]
    names = [name for node in find_dependent_nodes(contents, inputs) for name in node.outputs]
    moved = onnx.load_from_string(add_rounding_noise(contents, dict.fromkeys(names, "float32"), seed=0))
    assert len(moved.graph.node) == len(loaded.graph.node) + 3 * len(names)
    assert moved.graph.initializer == loaded.graph.initializer
    assert (moved.graph.input, moved.graph.output) == (loaded.graph.input, loaded.graph.output)
    assert (moved.opset_import, moved.ir_version) == (loaded.opset_import, loaded.ir_version)
    assert onnx.load_from_string(add_rounding_noise(contents, {}, seed=0)) == loaded


def test_other_seeds_make_other_inputs_and_the_same_seed_the_same():
    wanted = epkit.inspect(mlp()).model.inputs
    first, second, again = (make_sample_inputs(wanted, seed=seed).feed["x"] for seed in (0, 1, 0))
    assert (first != second).any()
    np.testing.assert_array_equal(first, again)
