"""What a caller gives is looked at where it comes in: a wrong kind of value is an error of epkit's that says so."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from models import mlp

import epkit
from epkit.errors import ConfigError, EpkitError, InputError, UnknownTarget

X = np.ones((2, 16), np.float32)
NO_NAMES = [
    object(),
    1,
    1.5,
    True,
    b"y",
    [1],
    [None],
    [X],
    [X, "y"],
    {"z": X},
    {1: X},
    X,
    [],
    set(),
    lambda: 0,
    [["y"]],
]
NO_TEXTS = [object(), 1, 1.5, b"cpu", X, ["cpu"], {}, lambda: 0]
NO_NUMBERS = [object(), "5", b"5", None, [5], X, {}, lambda: 0, float("nan"), -1, 0]
LONG = "n" * 5000


def shown(value: object) -> str:
    """Name a value in the name of a case: the same in each process."""
    return re.sub(r" at 0x\w+", "", repr(value))[:24]


@pytest.fixture(scope="module")
def session():
    with epkit.open(mlp(), "cpu", config={}) as session:
        yield session


@pytest.mark.parametrize("given", NO_NAMES, ids=shown)
def test_outputs_that_are_no_names_are_an_input_error(given, session):
    for call in (session.run, session.bind):
        with pytest.raises(InputError) as error:
            call(X, given)
        assert error.value.hint


@pytest.mark.parametrize("given", [("y",), {"y"}, np.array(["y"]), iter(["y"]), "y", {"y": None}], ids=shown)
def test_names_may_come_in_any_collection(given, session):
    assert list(session.run(X, given)) == ["y"]


@pytest.mark.parametrize("given", NO_TEXTS, ids=shown)
def test_a_device_that_is_no_name_is_an_input_error(given, session):
    with pytest.raises(InputError) as error:
        session.bind(X, device=given)
    assert error.value.hint


@pytest.mark.parametrize("given", [*NO_TEXTS[:-2], "x\0y"], ids=shown)
def test_a_config_that_is_neither_a_path_nor_a_mapping_is_a_config_error(given):
    with pytest.raises(ConfigError) as error:
        epkit.open(mlp(), "cpu", config=given)
    assert error.value.hint


@pytest.mark.parametrize(
    "given", [object(), 1, None, True, X, "cpu", ["cpu"], ["cpu", None], ["cpu", X], iter(())], ids=shown
)
def test_targets_that_are_no_names_are_a_config_error(given):
    with pytest.raises(ConfigError) as error:
        epkit.compare(mlp(), given, config={})
    assert error.value.hint


NUMBERS = {
    "seeds": lambda given: epkit.compare(mlp(), ["cpu", "cpux"], config={}, seeds=given),
    "callers": lambda given: epkit.bench(mlp(), ["cpux"], config={}, callers=given),
    "budget": lambda given: epkit.bench(mlp(), ["cpux"], config={}, budget=given),
    "batches": lambda given: epkit.inspect(mlp(), [given]),
    "timeout": lambda given: epkit.open(mlp(), "cpu", config={}).run(X, timeout=given),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_is_none_or_makes_no_sense_is_a_config_error(name):
    for given in NO_NUMBERS:
        if name != "timeout" or given is not None:
            with pytest.raises(ConfigError) as error:
                NUMBERS[name](given)
            assert not isinstance(error.value, UnknownTarget), given


REST = {
    "tolerance": lambda given: epkit.compare(mlp(), ["cpu", "cpux"], config={}, tolerance=given),
    "inputs of compare": lambda given: epkit.compare(mlp(), ["cpu", "cpu"], config={}, inputs=given),
    "batches": lambda given: epkit.inspect(mlp(), given),
    "batches of bench": lambda given: epkit.bench(mlp(), ["cpu"], config={}, batches=given),
    "dimensions of bench": lambda given: epkit.bench(mlp(), ["cpu"], config={}, dimensions=given),
}


@pytest.mark.parametrize("given", [object(), 1.5j, X, [X], {1: 2}, [[1]], 10**400, LONG], ids=shown)
@pytest.mark.parametrize("name", REST)
def test_other_arguments_of_a_wrong_kind_are_errors_of_epkit(name, given):
    with pytest.raises(EpkitError):
        REST[name](given)


LONG_NAMES = {
    "input": lambda session: session.run({LONG: X}),
    "output": lambda session: session.run(X, LONG),
    "device": lambda session: session.bind(X, device=LONG),
    "timeout": lambda session: session.run(X, timeout=LONG),
    "target": lambda _: epkit.open(mlp(), LONG, config={}),
    "option": lambda _: epkit.open(mlp(), "cpu", config={}, session_options={LONG: 1}),
    "value": lambda _: epkit.open(mlp(), "cpu", config={}, session_options={"intra_op_num_threads": LONG}),
    "many words": lambda session: session.run({"a b " * 1250: X}),
}


@pytest.mark.parametrize("name", LONG_NAMES)
def test_a_name_of_thousands_of_characters_is_not_quoted_whole(name, session):
    with pytest.raises(EpkitError) as error:
        LONG_NAMES[name](session)
    assert len(str(error.value)) < 2500
    assert error.value.message


def test_a_long_path_is_quoted_whole():
    path = "/nowhere" + "/folder-of-a-model" * 30 + ".onnx"
    with pytest.raises(EpkitError) as error:
        epkit.open(path, "cpu", config={})
    assert path.rpartition("/")[0] in error.value.message


@pytest.mark.parametrize("key", ["intra_op_num_threads", "inter_op_num_threads"])
def test_far_more_threads_than_cores_are_refused(key):
    many = 5000 * (os.cpu_count() or 1)
    with pytest.raises(ConfigError, match=key):
        epkit.open(mlp(), "cpu", config={}, session_options={key: many, "execution_mode": "ORT_PARALLEL"})


def test_twice_as_many_threads_as_cores_are_taken():
    threads = {"intra_op_num_threads": 2 * (os.cpu_count() or 1)}
    with epkit.open(mlp(), "cpu", config={}, session_options=threads) as one:
        assert one.run(X)
