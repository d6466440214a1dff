from __future__ import annotations

import subprocess
import sys

import pytest
from models import mlp

import epkit
from epkit import errors


def test_every_public_name_is_there_and_listed():
    # Which these are is recorded in surface.txt.
    assert epkit.__all__ == sorted(epkit.__all__)
    assert dir(epkit) == epkit.__all__
    assert all(getattr(epkit, name) for name in epkit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'opn'"):
        getattr(epkit, "opn")  # noqa: B009 - the missing name is the point


def test_a_public_function_is_not_hidden_by_a_module_of_its_name():
    alone = ("__main__", "worker", "_probe")
    code = (
        "import pkgutil, importlib, epkit\n"
        "for found in pkgutil.walk_packages(epkit.__path__, 'epkit.'):\n"
        f"    if not found.name.endswith({alone}): importlib.import_module(found.name)\n"
        "names = set(epkit.__all__) - {'__version__', 'errors'}\n"
        "print([name for name in names if not callable(getattr(epkit, name))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_error_has_the_exit_code_of_the_tree_in_the_docstring():
    drawn = errors.__doc__ or ""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EpkitError)]
    for kind in kinds:
        assert kind is errors.EpkitError or kind.__name__ in drawn
        assert kind.exit_code in (1, 2, 3, 4)
    assert issubclass(errors.ConfigError, ValueError)


def test_a_hint_is_printed_with_the_error():
    with pytest.raises(errors.UnknownTarget) as error:
        epkit.open(mlp(), "cppu")
    assert str(error.value).splitlines()[1].startswith("  hint: did you mean 'cpu'?")


def test_a_session_says_what_it_is():
    with epkit.open(mlp(), "cpu") as session:
        assert "cpu takes 100 % of 3 nodes" in repr(session)
        assert [(one.name, one.dtype, one.shape) for one in session.inputs] == [("x", "float32", ("batch", 16))]
        assert [one.name for one in session.outputs] == ["y"]
