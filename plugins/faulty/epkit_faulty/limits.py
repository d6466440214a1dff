"""Which limits do real accelerators have that ONNX Runtime's CPU has not? A class for each, as for each fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from epkit.provider import Limits, Options
from epkit_faulty.disguise import cpu_forbidden, refuse
from epkit_faulty.faults import Fault
from epkit_faulty.sessions import Changed, Fused, narrowed


class Narrow(Fault):
    """Wide numbers are computed in 32 bits: larger ones are refused as inputs, and wrong in between."""

    kind = "narrow"
    limits = Limits(narrowed_types={"int64": "int32", "uint64": "int32", "float64": "float32"})

    def around(self, session: Any, options: Options) -> Any:  # noqa: ARG002
        """Let no number keep more than 32 bits."""
        return Changed(session, narrowed)


class NoText(Fault):
    """It cannot carry text: a model that has any is not opened on it."""

    kind = "no-text"
    limits = Limits(unsupported_types=("string",))


class RefusesOptions(Options):
    """Which operators."""

    operators: tuple[str, ...] = ("com.microsoft.Inverse", "Det")
    """The operators that it leaves to the next provider, as a report names them (`com.microsoft.Inverse`, `Det`)."""


class Refuses(Fault):
    """Some operators are left to the next provider of the chain, so that a model is split between the two."""

    kind = "refuses"
    options = RefusesOptions

    def around(self, session: Any, options: Options) -> Any:
        """Say that the nodes of these operators are another provider's."""
        assert isinstance(options, RefusesOptions)
        if refuse(session, self.ort_name, options.operators) and cpu_forbidden(session.get_session_options()):
            raise RuntimeError("nodes are left over, but fallback to CPU EP has been explicitly disabled by the user.")
        return session


class OneNode(Fault):
    """The whole model is one node, so that a run which takes too long cannot be stopped."""

    kind = "one-node"

    def around(self, session: Any, options: Options) -> Any:  # noqa: ARG002
        """Let no run be stopped."""
        return Fused(session)


LIMITS: Sequence[type[Fault]] = (Narrow, NoText, Refuses, OneNode)
