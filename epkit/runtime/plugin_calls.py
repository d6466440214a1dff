"""Call the methods of a plugin's provider, and turn what they raise into a PluginError that names the method."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from epkit.errors import EpkitError, PluginError
from epkit.provider import Availability, Provider, Unusable, Usable

Answer = TypeVar("Answer")


def call_plugin(method: Callable[..., Answer], *arguments: object) -> Answer:
    """Call a method of a provider; raises PluginError for whatever it raises that is not epkit's own."""
    try:
        return method(*arguments)
    except EpkitError:
        raise
    except (Exception, SystemExit) as error:
        name = getattr(method, "__qualname__", repr(method))
        raise PluginError(f"{name} raised {type(error).__name__}: {error}", hint="tell the plugin's author") from error


def hint_for(provider: Provider, cause: str) -> str:
    """Return the provider's hint for a cause; empty if it has none or raises."""
    try:
        return str(provider.hint(cause) or "")
    except (Exception, SystemExit):  # noqa: BLE001 - the cause is what counts
        return ""


def probe_availability(provider: Provider) -> Availability:
    """Call the provider's probe; an error in it becomes an Unusable."""
    try:
        answer = provider.probe()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code
        return Unusable(f"its probe raised {type(error).__name__}: {error}", transient=True)
    if isinstance(answer, Usable | Unusable):
        return answer
    return Unusable(f"its probe answered {answer!r} where Usable or Unusable belongs", hint="tell the plugin's author")
