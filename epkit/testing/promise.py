"""Define a promise of a provider, and its possible results.

It is kept, broken (with what was found, and what mends it), or not proven: what cannot be tried on this machine, or is
not claimed, is never counted as kept.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from epkit.provider import Capability
from epkit.testing.tally import NOT_CLAIMED, NOT_PROVEN

if TYPE_CHECKING:
    from epkit.testing.subject import Subject

PREFIX = "test_"
SEE = "the traceback below ends in the method of the provider that failed"
FIRST = "test_it_is_found_under_its_own_name"

Body: TypeAlias = Callable[[Any], None]

Claim: TypeAlias = Capability | Literal["compiling", "graph capture"]
"""What a provider may claim: a capability, or what follows from its `caching` and its `capture`."""


class Broken(Exception):
    """What was found where a promise belongs, and what mends it."""

    def __init__(self, found: str, mend: str = "", details: str = "") -> None:
        super().__init__(found)
        self.found = found
        self.mend = mend
        self.details = details


class NotProven(Exception):
    """Why a promise could not be tried here."""


class NotClaimed(NotProven):
    """What the provider does not claim to do."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}{NOT_CLAIMED}")


class Promises:
    """A set of promises, each a method with the mark `promise`."""

    subject: ClassVar[Subject]
    """The provider that is held to them."""
    unfit: ClassVar[Broken | None] = None
    """Why the class of the test gives nothing that can be held to them: told with the first promise."""


def promise(*, of: Claim | None = None, apart: bool = False) -> Callable[[Body], Body]:
    """Mark a method as a promise: its name says it, its docstring explains it.

    `of` is what must be claimed. With `apart` the body runs in a process of its own, on a provider that
    has been proven: what crashes or hangs there is a broken promise, and no more.
    """

    def _marked(body: Body) -> Body:
        @functools.wraps(body)
        def _kept(self: Promises) -> None:
            import pytest

            unproven = broken = ""
            try:
                if self.unfit is not None:
                    raise self.unfit if body.__name__ == FIRST else NotProven(self.unfit.found)
                if of is not None:
                    self.subject.claims(of)
                if apart:
                    self.subject.keep_apart(body.__name__)
                else:
                    body(self)
            except NotProven as reason:
                unproven = f"{NOT_PROVEN}{reason}"
            except Broken as fault:
                broken = sentence(type(self).__name__ if self.unfit else self.subject.name, body, fault)
            except Exception as error:  # noqa: BLE001 - what the provider's own code raises
                raised = Broken(f"{type(error).__name__}: {error}", SEE, traceback.format_exc())
                broken = sentence(self.subject.name, body, raised)
            # Out here, where no other exception is shown with them.
            if unproven:
                pytest.skip(unproven)
            if broken:
                pytest.fail(broken, pytrace=False)

        _kept.claim = of  # type: ignore[attr-defined]
        return _kept

    return _marked


def promises(kind: type[Promises]) -> list[Any]:
    """Return the promises that a class adds, in its order."""
    return [body for name, body in vars(kind).items() if name.startswith(PREFIX)]


def said(body: Body) -> str:
    """Return a promise as its name says it: "the probe is quick"."""
    words = body.__name__.removeprefix(PREFIX).replace("_", " ")
    return words.replace("onnx runtime", "ONNX Runtime").replace(" cpu", " CPU")


def sentence(name: str, body: Body, broken: Broken) -> str:
    """Say which promise a provider breaks, what was found, and what mends it."""
    told = f'{name} breaks the promise "{said(body)}": {broken.found}'
    mend = f"\n  hint: {broken.mend}" if broken.mend else ""
    return told + mend + (f"\n\n{broken.details}" if broken.details else "")
