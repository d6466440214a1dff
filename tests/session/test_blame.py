"""Whose fault is it that a chain does not open? Every chain of one to three providers, in every world of faults."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import cast

import pytest
from texts import says

import epkit
from epkit.config.target import Target
from epkit.errors import ModelError, ProviderDropped
from epkit.provider import Provider, Usable
from epkit.runtime import api
from epkit.runtime.configured import CPU, Candidate
from epkit.runtime.events import Dropped, Event
from epkit.session.attempt import Opening, drop
from epkit.session.cache.session_cache import Compiled
from epkit.session.capture import Capture
from epkit.session.creation import open_next
from epkit.session.fallback import CPU_FORBIDDEN
from epkit.session.plan import resolve
from epkit.session.settings import NO_CPU, effective

NODES = frozenset("abc")
"""Those of the model."""
FAULTS = ("", "add", "create", "cache", "crash")
"""None; adding it fails; creating a session with it; that, if it starts from a cache; its process ends."""


@dataclass(frozen=True)
class World:
    """What is wrong with each provider, which pairs do not bear each other, and what the target asks for."""

    faults: tuple[str, ...]
    clashes: frozenset[tuple[int, int]] = frozenset()
    twins: frozenset[int] = frozenset()
    """The providers that are one to ONNX Runtime."""
    parts: bool = False
    """Whether each provider takes one node, not all of them."""
    cpu: bool = True
    strict: bool = False
    model: bool = True
    """Whether the model can be opened at all."""

    def chain(self) -> list[Candidate]:
        twin = min(self.twins, default=0)
        ours = [Candidate(Fake(at, twin if at in self.twins else at)) for at in range(len(self.faults))]
        return [*ours, *([Candidate(Cpu())] if self.cpu else [])]

    def bears(self, chain: Sequence[int]) -> bool:
        """Whether a session of these providers can be created at all, without caches, wherever the nodes land."""
        healthy = all(self.faults[at] in ("", "cache") for at in chain)
        return self.model and healthy and not self.clashes & set(itertools.combinations(chain, 2))

    def covers(self, chain: Sequence[int]) -> bool:
        """Whether these providers take every node."""
        return not self.parts or len(set(chain)) == len(NODES)


class Fake(Provider):
    automatic = True

    def __init__(self, at: int, ort: int) -> None:
        self.at = at
        self.name = f"fake{at}"
        self.ort_name = f"Fake{ort}ExecutionProvider"


class Cpu(Provider):
    name = CPU
    ort_name = api.CPU_ORT_NAME


@dataclass(frozen=True)
class Node:
    op_type: str
    domain: str = ""


class Session:
    """A session of which nothing but the placement is asked."""

    def __init__(self, placed: Mapping[str, frozenset[str]]) -> None:
        self._placed = placed

    def get_provider_graph_assignment_info(self) -> list[object]:
        return [
            SimpleNamespace(ep_name=name, get_nodes=partial(map, Node, nodes)) for name, nodes in self._placed.items()
        ]


class Caches:
    """What `Compiled` is to opening: the providers whose cache is broken start from it until it is doubted."""

    def __init__(self, world: World) -> None:
        self.sent: dict[str, dict[str, str]] = {}
        self._world = world
        self._doubted: set[str] = set()

    def look(self, chain: Sequence[Candidate], settings: api.Settings) -> None:
        broken = [one.name for one in chain if one.name != CPU and self._world.faults[number(one)] == "cache"]
        self.sent = {name: {} for name in broken if name not in self._doubted}

    def doubt(self, cause: str) -> bool:
        fresh = self.sent.keys() - self._doubted
        self._doubted |= fresh
        return bool(fresh)

    def trust(self) -> None:
        self._doubted = set()


class Onnx:
    """What `_runtime.create` is to opening, in a world; holds every session to the one before it being gone."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._opened: list[weakref.ref[Session]] = []

    @property
    def alive(self) -> int:
        return sum(one() is not None for one in self._opened)

    def before(self, chain: Sequence[Candidate], captures: bool) -> None:
        if any(self.world.faults[at] == "crash" for at in numbers(chain)):
            raise api.OpenFault("its process crashed")

    def create(
        self,
        model: str,
        chain: Sequence[Candidate],
        settings: api.Settings,
        sent: Mapping[str, Mapping[str, str]] = {},
    ) -> Session:
        assert self.alive == 0, "two sessions at once"
        assert len({one.provider.ort_name for one in chain}) == len(chain)
        world = self.world
        for one in chain:
            if one.name != CPU and world.faults[number(one)] == "add":
                raise api.OpenFault(f"{one.name} cannot be added", one)
        if sent:
            raise api.OpenFault("what was kept is broken")
        if not world.bears(numbers(chain)):
            raise api.OpenFault("the session cannot be created")
        if settings.entries.get(NO_CPU) and not world.covers(numbers(chain)):
            raise api.OpenFault(CPU_FORBIDDEN)
        left, placed = NODES, {}
        for one in chain:
            if one.name != CPU:
                taken = left & ({"abc"[number(one)]} if world.parts else NODES)
                placed[one.provider.ort_name] = taken
                left -= taken
        placed[api.CPU_ORT_NAME] = left
        session = Session({name: nodes for name, nodes in placed.items() if nodes})
        self._opened.append(weakref.ref(session))
        return session


def number(candidate: Candidate) -> int:
    return cast("Fake", candidate.provider).at


def numbers(chain: Sequence[Candidate]) -> list[int]:
    return [number(one) for one in chain if one.name != CPU]


def under_way(world: World) -> Opening:
    target = Target("t", "", tuple(world.chain()), cpu=world.cpu, strict=world.strict)
    plan = resolve(target, {one.name: Usable() for one in target.chain})
    settings = effective(plan, None).settings
    return Opening(plan, "model.onnx", settings, list(plan.chain), cast("Compiled", Caches(world)))


def worlds(count: int, **keys: bool) -> Iterator[World]:
    pairs = list(itertools.combinations(range(count), 2))
    some = [frozenset(one) for size in range(len(pairs) + 1) for one in itertools.combinations(pairs, size)]
    groups = [frozenset(one) for size in (0, 2, 3) for one in itertools.combinations(range(count), size)]
    faults = FAULTS if count < 3 else FAULTS[:4]
    for fault, clashes, twins in itertools.product(itertools.product(faults, repeat=count), some, groups):
        # Those that are one to ONNX Runtime are never in one session.
        if not clashes & set(itertools.combinations(sorted(twins), 2)):
            yield World(fault, clashes, twins, **keys)


def check(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opening, onnx, heard = under_way(world), Onnx(world), list[Event]()
    opening.before = onnx.before
    monkeypatch.setattr(api, "create", onnx.create)
    first = opening.plan.chain[0]
    first_alone = world.bears([number(first)])
    everyone = range(len(world.faults))
    try:
        with epkit.observe(heard.append):
            open_next(opening)
    except ModelError:
        # The model's fault exactly when the CPU alone fails, or, where that is forbidden, every provider alone.
        assert not world.model or (not world.cpu and not any(world.bears([at]) for at in everyone))
        return
    except ProviderDropped as error:
        told = error.message
        if "says cpu = false" in told:
            assert not world.cpu
            assert maximal(world, opening)
            assert not world.covers(numbers(opening.remaining))
        elif world.strict:
            assert told.startswith(f"{first.name} did not open")
            assert not first_alone
        else:
            assert not world.cpu
            assert all(world.faults[at] == "add" for at in everyone)
        return
    assert world.model
    assert world.bears(numbers(opening.remaining))
    assert world.cpu or world.covers(numbers(opening.remaining))
    assert maximal(world, opening)
    assert opening.session is not None
    if world.strict:
        assert first in opening.remaining
    assert [one.provider for one in heard if isinstance(one, Dropped)] == list(opening.dropped)


def maximal(world: World, opening: Opening) -> bool:
    """Whether nobody who was dropped could be there too, nor anybody stands aside for nobody."""
    there = {one.provider.ort_name for one in opening.remaining}
    kept = numbers(opening.remaining)
    for step in opening.plan.steps:
        one = step.candidate
        if one in opening.remaining:
            assert one.name not in opening.dropped
        elif one.name in opening.dropped:
            # A twin that was given up took no harm from the one that has its place, if that comes after it.
            if one.provider.ort_name not in there and world.bears(sorted((*kept, number(one)))):
                return False
        elif step.decision != "same runtime provider" or one.provider.ort_name not in there:
            return False
    return True


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("cpu", [False, True])
@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_who_is_at_fault_is_dropped_and_nobody_else(count, parts, cpu, strict, monkeypatch):
    for world in worlds(count, parts=parts, cpu=cpu, strict=strict):
        check(world, monkeypatch)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("cpu", [False, True])
def test_a_model_that_cannot_be_opened_is_never_a_providers_fault(cpu, strict, monkeypatch):
    for world in worlds(2, cpu=cpu, strict=strict, model=False):
        check(world, monkeypatch)


def test_a_placement_that_did_not_come_about_leaves_no_session_behind(monkeypatch):
    world = World(("", ""), parts=True)
    opening, onnx = under_way(world), Onnx(world)
    opening.plan = replace(opening.plan, target=replace(opening.plan.target, min_placement=0.5))
    monkeypatch.setattr(api, "create", onnx.create)
    with says(ProviderDropped) as error:
        open_next(opening)
    assert onnx.alive == 0, f"{error} holds it"


def test_a_session_that_cannot_capture_is_not_left_behind(monkeypatch):
    world = World(("",), strict=True)
    opening, onnx = under_way(world), Onnx(world)
    opening.capture, opening.capturing = Capture(asked=True, provider="fake0"), opening.settings
    monkeypatch.setattr(api, "create", onnx.create)
    monkeypatch.setattr(api, "read_on_cpu", lambda session: ["x"])
    with says(ProviderDropped) as error:
        open_next(opening)
    assert onnx.alive == 0, f"{error} holds it"


def test_a_chain_of_which_nothing_is_left_captures_nothing():
    opening = under_way(World(("",), cpu=False))
    opening.capture = Capture(asked=True, provider="fake0")
    drop(opening, opening.remaining[0], "it computes nonsense", "failed to warm up")
    with says(ProviderDropped):
        open_next(opening)
