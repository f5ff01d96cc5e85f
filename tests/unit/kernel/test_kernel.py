"""The kernel: order, refusals, start and stop, and the two bindings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec
import pytest

from streamgate.domain import deadline
from streamgate.domain.errors import ConfigurationError, DeadlineExceeded, NotEntitled
from streamgate.kernel import Context, DirectBinding, Host, LoopbackBinding, Parts, Plugin, check_contract, in_order


class Greeting(msgspec.Struct):
    words: list[str]


class Greets(Protocol):
    async def greet(self, name: str, times: int) -> Greeting: ...

    async def refuse(self) -> None: ...


class Counts(Protocol):
    async def count(self) -> int: ...


class Greeter:
    def __init__(self) -> None:
        self.kept: Greeting | None = None

    async def greet(self, name: str, times: int) -> Greeting:
        self.kept = Greeting([name] * times)
        return self.kept

    async def refuse(self) -> None:
        raise NotEntitled("No token.", extra={"leaves": [{"path": "/any/0"}]})


class NoSettings(msgspec.Struct):
    pass


def plugin(
    name: str,
    events: list[str],
    *,
    provides: dict[type, object] | None = None,
    requires: tuple[type, ...] = (),
    **more: Any,
) -> Plugin[Any]:
    @asynccontextmanager
    async def setup(context: Context[Any]) -> AsyncGenerator[Parts, None]:
        for kind in requires:
            context.need(kind)
        if more.get("fails"):
            raise ConfigurationError("cannot start")
        events.append(f"{name} starts")
        try:
            yield Parts(provides=provides or {})
        finally:
            events.append(f"{name} stops")

    return Plugin(name, NoSettings, setup, requires=requires, provides=tuple(provides or {}))


def host(*plugins: Plugin[Any], given: dict[type, object] | None = None, **more: Any) -> Host:
    settings = {p.name: NoSettings() for p in plugins}
    return Host(plugins, settings=settings, given=given or {}, bind=DirectBinding(), draining=asyncio.Event(), **more)


async def test_plugins_start_after_what_they_require_and_stop_in_the_opposite_order() -> None:
    events: list[str] = []
    second = plugin("second", events, requires=(Greets,))
    first = plugin("first", events, provides={Greets: Greeter()})
    async with host(second, first).running() as assembled:
        events.append("running")
        assert set(assembled.parts) == {"first", "second"}
    assert events == ["first starts", "second starts", "running", "second stops", "first stops"]


async def test_a_failed_start_stops_what_had_started() -> None:
    events: list[str] = []
    with pytest.raises(ConfigurationError, match="cannot start"):
        async with host(
            plugin("first", events, provides={Greets: Greeter()}),
            plugin("second", events, requires=(Greets,), fails=True),
        ).running():
            pytest.fail("must not run")
    assert events == ["first starts", "first stops"]


async def test_a_plugin_that_does_not_start_in_time_is_named() -> None:
    @asynccontextmanager
    async def setup(context: Context[Any]) -> AsyncGenerator[Parts, None]:
        await asyncio.sleep(5)
        yield Parts()

    with pytest.raises(ConfigurationError, match=r"slow did not start within"):
        async with host(Plugin("slow", NoSettings, setup), start_timeout_s=0.05).running():
            pytest.fail("must not run")


def test_a_missing_provider_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"^Plugin lonely requires Greets, which nothing provides\.$"):
        in_order([plugin("lonely", [], requires=(Greets,))], ())


def test_a_circle_is_named() -> None:
    a = plugin("a", [], requires=(Greets,), provides={Counts: object()})
    b = plugin("b", [], requires=(Counts,), provides={Greets: object()})
    with pytest.raises(ConfigurationError, match=r"circle: (a → b → a|b → a → b)"):
        in_order([a, b], ())


def test_two_providers_of_one_contract_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="provided by both a and b"):
        in_order([plugin("a", [], provides={Greets: 1}), plugin("b", [], provides={Greets: 1})], ())


def test_what_the_process_gives_needs_no_plugin() -> None:
    assert [p.name for p in in_order([plugin("a", [], requires=(Counts,))], {Counts})] == ["a"]


async def test_needing_what_was_not_required_is_an_error() -> None:
    context = Context("a", NoSettings(), {}, asyncio.Event())
    with pytest.raises(LookupError, match="`requires` does not name"):
        context.need(Greets)


async def test_a_plugin_must_provide_exactly_what_it_declares() -> None:
    @asynccontextmanager
    async def setup(context: Context[Any]) -> AsyncGenerator[Parts, None]:
        yield Parts()

    with pytest.raises(ConfigurationError, match="does not provide exactly"):
        async with host(Plugin("liar", NoSettings, setup, provides=(Greets,))).running():
            pytest.fail("must not run")


class Opaque:
    pass


class HoldsOpaque(msgspec.Struct):
    inner: tuple[Opaque, ...]


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"value": Opaque}, "holds Opaque"),
        ({"value": HoldsOpaque}, "holds Opaque"),
        ({"value": list[dict[str, Opaque]]}, "holds Opaque"),
    ],
)
def test_a_contract_whose_values_cannot_cross_a_wire_is_refused(members: dict[str, Any], complaint: str) -> None:
    async def method(self: Any, value: Any) -> None: ...

    method.__annotations__ = {**members, "return": type(None)}
    bad = type("Bad", (), {"send": method})
    with pytest.raises(ConfigurationError, match=rf"Bad cannot be serialised: value of send\(\) {complaint}"):
        check_contract(bad)


def test_a_contract_method_that_is_not_async_is_refused() -> None:
    class Bad(Protocol):
        def now(self) -> int: ...

    with pytest.raises(ConfigurationError, match="not `async def`"):
        check_contract(Bad)


def test_a_provider_that_lacks_a_method_is_refused() -> None:
    class Half:
        async def greet(self, name: str, times: int) -> Greeting:
            raise NotImplementedError

    with pytest.raises(ConfigurationError, match=r"Half does not implement Greets\.refuse"):
        check_contract(Greets, Half())


@pytest.mark.parametrize("binding", [DirectBinding(), LoopbackBinding()], ids=["direct", "loopback"])
class TestBindings:
    def bound(self, binding: Any, provider: Any = None) -> Any:
        return binding(Greets, provider or Greeter())

    async def test_arguments_pass_by_position_and_by_name(self, binding: Any) -> None:
        assert (await self.bound(binding).greet("a", times=2)).words == ["a", "a"]

    async def test_wrong_arguments_are_a_type_error(self, binding: Any) -> None:
        with pytest.raises(TypeError):
            await self.bound(binding).greet("a")

    async def test_errors_keep_code_sentence_and_members(self, binding: Any) -> None:
        with pytest.raises(NotEntitled) as caught:
            await self.bound(binding).refuse()
        assert (caught.value.detail, caught.value.extra) == ("No token.", {"leaves": [{"path": "/any/0"}]})

    async def test_every_call_has_a_deadline_and_keeps_the_callers(self, binding: Any) -> None:
        class Slow(Greeter):
            async def greet(self, name: str, times: int) -> Greeting:
                left = deadline.remaining_s()
                assert left is not None
                assert left <= 0.1
                await asyncio.sleep(5)
                return Greeting([])

        with pytest.raises(DeadlineExceeded):
            async with deadline.within(0.1):
                await self.bound(binding, Slow()).greet("a", 1)


async def test_loopback_shares_no_mutable_value() -> None:
    provider = Greeter()
    answer = await LoopbackBinding()(Greets, provider).greet("a", 1)  # type: ignore[attr-defined]
    answer.words.append("changed by the caller")
    assert provider.kept is not None
    assert provider.kept.words == ["a"]
