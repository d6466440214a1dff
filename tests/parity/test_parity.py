"""How far outputs are apart, measured and judged: against plain definitions in NumPy."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from texts import says

from epkit.errors import ConfigError, InputError
from epkit.parity.agreement import agreement, judged, measured
from epkit.parity.metrics import FLOOR, Metrics, measure, ulps
from epkit.parity.outputs import Outputs, flat, read, write
from epkit.parity.saved import compare_saved
from epkit.parity.tolerance import AUTO, BY_DTYPE, PRESETS, ROUNDINGS, judge, tolerance_of

DTYPES = st.sampled_from([np.float16, np.float32, np.float64])
ANY = st.floats(width=16)
FLOATS = npst.arrays(DTYPES, npst.array_shapes(min_side=0), elements=ANY)
FINITE = npst.arrays(
    np.float32, npst.array_shapes(), elements=st.floats(-1000, 1000, width=32).filter(lambda x: abs(x) > 0.01)
)


@st.composite
def pairs(draw, elements=ANY):
    """Draw two arrays of one dtype and shape."""
    dtype, shape = draw(DTYPES), draw(npst.array_shapes(min_side=0, max_side=5))
    return tuple(draw(npst.arrays(dtype, shape, elements=elements)) for _ in range(2))


def compared(a: np.ndarray, b: np.ndarray) -> Metrics:
    return measure("y", a, b, a.dtype.name, b.dtype.name)


# Metrics


@given(pairs(st.floats(-1000, 1000, width=16)))
def test_differences_are_those_of_their_definitions(pair):
    a, b = pair
    found = compared(a, b)
    x, y = a.astype(np.float64), b.astype(np.float64)
    apart = np.abs(x - y)
    assert found.max_abs == apart.max(initial=0)
    assert found.mean_abs == (pytest.approx(np.mean(apart)) if a.size else 0.0)
    assert found.unequal == np.sum(x != y)
    assert found.misplaced == 0
    assert found.share == pytest.approx(apart.max(initial=0) / max(np.abs(x).max(initial=0), FLOOR))
    relative = (apart / np.abs(np.where(x == 0, np.nan, x)))[x != 0]
    assert found.max_rel == pytest.approx(relative.max(initial=0))
    assert found.mean_rel == (pytest.approx(np.mean(relative)) if relative.size else 0.0)
    lengths = np.linalg.norm(x), np.linalg.norm(y)
    if all(lengths):
        assert found.cosine == pytest.approx(float((x * y).sum() / lengths[0] / lengths[1]), abs=1e-9)
    else:
        assert found.cosine is None


@given(pairs())
def test_what_is_not_finite_is_counted_and_left_out_and_every_figure_is_json(pair):
    a, b = pair
    found = compared(a, b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = np.isfinite(a) & np.isfinite(b)
    assert found.unequal == np.sum(~same)
    assert found.misplaced == np.sum(~same & ~finite)
    assert found.max_abs == np.abs(a[finite].astype(np.float64) - b[finite].astype(np.float64)).max(initial=0)
    json.dumps(asdict(found), allow_nan=False)
    json.dumps(judge(found).as_json(), allow_nan=False)


@given(FLOATS, st.integers(0, 40), st.booleans())
def test_ulps_count_the_steps_of_nextafter(array, steps, up):
    array = array[np.isfinite(array)]
    other = array.copy()
    for _ in range(steps):
        other = np.nextafter(other, array.dtype.type(np.inf if up else -np.inf))
    assume(np.isfinite(other).all())
    assert (ulps(array, other, array.dtype.name) == steps).all()
    assert compared(array, other).max_ulp == (steps if array.size else 0)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_one_spacing_is_one_ulp_and_the_two_zeros_are_none(number):
    x = np.array([number], np.float32)
    assume(abs(x) < np.finfo(np.float32).max)
    away = x + np.copysign(np.spacing(np.abs(x)), x)
    assert ulps(x, away, "float32") == 1
    assert ulps(np.array([0.0], np.float32), np.array([-0.0], np.float32), "float32") == 0


def test_ulps_reach_from_one_end_of_float64_to_the_other():
    most = np.finfo(np.float64).max
    (apart,) = ulps(np.array([-most]), np.array([most]), "float64")
    assert int(apart) == 2 * int(np.float64(most).view(np.int64))


@pytest.mark.parametrize("dtype", ["bfloat16", "float8e4m3fn", "float8e5m2", "float8e4m3fnuz", "float8e5m2fnuz"])
def test_ulps_of_types_that_numpy_lacks_are_those_of_the_type_itself(dtype):
    kind = {"bfloat16": ml_dtypes.bfloat16}.get(dtype) or getattr(ml_dtypes, dtype.replace("float8", "float8_"))
    one = np.ones(1, kind)
    other = (one.view(f"u{one.itemsize}") + 3).view(kind)
    assert measure("y", one.astype(np.float32), other.astype(np.float32), dtype).max_ulp == 3


@given(pairs(st.floats(-9, 9, width=16)))
def test_argmax_flips_are_rows_whose_largest_element_stands_elsewhere(pair):
    a, b = pair
    found = compared(a, b)
    shape = a.shape
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3 or shape[-1] < 2:
        assert (found.argmax_flips, found.argmax_of) == (None, None)
        return
    a, b = a.reshape(shape), b.reshape(shape)
    assert found.argmax_of == np.prod(shape[:-1])
    assert found.argmax_flips == np.sum(np.argmax(a, -1) != np.argmax(b, -1))


@given(st.data(), st.sampled_from([np.int8, np.uint8, np.int64, np.uint64, np.bool_]))
def test_integers_are_subtracted_without_overflow(data, dtype):
    shape = data.draw(npst.array_shapes(min_side=0))
    a, b = (data.draw(npst.arrays(dtype, shape)) for _ in range(2))
    found = compared(a, b)
    apart = [abs(int(x) - int(y)) for x, y in zip(a.flat, b.flat, strict=True)]
    assert found.max_abs == float(max(apart, default=0))
    assert found.unequal == np.sum(a != b)
    assert judge(found).agree is not any(apart)


def test_complex_numbers_are_measured_as_numbers():
    a = np.array([3 + 4j, 1], np.complex64)
    found = compared(a, a + np.complex64(0.003j))
    assert found.max_abs == pytest.approx(0.003, rel=1e-4)
    assert found.share == pytest.approx(0.0006, rel=1e-4)
    assert (found.max_ulp, found.argmax_of) == (None, None)
    assert judge(found).agree


def test_float64_differences_beyond_float64_disagree_and_are_no_figure():
    most = np.array([np.finfo(np.float64).max])
    found = compared(most, -most)
    assert (found.max_abs, found.share) == (None, None)
    assert not judge(found).agree


# Judging


@given(FLOATS)
def test_outputs_agree_with_themselves_nan_and_infinity_included(array):
    found = judge(compared(array, array.copy()), PRESETS["exact"])
    assert found.agree, found.told
    assert found.metrics.max_abs == 0.0


@given(FINITE, st.data())
def test_one_element_decides_by_its_share_of_the_largest_magnitude(array, data):
    place = data.draw(st.integers(0, array.size - 1))
    scale = float(np.abs(array).max())
    for share, agree in ((0.5, True), (2.0, False)):
        other = array.astype(np.float64)
        other.flat[place] += share * BY_DTYPE["float32"] * scale
        found = judge(compared(array, other.astype(np.float32)))
        assert found.agree is agree, found.told


@given(FINITE, st.data(), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_nan_or_infinity_on_one_side_only_disagrees(array, data, odd):
    other = array.copy()
    other.flat[data.draw(st.integers(0, array.size - 1))] = odd
    for a, b in ((array, other), (other, array)):
        found = judge(compared(a, b))
        assert not found.agree
        assert "1 of" in found.told


def test_whole_numbers_and_texts_must_be_equal():
    assert judge(compared(np.array([1, 2]), np.array([1, 2]))).agree
    assert not judge(compared(np.array([1, 2]), np.array([1, 3]))).agree
    assert judge(measure("y", np.array(["a"]), np.array(["a"]), "string")).agree
    texts = measure("y", np.array(["a", "b"]), np.array(["a", "c"]), "string")
    assert "1 of 2" in judge(texts).told


def test_an_output_of_zeros_tolerates_noise_and_nothing_else():
    zeros = np.zeros(3, np.float32)
    assert judge(compared(zeros, zeros + np.float32(1e-10))).agree
    assert not judge(compared(zeros, zeros + np.float32(1e-4))).agree


def test_a_tolerance_is_a_preset_or_a_share():
    half = compared(np.ones(1, np.float32), np.full(1, 1.005, np.float32))
    assert [judge(half, tolerance_of(said)).agree for said in ("auto", "images", "exact", "0.006", 0.004)] == [
        *(False, True, False, True, False)
    ]
    with says(ConfigError) as error:
        tolerance_of("imags")
    assert "did you mean 'images'?" in error.value.hint
    for wrong in (-1, "nan", "inf"):
        with says(ConfigError):
            tolerance_of(wrong)


def test_an_image_model_in_float16_may_stand_for_one_in_float32_within_one_percent():
    a = np.linspace(0, 1, 7, dtype=np.float32)
    b = (a * np.float32(1.008)).astype(np.float16)
    assert judge(compared(a, b), tolerance_of("images")).agree
    assert "float16 where float32" in judge(compared(a, b)).told
    assert not judge(compared(a, (a * 1.02).astype(np.float16)), tolerance_of("images")).agree
    whole = a.astype(np.int32)
    assert not judge(compared(whole, a), tolerance_of("images")).agree


def test_what_rounding_alone_moves_is_allowed_in_auto_only_and_as_long_as_the_output_means_anything():
    found = compared(np.ones(1, np.float32), np.full(1, 1.02, np.float32))
    assert not judge(found).agree
    assert judge(found, AUTO, moved=0.03 / ROUNDINGS).agree
    assert not judge(found, AUTO, moved=0.01 / ROUNDINGS).agree
    assert not judge(found, AUTO, moved=1.0).agree, "such an output is not determined"
    assert not judge(found, tolerance_of("images"), moved=0.03 / ROUNDINGS).agree
    assert not judge(found, tolerance_of(0.001), moved=0.03 / ROUNDINGS).agree


# Sets of outputs


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"y": np.zeros((2, 1), np.float32)}, "shape"),
        ({"y": np.zeros(2, np.float64)}, "float64 where float32"),
        ({"z": np.zeros(2, np.float32)}, "missing"),
        ({"y": np.zeros(2, np.float32), "z": np.zeros(1)}, "not expected"),
        ({"y": None}, "none where float32"),
    ],
)
def test_other_shapes_dtypes_and_names_disagree_in_words(other, told):
    found = agreement("cpu", flat({"y": np.zeros(2, np.float32)}), flat(other))
    assert not found.agree
    assert told in found.told


def test_outputs_that_cannot_be_compared_are_named():
    found = agreement("cpu", flat({"y": np.zeros(2), "o": object()}), flat({"y": np.zeros(2), "o": object()}))
    assert found.agree
    assert "o: a object cannot be compared" in found.told
    assert not agreement("cpu", flat({"o": object()}), flat({"o": object()})).agree


def test_sequences_and_maps_are_compared_part_by_part():
    given = {"scores": [{"a": 0.25, "b": 0.75}], "boxes": [np.zeros((2, 4), np.float32), np.ones((1, 4), np.float32)]}
    assert agreement("cpu", flat(given), flat(given)).agree
    other = {"scores": [{"a": 0.25, "c": 0.75}], "boxes": given["boxes"][:1]}
    wrong = [one.told for one in agreement("cpu", flat(given), flat(other)).outputs if not one.agree]
    assert wrong == ["scores[0].keys differs in 1 of 2 elements (string)", "boxes[1] is missing"]


def test_what_was_measured_once_can_be_judged_again():
    a, b = flat({"y": np.ones(2, np.float32)}), flat({"y": np.array([1, 1.005], np.float32)})
    metrics = tuple(measured(a, b))
    assert not judged("cpu", metrics, {}).agree
    again = judged("cpu", metrics, {}, tolerance_of("images"))
    assert again == agreement("cpu", a, b, tolerance_of("images"))
    assert again.agree


def test_outputs_of_every_kind_come_back_from_the_file(tmp_path: Path):
    given = {
        "file": np.arange(3, dtype=np.float32),
        "a/../b": np.array(["x", "yy"], dtype=object),
        "half": np.array([1.5, -2], dtype=ml_dtypes.bfloat16),
        "sequence": [np.zeros(2), np.ones((1, 1))],
        "maps": [{2: 0.5, 1: 0.25}, {"b": 1.0}],
        "none": None,
        "scalar": np.float32(3),
    }
    write(flat(given), tmp_path / "outputs.npz")
    found = read(tmp_path / "outputs.npz")
    assert isinstance(found, Outputs)
    assert found.dtypes["half"] == "bfloat16"
    assert found.arrays["half"].tolist() == [1.5, -2]
    assert found.dtypes["a/../b"] == "string"
    assert found.arrays["maps[0].keys"].tolist() == [1, 2]
    assert found.arrays["maps[0].values"].tolist() == [0.25, 0.5]
    assert found.arrays["maps[1].keys"].tolist() == ["b"]
    assert found.arrays["sequence[1]"].shape == (1, 1)
    assert agreement("cpu", flat(given), found).agree
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs.json", "outputs.npz"]


def test_outputs_in_two_folders_are_judged_without_running_anything(tmp_path: Path):
    from epkit.model.array_files import save_outputs

    given = {"y": np.ones(3, np.float32), "boxes": [np.zeros(2), np.ones(1)], "scores": [{"a": 0.5}]}
    save_outputs(given, tmp_path / "a")
    save_outputs({**given, "y": np.full(3, 1.005, np.float32)}, tmp_path / "b")
    found = compare_saved(tmp_path / "a", tmp_path / "b")
    assert (found.exit_code, found.rows[1].verdict) == (1, "differ")
    assert compare_saved(tmp_path / "a", tmp_path / "b", tolerance="images").exit_code == 0
    (judgement,) = found.rows[1].runs
    assert {"y", "boxes[0]", "boxes[1]"} < {one.metrics.output for one in judgement.agreement.outputs}
    json.dumps(found.as_json(), allow_nan=False)
    (tmp_path / "empty").mkdir()
    for wrong in ("empty", "missing"):
        with says(ConfigError):
            compare_saved(tmp_path / "a", tmp_path / wrong)
    (tmp_path / "b" / "scores.json").write_text("{")
    with says(InputError):
        compare_saved(tmp_path / "a", tmp_path / "b")
