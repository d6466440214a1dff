"""A classifier without ZipMap gives the same probabilities, as one array."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from models import mlp, model, value
from onnx import TensorProto, helper

import epkit
from epkit.errors import ModelError

X = np.random.default_rng(3).random((5, 3), dtype=np.float32)


def classifier(labels: list[int] | list[str], opset: int = 17) -> bytes:
    """Build what converters from scikit-learn write: probabilities by label, beside another output."""
    text = isinstance(labels[0], str)
    key = TensorProto.STRING if text else TensorProto.INT64
    number = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    mapped = helper.make_sequence_type_proto(helper.make_map_type_proto(key, number))
    nodes = [
        helper.make_node("Softmax", ["x"], ["scores"], axis=1),
        helper.make_node(
            "ZipMap",
            ["scores"],
            ["probabilities"],
            domain="ai.onnx.ml",
            **{f"classlabels_{'strings' if text else 'int64s'}": labels},
        ),
        helper.make_node("Neg", ["x"], ["other"]),
    ]
    outputs = [helper.make_value_info("probabilities", mapped), value("other", ["n", 3])]
    return model(nodes, [value("x", ["n", 3])], outputs, domains=["ai.onnx.ml"], opset=opset)


@pytest.mark.parametrize("labels", [["cat", "dog", "ä"], [7, -1, 2**40]], ids=["texts", "numbers"])
@pytest.mark.parametrize("from_file", [True, False])
def test_probabilities_are_one_array_with_the_same_numbers_and_the_labels_are_kept(tmp_path, labels, from_file):
    contents = classifier(labels)
    (tmp_path / "m.onnx").write_bytes(contents)
    changed = epkit.drop_zipmap(tmp_path / "m.onnx" if from_file else contents)
    onnx.checker.check_model(onnx.load_from_string(changed), full_check=True)
    with epkit.open(contents, "cpu") as plain, epkit.open(changed, "cpu") as session:
        rows, found = plain.run(X), session.run(X)
        classes = json.loads(session.metadata["probabilities.classes"])
        assert classes == labels
        assert [one.name for one in session.outputs] == ["probabilities", "other"]
    assert found["probabilities"].dtype == np.float32
    wanted = [[row[label] for label in classes] for row in rows["probabilities"]]
    np.testing.assert_array_equal(found["probabilities"], np.array(wanted, np.float32))
    np.testing.assert_array_equal(found["other"], rows["other"])


def test_a_model_without_zipmap_is_returned_as_it_is():
    assert epkit.drop_zipmap(mlp()) == mlp()


def test_other_metadata_stays():
    loaded = onnx.load_from_string(classifier(["a", "b", "c"]))
    helper.set_model_props(loaded, {"made by": "a test"})
    with epkit.open(epkit.drop_zipmap(loaded.SerializeToString()), "cpu") as session:
        assert session.metadata["made by"] == "a test"


def test_what_is_no_model_is_an_error_of_the_model():
    with pytest.raises(ModelError):
        epkit.drop_zipmap(b"nothing of the kind")
