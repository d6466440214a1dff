"""Whose fault is it that a chain does not open? Every chain of one to three providers, in every world of faults."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from epkit.runtime import api, create
from epkit.runtime.configured import CPU, ConfiguredProvider
from epkit.runtime.events import Dropped, Event
from epkit.session.cache.session_cache import Compiled
from epkit.session.capture import Capture
from epkit.session.fallback import CPU_FORBIDDEN, Failure, OpenedChain, Ready, Remaining, open_chain
from epkit.session.opener import Crashes, Created, Opener
from epkit.session.plan import Plan, resolve
from epkit.session.settings import NO_CPU, build_settings

NODES = frozenset("abc")
"""Those of the model."""
FAULTS = ("", "add", "create", "cache", "crash")
"""None; adding it fails; creating a session with it; that, if it starts from a cache; its process ends.

Beside these, "nonsense" is what it computes.
"""


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

    def chain(self) -> list[ConfiguredProvider]:
        twin = min(self.twins, default=0)
        ours = [ConfiguredProvider(Fake(at, twin if at in self.twins else at)) for at in range(len(self.faults))]
        return [*ours, *([ConfiguredProvider(Cpu())] if self.cpu else [])]

    def bears(self, chain: Sequence[int]) -> bool:
        """Whether a session of these providers can be created at all, without caches, wherever the nodes land."""
        healthy = all(self.faults[at] in ("", "cache", "nonsense") for at in chain)
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

    def look(self, chain: Sequence[ConfiguredProvider], settings: create.Settings) -> None:
        broken = [one.name for one in chain if one.name != CPU and self._world.faults[number(one)] == "cache"]
        self.sent = {name: {} for name in broken if name not in self._doubted}

    def doubt(self, cause: str) -> bool:
        fresh = self.sent.keys() - self._doubted
        self._doubted |= fresh
        return bool(fresh)

    def trust(self) -> None:
        self._doubted = set()

    def keep(self, active: Sequence[str]) -> None:
        pass

    @property
    def rows(self) -> tuple[()]:
        return ()


class Onnx:
    """What `_runtime.create` is to opening, in a world; holds every session to the one before it being gone."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._opened: list[weakref.ref[Session]] = []

    @property
    def alive(self) -> int:
        return sum(one() is not None for one in self._opened)

    def create(
        self,
        model: str,
        chain: Sequence[ConfiguredProvider],
        settings: create.Settings,
        sent: Mapping[str, Mapping[str, str]] = {},
    ) -> Session:
        assert self.alive == 0, "two sessions at once"
        assert len({one.provider.ort_name for one in chain}) == len(chain)
        world = self.world
        for one in chain:
            if one.name != CPU and world.faults[number(one)] == "add":
                raise create.OpenFault(f"{one.name} cannot be added", one)
        if sent:
            raise create.OpenFault("what was kept is broken")
        if not world.bears(numbers(chain)):
            raise create.OpenFault("the session cannot be created")
        if settings.entries.get(NO_CPU) and not world.covers(numbers(chain)):
            raise create.OpenFault(CPU_FORBIDDEN)
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


def number(candidate: ConfiguredProvider) -> int:
    return cast("Fake", candidate.provider).at


def numbers(chain: Sequence[ConfiguredProvider]) -> list[int]:
    return [number(one) for one in chain if one.name != CPU]


def planned(world: World) -> Plan:
    target = Target("t", "", tuple(world.chain()), cpu=world.cpu, strict=world.strict)
    return resolve(target, {one.name: Usable() for one in target.chain})


class Attempt:
    """One opening of a plan in a world, and the last chain whose nodes were placed."""

    def __init__(self, world: World, plan: Plan, graph: Capture | None = None, known: Sequence[Failure] = ()) -> None:
        self.world = world
        self.remaining = Remaining(plan, plan.chain, graph)
        self.known = known
        self.opener = Opener(
            "model.onnx",
            build_settings(plan.target, None),
            cache=cast("Compiled", Caches(world)),
            crashes=crashes(world, plan),
        )

    def open(self) -> OpenedChain:
        return open_chain(self.remaining, self.opener, self.warm_up, self.known)

    def warm_up(self, created: Created) -> Ready | Failure:
        """Fail with the first provider that computes nonsense, if it took a node, as a warm-up does."""
        for one in created.active:
            if one.name != CPU and self.world.faults[number(one)] == "nonsense":
                return Failure("warm up", "it computes nonsense", one)
        return Ready(cast("epkit.Session", None), created)


def crashes(world: World, plan: Plan) -> Crashes:
    """What other processes find that open every chain there may be."""
    ours = [step.candidate for step in plan.steps]
    chains = [chain for size in range(len(ours) + 1) for chain in itertools.combinations(ours, size)]
    crash = [chain for chain in chains if any(world.faults[at] == "crash" for at in numbers(chain))]
    names = [tuple(one.name for one in chain) for chain in crash]
    return Crashes(dict.fromkeys(itertools.product(names, (False, True)), "its process crashed"))


def worlds(count: int, faults: Sequence[str] = FAULTS, **keys: bool) -> Iterator[World]:
    pairs = list(itertools.combinations(range(count), 2))
    some = [frozenset(one) for size in range(len(pairs) + 1) for one in itertools.combinations(pairs, size)]
    groups = [frozenset(one) for size in (0, 2, 3) for one in itertools.combinations(range(count), size)]
    faults = faults if count < 3 else faults[:4]
    for fault, clashes, twins in itertools.product(itertools.product(faults, repeat=count), some, groups):
        # Those that are one to ONNX Runtime are never in one session.
        if not clashes & set(itertools.combinations(sorted(twins), 2)):
            yield World(fault, clashes, twins, **keys)


def check(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, onnx, heard = planned(world), Onnx(world), list[Event]()
    attempt = Attempt(world, plan)
    monkeypatch.setattr(create, "create_session", onnx.create)
    first = plan.chain[0]
    first_alone = world.bears([number(first)]) and world.faults[number(first)] != "nonsense"
    everyone = range(len(world.faults))
    try:
        with epkit.observe(heard.append):
            opened = attempt.open()
    except ModelError:
        # The model's fault exactly when the CPU alone fails, or, where that is forbidden, every provider alone.
        assert not world.model or (not world.cpu and not any(world.bears([at]) for at in everyone))
        return
    except ProviderDropped as error:
        told = error.message
        if "says cpu = false" in told:
            assert not world.cpu
            kept = [one for one in plan.target.chain if one.name in told.partition("but ")[2].partition(" leaves")[0]]
            dropped = [one.provider for one in heard if isinstance(one, Dropped)]
            assert maximal(world, plan, kept, dropped)
            assert not world.covers(numbers(kept))
        elif world.strict:
            verb = "failed in warm-up" if world.faults[number(first)] == "nonsense" else "did not open"
            assert told.startswith(f"{first.name} {verb}")
            assert not first_alone
        else:
            assert not world.cpu
            assert "nonsense" in world.faults or all(world.faults[at] == "add" for at in everyone)
        return
    chain = opened.ready.created.chain
    assert world.model
    assert world.bears(numbers(chain))
    assert world.cpu or world.covers(numbers(chain))
    assert maximal(world, plan, chain, opened.dropped)
    assert onnx.alive == 1
    if world.strict:
        assert first in chain
    assert [one.provider for one in heard if isinstance(one, Dropped)] == list(opened.dropped)


def maximal(world: World, plan: Plan, chain: Sequence[ConfiguredProvider], dropped: Collection[str]) -> bool:
    """Whether nobody who was dropped could be there too, nor anybody stands aside for nobody."""
    there = {one.provider.ort_name for one in chain}
    kept = numbers(chain)
    for step in plan.steps:
        one = step.candidate
        if one in chain:
            assert one.name not in dropped
        elif one.name in dropped:
            # A twin that was given up took no harm from the one that has its place, if that comes after it.
            sound = one.name == CPU or world.faults[number(one)] != "nonsense"
            if sound and one.provider.ort_name not in there and world.bears(sorted((*kept, number(one)))):
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


@pytest.mark.parametrize("cpu", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_who_computes_nonsense_is_dropped_and_the_rest_is_opened_anew(count, cpu, monkeypatch):
    for world in worlds(count, cpu=cpu, faults=("", "add", "create", "cache", "nonsense")):
        if not world.clashes and not world.twins:  # who was dropped for one that computes nonsense stays out
            check(world, monkeypatch)


def test_a_placement_that_did_not_come_about_leaves_no_session_behind(monkeypatch):
    world = World(("", ""), parts=True)
    plan, onnx = planned(world), Onnx(world)
    plan = replace(plan, target=replace(plan.target, min_placement=0.5))
    monkeypatch.setattr(create, "create_session", onnx.create)
    with says(ProviderDropped) as error:
        Attempt(world, plan).open()
    assert onnx.alive == 0, f"{error} holds it"


def test_a_session_that_cannot_capture_is_not_left_behind(monkeypatch):
    world = World(("",), strict=True)
    onnx = Onnx(world)
    monkeypatch.setattr(create, "create_session", onnx.create)
    monkeypatch.setattr(create, "list_cpu_inputs", lambda session: ["x"])
    with says(ProviderDropped) as error:
        Attempt(world, planned(world), Capture(asked=True, provider="fake0")).open()
    assert onnx.alive == 0, f"{error} holds it"


def test_a_chain_of_which_nothing_is_left_captures_nothing():
    world = World(("",), cpu=False)
    plan = planned(world)
    failure = Failure("types", "it computes nonsense", plan.chain[0])
    with says(ProviderDropped):
        Attempt(world, plan, Capture(asked=True, provider="fake0"), [failure]).open()
