"""The gRPC door asks who is there: nobody gets in without a key, and with one to nobody else's entries."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cluster.access.guard import Guard
from cluster.access.needs import OPEN_RPCS, RPCS
from cluster.config import AccessConfig, CacheConfig, TenantConfig, WatchConfig
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.entries import Entry
from cluster.requests import Consistency, Reply
from grpc_doors import METHODS, Calling, Here, Memory, eventually, failure, in_memory
from keys import Holder, holder, write_keys
from nodes import WITHIN_S
from snapring.keys import Key

Code = grpc.StatusCode
ACME, ZETA = holder("billing", "acme", "write"), holder("audit", "zeta", "write")
PLAIN = holder("plain", "default", "write")
READER, CHIEF = holder("reader", "acme"), holder("chief", "acme", "admin")
EVERYBODY = (ACME, ZETA, PLAIN, READER, CHIEF)
OWNERS = {"acme": "acme/", "zeta": "zeta/", "default": ""}
PLANS = CacheConfig(name="plans", kind="store", tenants=("zeta",))


class Recording(Memory):
    """A node that holds ``users:1`` of three tenants, each with its tenant's name for a value, and notes every key."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.config = replace(self.config, caches={**self.config.caches, "plans": PLANS})
        for tenant, prefix in OWNERS.items():
            self.keep(f"{prefix}users:1", f"secret of {tenant}".encode())
            for key in ("users:2", "plans:1"):
                self.rows[prefix + key] = f"secret of {tenant}".encode()

    def hit(self, key: bytes, now_s: float | None = None) -> Entry | None:
        """As before, and noted."""
        entry = super().hit(key, now_s)
        if entry is not None:
            self.note(key.decode())
        return entry

    def try_read(self, key: Key, consistency: Consistency) -> Reply | None:
        """As before, and noted."""
        self.note(str(key))
        return super().try_read(key, consistency)

    def note(self, text: str) -> None:
        """Whose key it is."""
        self.seen.add(text.partition("/")[0] if "/" in text else "default")

    def tenants(self) -> set[str]:
        """Whose keys it was asked for, in whatever way."""
        for text, *_ in self.asked:
            self.note(text)
        return self.seen | {deed.key.tenant for write in self.writes for deed in write}


Guarding = Callable[..., AbstractAsyncContextManager[tuple[Recording, Here, Guard]]]


@pytest.fixture
def guarded(tmp_path: Path) -> Guarding:
    """Opens doors that know everybody's keys; ``tenants`` are their quotas."""

    @asynccontextmanager
    async def opened(
        *,
        tenants: dict[str, TenantConfig] | None = None,
        clocks: dict[str, Callable[[], float]] | None = None,
        **settings: Any,
    ) -> AsyncIterator[tuple[Recording, Here, Guard]]:
        node = Recording()
        file = write_keys(tmp_path / "keys", EVERYBODY)
        node.config = replace(
            node.config,
            access=AccessConfig(keys_file=str(file), reload_period_s=3600.0),
            tenants=tenants or {},
        )
        guard = Guard(node.config, **(clocks or {}))  # type: ignore[arg-type]
        async with in_memory(node, guard, **settings) as (_, calling):
            yield node, calling, guard

    return opened


async def refused(call: Any) -> tuple[Code, str]:
    """Code and reason of a call that must fail."""
    code, reason, _ = await failure(call)
    return code, reason


NOBODY = (Code.UNAUTHENTICATED, "UNAUTHENTICATED")
DENIED = (Code.PERMISSION_DENIED, "PERMISSION_DENIED")


def headers(*values: str) -> tuple[tuple[str, str], ...]:
    """A call's metadata."""
    return tuple(("authorization", value) for value in values)


async def test_nothing_is_answered_before_a_key_is_shown(guarded: Guarding) -> None:
    """No method of ours, not even what is in memory; one key, in its place and alone."""
    async with guarded() as (node, calling, _):
        stranger = Calling(calling.channel)
        for shown in (
            headers(),
            headers("Bearer"),
            headers(ACME.key),
            headers(f"Basic {ACME.key}"),
            headers(f"Bearer {ACME.hash}"),
            headers(f"Bearer {ACME.key[:-1]}"),
            headers(f"Bearer {ACME.key}", f"Bearer {ZETA.key}"),
            (("authorization-bin", f"Bearer {ACME.key}".encode()),),
        ):
            stranger.metadata = shown  # type: ignore[assignment]
            assert await refused(stranger.Get(key="users:1")) == NOBODY
        stranger.metadata = ()
        for method in METHODS:
            call = getattr(stranger, method)()
            assert await refused(call.read() if method == "Watch" else call) == NOBODY
        assert not node.tenants()
        assert not node.watching.subscriptions
        assert (await calling.by(ACME).Get(key="users:1")).value == b"secret of acme"


async def test_a_stranger_is_refused_before_his_request_is_read(guarded: Guarding) -> None:
    """Who sends a call and never its request, or too large a one, holds no place."""
    async with guarded(max_request_bytes=4096) as (_, calling, _):
        call = calling.channel.stream_unary("/snapring.v1.Snapring/Get")(timeout=WITHIN_S)
        assert await refused(call) == NOBODY
        assert await refused(Calling(calling.channel).raw("Write", b"x" * 10_000)) == NOBODY


async def test_health_is_for_anybody_and_what_lasts_is_not(guarded: Guarding) -> None:
    """A probe holds no key; a watch or a reflection would take a place of the tenants'."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async with guarded() as (_, calling, _):
        health = health_pb2_grpc.HealthStub(calling.channel)
        asked = health_pb2.HealthCheckRequest()
        answered = await health.Check(asked, timeout=WITHIN_S)
        assert answered.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(calling.channel)
        assert await refused(health.Watch(asked, timeout=WITHIN_S).read()) == NOBODY
        told = reflection.ServerReflectionInfo(iter([request]), timeout=WITHIN_S)
        assert await refused(told.read()) == NOBODY
        shown = headers(f"Bearer {READER.key}")
        assert await health.Watch(asked, timeout=WITHIN_S, metadata=shown).read()
        told = reflection.ServerReflectionInfo(iter([request]), timeout=WITHIN_S, metadata=shown)
        assert len((await told.read()).list_services_response.service) == 3


def test_every_method_has_a_line_in_the_table() -> None:
    """One that is added without a decision is refused, and this test says so."""
    standard = {
        f"{service.full_name}/{method.name}"
        for service in (
            health_pb2.DESCRIPTOR.services_by_name["Health"],
            reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
        )
        for method in service.methods
    } - {"grpc.health.v1.Health/List"}
    assert {*METHODS, *standard} == {*RPCS, *OPEN_RPCS}


async def test_a_method_without_a_line_is_refused(guarded: Guarding, monkeypatch: pytest.MonkeyPatch) -> None:
    """To everybody, whatever his role."""
    monkeypatch.delitem(RPCS, "Token")  # type: ignore[arg-type]
    async with guarded() as (_, calling, _):
        assert await refused(calling.by(CHIEF).Token()) == DENIED


KEYS = [
    *(
        f"{prefix}{rest}"
        for prefix in ("", "acme/", "zeta/", "default/")
        for rest in ("users:1", "users:2", "settings:a", "plans:1", "users")
    ),
    "{zeta/users:1}@TOKEN", "{users:1}@TOKEN", "{acme/users:1}@TOKEN", "acme", "zeta/", "/", "", "{", "zeta%2Fusers:1",
]  # fmt: skip


def request_of(method: str, chance: random.Random, token: str) -> Any:
    """A request of whatever kind, about whatever keys."""

    def key() -> str:
        return chance.choice(KEYS).replace("TOKEN", token)

    kind = METHODS[method][0]
    asked = chance.choice(
        [None, v1.Consistency(strong=True), v1.Consistency(at_least=token), v1.Consistency(exactly=token)]
    )
    match method:
        case "Get":
            return kind(key=key(), consistency=asked, track=chance.random() < 0.5)
        case "GetMany":
            keys = [key() for _ in range(chance.randrange(1, 4))]
            return kind(keys=keys, consistency=asked, one_snapshot=chance.random() < 0.5)
        case "Write":
            deeds = [v1.Deed(key=key(), put=b"written") for _ in range(chance.randrange(1, 3))]
            return kind(deeds=deeds)
        case "Watch":
            place = v1.Place(log=chance.getrandbits(64), tick=0)
            return kind(
                prefixes=[key() for _ in range(chance.randrange(3))], after=chance.choice([None, place])
            )
        case "Token":
            return chance.choice([kind(), kind(strong=True), kind(ticket=7)])
    return kind()


@pytest.mark.parametrize("who", [ACME, PLAIN, CHIEF], ids=lambda who: who.name)
@pytest.mark.parametrize("method", sorted(METHODS))
async def test_no_method_reaches_another_tenant(method: str, who: Holder, guarded: Guarding) -> None:
    """Whatever is asked: the node is asked for one's own keys only, and no reply or error holds another's value."""
    chance = random.Random(f"{method} {who.name}")
    async with guarded() as (node, calling, _):
        asking = calling.by(who)
        token = (await asking.Token()).token
        for _ in range(60):
            request = request_of(method, chance, token)
            shown = await _answer(node, asking, method, request)
            for tenant in OWNERS.keys() - {who.tenant}:
                assert f"secret of {tenant}".encode() not in shown, request
                assert f"{tenant}/users".encode() not in shown or tenant in str(request), request
            assert node.tenants() <= {who.tenant}, request


async def _answer(node: Recording, asking: Calling, method: str, request: Any) -> bytes:
    """What comes, a refusal included; of a Watch, an event in which a key of every tenant has left."""
    try:
        if method != "Watch":
            return bytes(await asking.raw(method, request.SerializeToString()))
        call = asking.channel.unary_stream("/snapring.v1.Snapring/Watch")
        stream = call(request.SerializeToString(), timeout=WITHIN_S, metadata=asking.metadata)
        first = await stream.read()
        leave(node, "users:1")
        shown = bytes(first + await stream.read())
        stream.cancel()
        return shown
    except grpc.aio.AioRpcError as error:
        return (error.details() or "").encode()


def leave(node: Recording, *keys: str) -> None:
    """Those keys of every tenant leave memory."""
    for key in keys:
        for prefix in OWNERS.values():
            node.watching.left((prefix + key).encode())


@pytest.mark.parametrize("who", [ACME, ZETA, PLAIN], ids=lambda who: who.tenant)
async def test_the_short_way_knows_whose_call_it_is(who: Holder, guarded: Guarding) -> None:
    """A hit, alone or among many, is one's own, named with the tenant or without; any other is refused."""
    own = f"secret of {who.tenant}".encode()
    async with guarded() as (node, calling, _):
        asking = calling.by(who)
        for text in ("users:1", f"{who.tenant}/users:1"):
            assert (await asking.Get(key=text)).value == own
            many = await asking.GetMany(keys=[text, "users:2"])
            assert [reply.value for reply in many.replies] == [own, own]
        for tenant in OWNERS.keys() - {who.tenant}:
            assert await refused(asking.Get(key=f"{tenant}/users:1")) == DENIED
            assert await refused(asking.GetMany(keys=["users:1", f"{tenant}/users:1"])) == DENIED
        assert node.tenants() == {who.tenant}


async def test_a_closed_cache_stays_closed(guarded: Guarding) -> None:
    """In reads and writes; who may use it does."""
    deed = v1.Deed(key="plans:1", put=b"")
    async with guarded() as (_, calling, _):
        assert await refused(calling.by(ACME).Get(key="plans:1")) == DENIED
        assert await refused(calling.by(ACME).Write(deeds=[deed])) == DENIED
        assert (await calling.by(ZETA).Get(key="plans:1")).value == b"secret of zeta"
        await calling.by(ZETA).Write(deeds=[deed])


async def test_a_role_may_what_it_may_and_no_more(guarded: Guarding) -> None:
    """A reader does not write, and only an administrator is told of the whole node."""
    async with guarded() as (_, calling, _):
        deeds = [v1.Deed(key="settings:a", put=b"")]
        assert await refused(calling.by(READER).Write(deeds=deeds)) == DENIED
        await calling.by(CHIEF).Write(deeds=deeds)
        for who in (READER, ACME):
            status = await calling.by(who).Status()
            assert (status.node, bool(status.watermark), len(status.sections)) == ("memory", True, 0)
        await calling.by(ZETA).Token()
        told = await calling.by(CHIEF).Status()
        assert [section.name for section in told.sections] == ["reads", "access"]
        assert "zeta" not in str(told)


async def test_a_watch_hears_of_its_tenants_keys_alone(guarded: Guarding) -> None:
    """Without the tenant's name, whether all are asked for or some, and from another tenant's place too."""
    wanted = {ACME: ["users:9", "settings:a"], PLAIN: ["users:9", "settings:a"]}
    async with guarded() as (node, calling, _):
        others = await calling.by(ZETA).Watch().read()
        for who, keys in wanted.items():
            asking = calling.by(who)
            everything, some = (
                asking.Watch(after=others.place),
                asking.Watch(prefixes=["us", f"{who.tenant}/us"]),
            )
            await asyncio.gather(everything.read(), some.read())
            leave(node, "users:9", "settings:a", "plans:1")  # plans are closed to both
            assert [*(await named(everything))] == keys
            assert [*(await named(some))] == keys[:1]
            for prefix in ("zeta/", "zeta/users:1", "/", "other/"):
                assert await refused(asking.Watch(prefixes=[prefix]).read()) == DENIED


async def named(stream: Any) -> Iterable[str]:
    """The keys of the next event that names any."""
    async with asyncio.timeout(WITHIN_S):
        while not (event := await stream.read()).keys:
            pass
    keys: Iterable[str] = event.keys
    return keys


async def test_a_watch_does_not_show_that_others_are_busy(guarded: Guarding) -> None:
    """When another tenant's keys leave, nothing is sent before the heartbeat."""
    async with guarded() as (node, calling, _):
        node.watching.config = WatchConfig(heartbeat_s=3600.0, gather_s=0.0)
        mine, theirs = calling.by(ACME).Watch(), calling.by(ZETA).Watch()
        await asyncio.gather(mine.read(), theirs.read())
        heard = asyncio.ensure_future(mine.read())
        for number in range(3):
            node.watching.left(b"zeta/users:%d" % number)
            assert [*(await named(theirs))] == [f"users:{number}"]
        assert not heard.done()
        node.watching.left(b"acme/users:1")
        assert [*(await heard).keys] == ["users:1"]


async def test_what_lasts_ends_with_its_key_and_the_others_stay(guarded: Guarding, tmp_path: Path) -> None:
    """Watch, the health service's and reflection, at the next look at the file; a new key's go on."""
    new = holder("billing", "acme", "write")
    async with guarded() as (node, calling, guard):
        write_keys(tmp_path / "keys", [ACME, new, ZETA])
        await guard.watch.look()
        ended = [calling.by(ACME).Watch(), *standing(calling, ACME)]
        lasting = [calling.by(who).Watch() for who in (new, ZETA)]
        await asyncio.gather(*(stream.read() for stream in (*ended, *lasting)))
        write_keys(tmp_path / "keys", [new, ZETA])
        await guard.watch.look()
        for stream in ended:
            assert await refused(exhausted(stream)) == NOBODY
        await asyncio.gather(*(stream.read() for stream in lasting))
        assert (node.watching.subscriptions, calling.door.calls.watches) == (2, 2)
        assert await refused(calling.by(ACME).Get(key="users:1")) == NOBODY
        assert (await calling.by(new).Get(key="users:1")).value == b"secret of acme"


async def exhausted(stream: Any) -> None:
    """Read until it fails."""
    async with asyncio.timeout(WITHIN_S):
        while await stream.read():
            pass


def health(calling: Here, who: Holder) -> Any:
    """A stream of the health service."""
    return health_pb2_grpc.HealthStub(calling.channel).Watch(
        health_pb2.HealthCheckRequest(), timeout=WITHIN_S, metadata=headers(f"Bearer {who.key}")
    )


def standing(calling: Here, who: Holder) -> list[Any]:
    """A stream of each standard service that lasts."""

    async def asked() -> AsyncIterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        await asyncio.get_running_loop().create_future()

    told = reflection_pb2_grpc.ServerReflectionStub(calling.channel).ServerReflectionInfo(
        asked(), timeout=WITHIN_S, metadata=headers(f"Bearer {who.key}")
    )
    return [health(calling, who), told]


async def test_a_watch_ends_when_its_key_expires(guarded: Guarding, tmp_path: Path) -> None:
    """Though nothing of the file changes."""
    now_s = [0.0]
    async with guarded(clocks={"unix_time": lambda: now_s[0]}) as (_, calling, guard):
        write_keys(tmp_path / "keys", EVERYBODY, "2026-01-01T00:00:00Z")
        await guard.watch.look()
        stream = calling.by(ACME).Watch()
        await stream.read()
        now_s[0] = 2e9
        await guard.watch.look()
        assert await refused(exhausted(stream)) == NOBODY


async def test_a_tenant_beyond_its_rate_is_refused_and_others_are_not(guarded: Guarding) -> None:
    """Hits count like everything else, over all of its credentials, and each key of a GetMany or a Write."""
    quota = {"acme": TenantConfig(rate=20, burst=20)}
    over = (Code.RESOURCE_EXHAUSTED, "OVERLOADED")
    async with guarded(tenants=quota, clocks={"clock": lambda: 0.0}) as (_, calling, _):
        writer, reader = calling.by(ACME), calling.by(READER)
        for _ in range(4):
            await writer.Get(key="users:1")
        for _ in range(3):
            await reader.Get(key="users:2")
        await reader.GetMany(keys=["users:1"] * 10)
        await writer.Write(deeds=[v1.Deed(key=f"settings:{name}", put=b"") for name in "ab"])
        assert await refused(writer.GetMany(keys=["users:1", "users:1"])) == over
        await writer.Token()
        for call in (
            reader.Get(key="users:1"),
            reader.Get(key="users:2"),
            writer.Status(),
            writer.Watch().read(),
        ):
            assert await refused(call) == over
        for _ in range(30):
            await calling.by(ZETA).Get(key="users:1")


async def test_what_waits_is_counted_until_it_ends(guarded: Guarding) -> None:
    """Within the tenant's own bound; refused work is never begun, and hits need no place."""
    async with guarded(tenants={"acme": TenantConfig(in_flight=2)}) as (node, calling, guard):
        asking, event = calling.by(ACME), asyncio.Event()
        node.held["acme/users:2"] = event
        calls = [asking.Get(key="users:2") for _ in range(2)]
        await eventually(lambda: node.waiting == 2)
        code, reason, metadata = await failure(asking.Get(key="users:2"))
        assert (code, reason, metadata["retry_s"]) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED", "0.05")
        assert (await asking.Get(key="users:1")).value == b"secret of acme"
        calls[0].cancel()
        await eventually(lambda: node.waiting == 1)
        event.set()
        await calls[1]
        await asking.Get(key="users:2")
        caller = guard.gate.authenticate(ACME.key.encode())  # type: ignore[union-attr]
        assert caller is not None
        assert caller.allowance.waiting == 0


async def test_one_tenant_leaves_the_others_places_at_the_door(guarded: Guarding) -> None:
    """Of the calls that wait, and of the watches: its part, however many credentials it has."""
    async with guarded(max_calls=4, max_watches=4) as (node, calling, _):
        for prefix in ("acme/", "zeta/"):
            node.held[f"{prefix}users:2"] = asyncio.Event()
        calls = [calling.by(who).Get(key="users:2") for who in (ACME, READER, ZETA, ZETA)]
        await eventually(lambda: node.waiting == 4)
        assert await refused(calling.by(CHIEF).Get(key="users:2")) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED")
        streams = [calling.by(ACME).Watch(), health(calling, READER)]
        await asyncio.gather(*(stream.read() for stream in streams))
        assert (await refused(calling.by(CHIEF).Watch().read()))[1] == "OVERLOADED"
        other = calling.by(ZETA).Watch()
        assert await other.read()
        for event in node.held.values():
            event.set()
        await asyncio.gather(*calls)
        streams[0].cancel()
        await eventually(lambda: calling.door.calls.watches == 2)
        assert await calling.by(CHIEF).Watch().read()
