"""Open a session as the target asks: with what is left of the chain, capturing graphs, and with the nodes in place."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from epkit.errors import ProviderDropped
from epkit.runtime import create
from epkit.runtime.create import OpenFault
from epkit.runtime.placement import describe_others
from epkit.session.attempt import Opening, create_cached, is_cpu, placement_of, tell_dropped
from epkit.session.capture import capturing
from epkit.session.fallback import open_chain


def open_next(opening: Opening) -> None:
    """Open a session with what is left of the chain, dropping what fails on the way.

    Raises ModelError when no provider can be blamed, ProviderDropped when the target requires what failed, or a
    placement that did not come about.
    """
    started, isolated, told = time.perf_counter(), opening.isolated, len(opening.dropped)
    try:
        opening.session = _capturing(opening) or open_chain(opening)
    finally:
        # Not sooner: who was dropped may have been taken back.
        for row in list(opening.dropped.values())[told:]:
            tell_dropped(opening, row)
    opening.seconds += time.perf_counter() - started - (opening.isolated - isolated)
    # In ORT format, what a provider compiled is all that may be recorded: a part would pass for the whole.
    opening.placed = {} if opening.unknown else placement_of(opening, opening.session)
    try:
        _hold_placement(opening)
    except ProviderDropped:
        opening.session = None  # its memory, which the error would hold on to
        raise


def _capturing(opening: Opening) -> Any | None:
    """Open a session that captures graphs, if one was asked for; None where that cannot be, which is then known."""
    capture = opening.capture
    opening.captures = False
    if capture is None or not capture.asked or not opening.remaining:
        return None
    if opening.remaining[0].name != capture.provider:
        opening.capture = capture = replace(capture, obstacles=(f"{capture.provider} was dropped",))
    if capture.possible and opening.capturing is not None:
        first, *rest = opening.remaining
        chain = [capturing(first), *rest]
        try:
            session = create_cached(opening, chain, opening.capturing, captures=True)
        except OpenFault as fault:
            if opening.compiled.doubt(fault.cause):
                return _capturing(opening)
            opening.compiled.trust()
            opening.capture = capture = replace(capture, obstacles=(fault.cause,))
        else:
            frozen = create.list_cpu_inputs(session)
            if not frozen:
                opening.captures = True
                return session
            del session  # its memory, before the next one wants some
            told = f"input {frozen[0]!r} is read on the CPU, so that a replay would not see it change"
            opening.capture = capture = replace(capture, obstacles=(told,))
    if opening.required:
        told = f"target {opening.plan.target.name!r} asks for captured graphs, but {capture.summary()}"
        raise ProviderDropped(told, hint="leave cuda_graph out of the target")
    return None


def _hold_placement(opening: Opening) -> None:
    """Hold the target to what it asked of its first provider; a model without nodes asks nothing."""
    target, placed = opening.plan.target, opening.placed
    first = target.first.name
    asked = opening.required or not target.cpu
    if opening.unknown and asked and not all(is_cpu(one) for one in opening.remaining):
        told = f"target {target.name!r} asks that nodes run on {first}, but {opening.unknown}"
        raise ProviderDropped(told, hint="open the ONNX file that it was made from, or ask for nothing")
    if not placed or not opening.required:
        return
    if first not in placed:
        raise ProviderDropped(
            f"{first} was registered but took no node of the model: {describe_others(placed, first)}",
            hint=f"a target with a fallback uses {first} where it can",
        )
    share = placed[first].share
    if target.min_placement is not None and share < target.min_placement:
        raise ProviderDropped(
            f"{first} took {share:.4g} of the nodes where target {target.name!r} asks for {target.min_placement:g}; "
            f"elsewhere: {describe_others(placed, first)}",
            hint="lower min_placement, or take those operators out of the model",
        )
