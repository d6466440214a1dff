"""The two models that epkit brings: made by a generator that is here, and fit for what they are for."""

from __future__ import annotations

from typing import cast

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from sample_models import MAKE, session

from epkit.discovery.proof import CONVOLUTION
from epkit.model import sample
from epkit.model.file import TensorInfo, read_model


def scores(running: onnxruntime.InferenceSession, image: NDArray[np.float32]) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", running.run(None, {"image": image})[0])


def test_the_sample_is_what_its_generator_makes_byte_for_byte() -> None:
    assert sample.path().read_bytes() == MAKE["sample"]()


def test_the_proof_is_what_its_generator_makes_byte_for_byte() -> None:
    assert CONVOLUTION.model == MAKE["convolution"]()


def test_the_sample_is_a_small_network_of_the_parts_of_real_ones() -> None:
    found = read_model(sample.path())
    assert found.size < 2_000_000
    assert (found.ir_version, found.opsets) == (8, {"ai.onnx": 17})
    assert found.inputs == (TensorInfo("image", "float32", ("batch", 3, 128, 128)),)
    assert found.outputs == (TensorInfo("scores", "float32", ("batch", 100)),)
    parts = {"Conv", "BatchNormalization", "LayerNormalization", "MatMul", "Softmax", "Transpose", "Gemm", "Add"}
    assert parts <= set(found.operators)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_sample_gives_the_same_scores_however_it_is_computed(batch: int) -> None:
    image = np.random.default_rng(1).random((batch, 3, 128, 128), np.float32)
    source = sample.path().read_bytes()
    fused = scores(session(source), image)
    plain = scores(session(source, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL), image)
    assert fused.shape == (batch, 100)
    np.testing.assert_allclose(fused, plain, rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores(session(source), image[:1]), fused[:1], rtol=0, atol=1e-5)


def test_the_scores_of_the_sample_depend_on_the_image() -> None:
    running = session(sample.path().read_bytes())
    first, second = (np.random.default_rng(seed).random((1, 3, 128, 128), np.float32) for seed in (1, 2))
    assert np.abs(scores(running, first) - scores(running, second)).max() > 0.01
    assert scores(running, first).std() > 0.5


def test_the_proof_gives_its_numbers_on_the_cpu() -> None:
    x = np.array(CONVOLUTION.input, np.float32).reshape(CONVOLUTION.input_shape)
    (y,) = session(CONVOLUTION.model).run(None, {"x": x})
    assert y.shape == (1, 1, 2, 2)
    assert tuple(y.ravel().tolist()) == CONVOLUTION.output == (45, 54, 81, 90)
    found = read_model(CONVOLUTION.model)
    assert (found.ir_version, found.opsets, found.operators) == (8, {"ai.onnx": 13}, {"Conv": 1, "Relu": 1})
