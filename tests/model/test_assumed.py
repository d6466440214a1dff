"""Models with dynamic dimensions run unasked, and what was assumed for them is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import mlp, model, value
from onnx import TensorProto, helper, numpy_helper

import epkit
from epkit.errors import ConfigError, RunError
from epkit.model.assumed_sizes import ImageHints, assume_sizes, describe_assumed, read_image_hints
from epkit.model.file import TensorInfo, read_model
from epkit.runtime.size_search import KnownInputs, first_run

node = helper.make_node
INT64 = TensorProto.INT64


def weights(*shape: int, name: str) -> onnx.TensorProto:
    found = np.random.default_rng(0).random(shape, dtype=np.float32)
    return numpy_helper.from_array(found / np.float32(found.size), name)


def numbers(name: str, *found: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(found, np.int64), name)


def detector(height: int | str | None = "h", width: int | str | None = "w", **metadata: str) -> bytes:
    """Build a network that halves an image five times, enlarges what is left, and joins it with what it was before."""
    nodes, stored, last = [], [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice")], "images"
    for depth in range(5):
        stored.append(weights(4, 3 if depth == 0 else 4, 3, 3, name=f"k{depth}"))
        nodes.append(node("Conv", [last, f"k{depth}"], [f"c{depth}"], pads=[1, 1, 1, 1], strides=[2, 2]))
        last = f"c{depth}"
    nodes.append(node("Resize", ["c4", "", "twice"], ["larger"], mode="nearest"))
    nodes.append(node("Concat", ["larger", "c3"], ["y"], axis=1))
    found = onnx.load_from_string(
        model(nodes, [value("images", ["batch", 3, height, width])], [value("y", ["batch", 8, None, None])], stored)
    )
    helper.set_model_props(found, metadata)
    return found.SerializeToString()


def speech() -> bytes:
    """Build a network on sound that pads by reflection, looks at frames of 96, keeps a state, and takes its rate."""
    pads = numbers("pads", 0, 32, 0, 32)
    frames = weights(8, 1, 96, name="frames")
    add = [node("Add", ["state", "mean"], ["a"])]
    take = [node("Sub", ["state", "mean"], ["b"])]
    branches = {
        "then_branch": helper.make_graph(add, "then", [], [value("a", None)]),
        "else_branch": helper.make_graph(take, "else", [], [value("b", None)]),
    }
    nodes = [
        node("Pad", ["input", "pads"], ["padded"], mode="reflect"),
        node("Unsqueeze", ["padded", "one"], ["channel"]),
        node("Conv", ["channel", "frames"], ["spectrum"], strides=[64]),
        node("ReduceMean", ["spectrum"], ["mean"], axes=[1, 2], keepdims=0),
        node("Equal", ["sr", "rate"], ["fast"]),
        node("If", ["fast"], ["stateN"], **branches),
    ]
    return model(
        nodes,
        [value("input", [None, None]), value("state", [2, None, 1]), value("sr", [], INT64)],
        [value("stateN", None)],
        [pads, frames, numbers("one", 1), numpy_helper.from_array(np.array(16000), "rate")],
    )


def decoder() -> bytes:
    """Build attention over what was before and what is now: the mask is as long as both."""
    nodes = [
        node("Concat", ["past", "now"], ["keys"], axis=1),
        node("ReduceMean", ["keys"], ["scores"], axes=[2], keepdims=0),
        node("Mul", ["scores", "mask"], ["y"]),
    ]
    return model(
        nodes,
        [
            value("now", ["batch", "sequence", 8]),
            value("past", ["batch", "past_sequence", 8]),
            value("mask", ["batch", "past_sequence + sequence"]),
        ],
        [value("y", None)],
    )


def patches(tokens: int = 196) -> bytes:
    """Build a vision transformer's first step: patches of 16 by 16, and a learnt place for each of `tokens`."""
    nodes = [
        node("Conv", ["x", "k"], ["c"], strides=[16, 16]),
        node("Reshape", ["c", "flat"], ["t"]),
        node("Add", ["t", "places"], ["y"]),
    ]
    stored = [weights(4, 3, 16, 16, name="k"), weights(1, 4, tokens, name="places"), numbers("flat", 0, 4, -1)]
    return model(nodes, [value("x", ["n", "channels", "height", "width"])], [value("y", None)], stored)


def encoder(longest: int = 1500) -> bytes:
    """Build a speech encoder: half as many steps as frames, and exactly `longest` of them."""
    nodes = [node("Conv", ["mel", "k"], ["c"], strides=[2], pads=[1, 0]), node("Add", ["c", "places"], ["y"])]
    stored = [weights(4, 80, 2, name="k"), weights(1, 4, longest, name="places")]
    return model(nodes, [value("mel", ["batch", "feature_size", "frames"])], [value("y", None)], stored)


def sizes_of(contents: bytes, known: ImageHints | None = None) -> dict[str, int]:
    """Run a model unasked, and return the sizes with which it ran."""
    with epkit.open(contents, "cpu") as session:
        found = read_image_hints(read_model(contents)) if known is None else known
        return first_run(session.run, session.inputs, KnownInputs(), found).made.assumed


@pytest.mark.parametrize(
    ("contents", "wanted"),
    [
        (detector(), {"batch": 1, "h": 64, "w": 64}),
        (detector(None, None), {"batch": 1, "images[2]": 64, "images[3]": 64}),
        (detector("?", "?"), {"batch": 1, "?": 64}),
        (detector(imgsz="[96, 160]", stride="32"), {"batch": 1, "h": 96, "w": 160}),
        (detector(imgsz="640"), {"batch": 1, "h": 640, "w": 640}),
        (detector(imgsz="what?", stride="-"), {"batch": 1, "h": 64, "w": 64}),
        (mlp(), {"batch": 1}),
        (decoder(), {"batch": 1, "sequence": 1, "past_sequence": 1, "past_sequence + sequence": 2}),
        (patches(), {"n": 1, "channels": 3, "height": 224, "width": 224}),
        (encoder(), {"batch": 1, "feature_size": 80, "frames": 3000}),
    ],
    ids=["detector", "unnamed", "one name", "metadata", "one side", "odd", "mlp", "decoder", "patches", "encoder"],
)
def test_the_commonest_models_run_unasked_with_sizes_that_suit_them(contents, wanted):
    assert sizes_of(contents) == wanted


def test_a_network_on_sound_with_a_state_runs_unasked_and_its_state_has_the_batch_of_its_sound():
    found = sizes_of(speech())
    assert found["input[1]"] > 32
    assert found["input[0]"] == found["state[1]"] == 1


def test_a_stride_of_the_graph_is_the_least_side():
    assert read_image_hints(read_model(detector())) == ImageHints(None, 32)
    assert assume_sizes([TensorInfo("x", "float32", (1, 3, "h", "w"))], {}, ImageHints(None, 96)) == {"h": 96, "w": 96}


def test_no_more_is_assumed_than_nobody_says():
    inputs = [TensorInfo("x", "float32", ("b", 3, "s", "w")), TensorInfo("mask", "float32", ("b", "s"))]
    assert assume_sizes(inputs, {"b": 2, "w": 7}) == {"s": 1}  # a side in one input, and something else in the other


def test_a_size_that_follows_from_given_ones_is_no_guess_of_its_own():
    inputs = [TensorInfo("a", "float32", ("s",)), TensorInfo("b", "float32", ("2*s + 1",))]
    assert assume_sizes(inputs, {"s": 5}) == {"2*s + 1": 11}
    assert assume_sizes([TensorInfo("a", "float32", ("s / 2 + x",))], {}) == {"s / 2 + x": 1}


def test_given_arrays_settle_the_sizes_of_those_that_are_made_up():
    with epkit.open(decoder(), "cpu") as session:
        given = KnownInputs({"past": np.ones((2, 5, 8), np.float32)}, dimensions={"sequence": 3})
        ran = first_run(session.run, session.inputs, given)
    assert ran.made.feed["mask"].shape == (2, 8)
    assert ran.made.made_up == ("now", "mask")


def test_the_sentence_says_every_size_and_how_to_set_them():
    inputs = [TensorInfo("x", "float32", ("h", "w"))]
    wanted = "assumed h = 64, w = 64; set them with --dim h=... or --input x=FILE.npy"
    assert describe_assumed({"h": 64, "w": 64}, inputs) == wanted
    assert describe_assumed({}, inputs) == ""


def never() -> bytes:
    """Build a model that no size suits: four in a row never make 21."""
    nodes = [node("Reshape", ["x", "wanted"], ["y"])]
    return model(nodes, [value("x", ["h", 4])], [value("y", None)], [numbers("wanted", 7, 3)])


def test_where_no_size_suits_the_first_failure_is_told_with_what_was_assumed():
    with epkit.open(never(), "cpu") as session, pytest.raises(RunError) as error:
        first_run(session.run, session.inputs, KnownInputs())
    assert "h = 1" in error.value.hint
    assert "--dim" in error.value.hint


def saved(tmp_path: Path, contents: bytes) -> Path:
    file = tmp_path / "model.onnx"
    file.write_bytes(contents)
    return file


def test_run_says_what_it_assumed_and_takes_other_sizes(command, tmp_path):
    file = saved(tmp_path, detector())
    code, out, _ = command("run", file, "-t", "cpu")
    assert code == 0
    assert "assumed batch = 1, h = 64, w = 64; set them with --dim batch=... or --input images=FILE.npy" in out
    code, out, _ = command("run", file, "-t", "cpu", "--dim", "h=96", "--dim", "w=32", "--json")
    answer = json.loads(out)
    assert (code, answer["assumed"], answer["made_up"]) == (0, {"batch": 1}, ["images"])
    assert answer["outputs"]["y"]["shape"] == [1, 8, 6, 2]


def test_a_failure_of_assumed_sizes_names_them_on_the_command_line(command, tmp_path):
    code, out, err = command("run", saved(tmp_path, never()), "-t", "cpu")
    assert (code, out) == (4, "")
    assert "assumed h = 1; set it with --dim h=... or --input x=FILE.npy" in err


def test_runs_that_are_only_tried_print_nothing(command, tmp_path):
    code, _, err = command("run", saved(tmp_path, speech()), "-t", "cpu")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("verb", ["run", "compare", "inspect"])
@pytest.mark.parametrize("wrong", ["hh=3", "h=0", "h=1,2", "h"])
def test_a_size_that_makes_no_sense_is_refused(command, tmp_path, verb, wrong):
    named = {"run": ["-t", "cpu"], "compare": ["-t", "cpu", "-t", "cpu"], "inspect": []}[verb]
    code, out, err = command(verb, saved(tmp_path, detector()), *named, "--dim", wrong)
    assert (code, out) == (2, "")
    assert err


def test_compare_gives_all_the_sizes_with_which_the_first_has_run():
    found = epkit.compare(speech(), ["cpu", "cpu"], seeds=1)
    assert found.agree
    assert any("input[1] = " in note for note in found.notes)


def test_compare_takes_sizes():
    found = epkit.compare(detector(), ["cpu", "cpu"], dimensions={"h": 32, "w": 96}, seeds=1)
    assert found.agree
    assert found.inputs[0]["shape"] == [1, 3, 32, 96]
    with pytest.raises(ConfigError):
        epkit.compare(detector(), ["cpu", "cpu"], dimensions={"nix": 3})


@pytest.mark.slow
def test_bench_measures_with_sizes_that_suit_the_model():
    found = epkit.bench(patches(), ["cpu"], budget=40)
    assert [row.status for row in found.candidates] == ["ok"]
    assert found.measured.cases[0].inputs[0]["shape"] == [1, 3, 224, 224]
    assert any("height = 224, width = 224" in note for note in found.measured.notes)


def test_inspect_measures_with_sizes_that_suit_the_model_and_estimates_with_those_it_is_told():
    found = epkit.inspect(patches(), [2], "cpu")
    measured = found.batches[0].measured
    assert measured.fault == ""
    assert measured.assumed == {"channels": 3, "height": 224, "width": 224}
    small, large = (epkit.inspect(patches(), dimensions={"height": side}).memory for side in (1, 64))
    assert large.inputs == 64 * small.inputs
    assert "height as 64" in large.covers


def test_warm_up_runs_where_the_first_sizes_do_not_suit_the_model():
    with epkit.open(patches(), "cpu") as session:
        assert [row.shapes for row in session.report.warmup] == [{"x": (1, 3, 224, 224)}]
        assert any("height = 224" in note for note in session.report.notes)
