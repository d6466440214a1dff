"""Agreement is said of numbers that were compared: not of outputs without a value, an element or a finite number."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import model, value
from onnx import TensorProto, helper

import epkit
from epkit.model.array_files import save_outputs
from epkit.model.sample_inputs import make_sample_inputs
from epkit.parity.saved import compare_saved


def passing(inner: onnx.TypeProto) -> bytes:
    """Build p = o, an optional input."""
    kind = helper.make_optional_type_proto(inner)
    values = [helper.make_value_info(name, kind) for name in ("o", "p")]
    return model([helper.make_node("Identity", ["o"], ["p"])], values[:1], values[1:], opset=18)


TENSOR = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"])
SEQUENCE = helper.make_sequence_type_proto(TENSOR)


@pytest.fixture(autouse=True)
def _faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPKIT_PLUGINS", "epkit_faulty")


@pytest.mark.parametrize("inner", [TENSOR, SEQUENCE], ids=["tensor", "sequence"])
def test_an_optional_input_is_generated_once_and_left_out_once(inner):
    with epkit.open(passing(inner), "cpu", config={}) as session:
        with_it, without = (make_sample_inputs(session.inputs, seed=seed).feed for seed in (0, 1))
        assert list(with_it) == ["o"]
        assert list(without) == []
        assert session.run(with_it)["p"] is not None
        assert session.run(without)["p"] is None


@pytest.mark.slow
def test_a_provider_that_computes_wrong_numbers_of_an_optional_input_does_not_agree():
    found = epkit.compare(passing(TENSOR), ["cpu", "faulty-wrong"], config={})
    assert not found.agree
    assert found.rows[1].verdict == "differ"
    assert "o" in [one["name"] for one in found.inputs]


def test_a_provider_that_computes_right_numbers_of_an_optional_input_agrees():
    assert epkit.compare(passing(TENSOR), ["cpu", "faulty-none"], config={}, seeds=2).agree


@pytest.mark.parametrize("numbers", [{}, {"y": np.ones(2)}])
def test_saved_outputs_without_a_value_are_no_agreement(numbers, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        save_outputs({"p": None, **numbers}, folder)
    assert compare_saved(*folders).agree is bool(numbers)


HOLLOW = {
    "no element": model(
        [helper.make_node("NonZero", ["d"], ["y"]), helper.make_node("Sub", ["x", "x"], ["d"])][::-1],
        [value("x", [3])],
        [value("y", [1, "n"], TensorProto.INT64)],
    ),
    "no finite number": model(
        [helper.make_node("Sub", ["x", "x"], ["d"]), helper.make_node("Div", ["d", "d"], ["y"])],
        [value("x", [3])],
        [value("y", [3])],
    ),
}


@pytest.mark.parametrize("name", HOLLOW)
def test_runs_that_give_nothing_to_compare_are_no_agreement(name):
    found = epkit.compare(HOLLOW[name], ["cpu", "faulty-none"], config={}, seeds=2)
    assert not found.agree
    assert found.rows[1].told
