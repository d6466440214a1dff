"""What does every provider promise?

from epkit.testing import ProviderConformance

class TestAcme(ProviderConformance):
    provider = Acme
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from epkit.provider import Provider
from epkit.testing.compiling import Compiling
from epkit.testing.found import Found
from epkit.testing.options import Optioned
from epkit.testing.sessions import Sessions
from epkit.testing.subject import Subject


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
        name = str(getattr(cls.provider, "name", cls.__name__))
        return f"{name} ({cls.target['device']})" if "device" in cls.target else name

    @classmethod
    def setup_class(cls) -> None:
        """Say whose promises these are."""
        cls.subject = Subject(cls.provider, cls.target, cls.tolerances)

    @classmethod
    def teardown_class(cls) -> None:
        """End the process in which promises were kept."""
        cls.subject.close()
