from __future__ import annotations

import json

import ml_dtypes
import numpy as np
from texts import says

from epkit.errors import InputError
from epkit.model.array_files import load_inputs, save_outputs
from epkit.model.file import TensorInfo


def test_outputs_are_written_as_what_they_are(tmp_path):
    files = save_outputs(
        {
            "plain": np.array([1, 2], np.int64),
            "small": np.array([0.5], ml_dtypes.bfloat16),
            "texts": np.array(["a", "b"], dtype=object),
            "sequence": [np.ones(2), np.zeros(3)],
            "maps": [{"a": 0.5}, {"a": 0.25}],
            "nothing": None,
        },
        tmp_path / "new" / "folder",
    )
    assert np.load(files["plain"]).tolist() == [1, 2]
    assert np.load(files["small"]).dtype == np.float32
    assert np.load(files["texts"]).tolist() == ["a", "b"]
    assert [array.shape for array in np.load(files["sequence"]).values()] == [(2,), (3,)]
    assert json.loads(files["maps"].read_text()) == [{"a": 0.5}, {"a": 0.25}]
    assert json.loads(files["nothing"].read_text()) is None


def test_an_outputs_name_cannot_leave_the_folder_and_two_never_share_a_file(tmp_path):
    names = ["../../evil", "a/b", "a_b", "..", ".hidden", "/abs", "ü x"]
    files = save_outputs({name: np.zeros(1) for name in names}, tmp_path / "out")
    assert len(set(files.values())) == len(names)
    assert all(file.parent == tmp_path / "out" and file.is_file() for file in files.values())


def test_an_inputs_name_may_hold_an_equals_sign(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(1, np.float32))
    inputs = [TensorInfo("a=b", "float32", (1,)), TensorInfo("a", "float32", (1,))]
    feed = load_inputs([f"a=b={tmp_path / 'x.npy'}"], inputs)
    assert list(feed) == ["a=b"]
    assert feed["a=b"].tolist() == [1]


def test_for_one_input_the_name_may_be_left_out(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(1, np.float32))
    feed = load_inputs([str(tmp_path / "x.npy")], [TensorInfo("a", "float32", (1,))])
    assert list(feed) == ["a"]


def test_several_arrays_in_a_file_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", np.ones(1), np.ones(2))
    with says(InputError):
        load_inputs([f"a={tmp_path / 'x.npz'}"], [TensorInfo("a", "float32", (1,))])
