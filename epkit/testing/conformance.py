"""Define what every provider promises.

from epkit.testing import ProviderConformance

class TestAcme(ProviderConformance):
provider = Acme
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from epkit.provider import Provider
from epkit.testing.compile_cache import Compiling
from epkit.testing.discovery import Found
from epkit.testing.options import Optioned
from epkit.testing.promise import Broken
from epkit.testing.sessions import Sessions
from epkit.testing.subject import subject


class ProviderConformance(Found, Optioned, Sessions, Compiling):
    """Holds one provider to every promise. Subclass it, and name the provider."""

    provider: ClassVar[Provider | type[Provider]]
    """The provider: its class, or an object."""
    target: ClassVar[Mapping[str, object]] = {}
    """Keys of the target that it is tried with, beside `provider`: `{"device": "GPU"}`."""
    tolerances: ClassVar[Mapping[str, float]] = {}
    """By dtype, how far an output may be off, as a share of its largest magnitude; else as `epkit compare` has it."""

    @classmethod
    def label(cls) -> str:
        """Return the provider's name, and the device where the target names one."""
        name = getattr(getattr(cls, "provider", None), "name", None)
        shown = name if isinstance(name, str) else cls.__name__
        device = cls.target.get("device") if isinstance(cls.target, Mapping) else None
        return shown if device is None else f"{shown} ({device})"

    @classmethod
    def setup_class(cls) -> None:
        """Say whose promises these are."""
        cls.unfit = None
        try:
            cls.subject = subject(getattr(cls, "provider", None), cls.target, cls.tolerances)
        except Broken as fault:
            cls.unfit = fault

    @classmethod
    def teardown_class(cls) -> None:
        """End the process in which promises were kept."""
        if cls.unfit is None:
            cls.subject.close()
