"""The sentence under each field is found wherever a model is written, and read only when it is asked for."""

from __future__ import annotations

import subprocess
import sys

from pydantic import Field

from epkit.discovery.docstrings import sentences
from epkit.provider import Options


class Base(Options):
    plain: int = 0
    """What stands below."""

    several: str = "below"
    """One line,
    and one more.
    """

    bare: int = 0

    told: int = Field(default=0, description="Said by the field.")
    """What stands below."""


class Derived(Base):
    bare: int = 1
    """What the base does not say."""

    "A remark, and nothing above it."


def test_a_field_has_what_stands_below_it():
    assert sentences(Base) == {
        "extra": "Options newer than epkit, passed on unchecked as name and text.",
        "plain": "What stands below.",
        "several": "One line,\nand one more.",
        "bare": "",
        "told": "Said by the field.",
    }


def test_a_derived_model_has_those_of_its_base_and_its_own():
    assert sentences(Derived) == {**sentences(Base), "bare": "What the base does not say."}


def test_a_model_inside_of_a_function_is_found_and_one_without_source_has_none():
    class Inside(Options):
        """Its text goes on
            further to the left than the class:
        here.
        """

        field: int = 0
        """What stands below."""

    assert sentences(Inside)["field"] == "What stands below."
    found: dict[str, type[Options]] = {}
    exec("from epkit.provider import Options\nclass Made(Options):\n    field: int = 0\n    'Below.'", found)
    assert sentences(found["Made"])["field"] == ""


def test_opening_a_model_reads_no_source():
    code = (
        "import inspect\n"
        "def never(*_): raise AssertionError('source was read')\n"
        "inspect.getsource = inspect.findsource = inspect.getsourcelines = inspect.getblock = never\n"
        "import epkit\nfrom epkit.model import sample\nepkit.open(sample.path(), 'cpu').close()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
