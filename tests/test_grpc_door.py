"""The gRPC door as its clients see it, over loopback."""

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.config import GrpcConfig
from cluster.doors.grpc import GrpcDoor
from cluster.doors.grpc.door import SERVICE
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.readiness import Readiness
from cluster.requests import BOUNDED, STRONG, AtLeast, Exactly
from cluster.tokens import Ticket
from cluster.writes import Deed
from doors import INCARNATION, SNAPSHOT, VERSION, failed
from grpc_doors import METHODS, Memory, eventually, failure, in_memory
from nodes import WITHIN_S
from snapring.errors import CacheUnknown, Overloaded, QueryFailed, SnapringError
from snapring.keys import parse

Code = grpc.StatusCode
TOKEN, TICKET = Memory().token(SNAPSHOT, INCARNATION), Memory().ticket(9)


async def test_a_value_in_memory_is_answered_in_full() -> None:
    """Value, token, age, state and source, without a load."""
    async with in_memory() as (node, calling):
        node.keep("users:1", b"Ada")
        reply = await calling.Get(key="users:1")
        assert (reply.value, reply.age_ms, reply.state, reply.source) == (
            b"Ada",
            13,
            v1.STATE_FRESH,
            v1.SOURCE_LOCAL,
        )
        assert node.position(reply.as_of) == SNAPSHOT
        assert not node.asked


async def test_what_memory_lacks_is_loaded_and_no_row_is_an_answer() -> None:
    """A row is a value, no row is the absence of one, and a store key has its version."""
    async with in_memory() as (node, calling):
        node.rows["users:1"] = b""
        assert (await calling.Get(key="users:1")).HasField("value")
        nothing = await calling.Get(key="users:2")
        assert (nothing.HasField("value"), nothing.HasField("version")) == (False, False)
        assert (nothing.source, (await calling.Get(key="settings:a")).version) == (v1.SOURCE_LOAD, 500)


async def test_each_consistency_reaches_the_node() -> None:
    """Unset, strong, at least, exactly, and a token in the key."""
    async with in_memory() as (node, calling):
        token = node.token(SNAPSHOT, INCARNATION)
        wanted = {
            "": BOUNDED,
            "strong": STRONG,
            "at_least": AtLeast(SNAPSHOT, INCARNATION),
            "exactly": Exactly(SNAPSHOT, INCARNATION),
        }
        for name in wanted:
            asked = {name: True if name == "strong" else token} if name else {}
            await calling.Get(key="users:1", consistency=v1.Consistency(**asked))
        await calling.Get(key=f"{{users:1}}@{token}")
        assert [asked for _, asked, _ in node.asked] == [*wanted.values(), wanted["at_least"]]


async def test_many_values_come_in_order_whether_in_memory_or_not() -> None:
    """Those in memory are not loaded."""
    async with in_memory() as (node, calling):
        node.keep("users:2", b"two")
        node.rows.update({"users:1": b"one", "users:3": b"three"})
        many = await calling.GetMany(keys=["users:1", "users:2", "users:3", "users:4"])
        assert [reply.value for reply in many.replies] == [b"one", b"two", b"three", b""]
        assert not many.replies[3].HasField("value")
        assert sorted(key for key, _, _ in node.asked) == ["users:1", "users:3", "users:4"]


async def test_many_values_at_one_snapshot_say_the_same_of_themselves() -> None:
    """One token, one age, one state."""
    async with in_memory() as (node, calling):
        node.keep("users:1", b"one")
        many = await calling.GetMany(keys=["users:1", "users:2"], one_snapshot=True)
        assert len({(reply.as_of, reply.age_ms, reply.state) for reply in many.replies}) == 1


async def test_one_failure_fails_them_all() -> None:
    """A failure is never shown as no row."""
    async with in_memory() as (node, calling):
        node.rows["users:2"] = QueryFailed("division by zero")
        assert (await failure(calling.GetMany(keys=["users:1", "users:2"])))[:2] == (
            Code.UNKNOWN,
            "QUERY_FAILED",
        )


async def test_a_write_is_one_write_and_returns_a_token() -> None:
    """Puts, deletes and the versions demanded reach the node as they are."""
    async with in_memory() as (node, calling):
        deeds = [
            v1.Deed(key="settings:a", put=b"1"),
            v1.Deed(key="settings:b", delete=v1.Delete(), if_version=7),
            v1.Deed(key="settings:c", put=b"", if_version=0),
        ]
        reply = await calling.Write(deeds=deeds)
        a, b, c = (parse(f"settings:{name}".encode())[0] for name in "abc")
        assert node.writes == [
            (
                Deed(key=a, value=b"1"),
                Deed(key=b, value=None, if_version=7),
                Deed(key=c, value=b"", if_version=0),
            )
        ]
        assert (node.position(reply.token), reply.version, reply.existed) == (Ticket(501), VERSION, 0)
        gone = await calling.Write(deeds=[v1.Deed(key="settings:a", delete=v1.Delete())])
        assert (gone.version, gone.existed) == (0, 1)


async def test_tokens_of_the_present_and_of_a_transaction() -> None:
    """As the node gives them."""
    async with in_memory() as (node, calling):
        present, strong = await calling.Token(), await calling.Token(strong=True)
        assert node.position(present.token) == SNAPSHOT != node.position(strong.token)
        assert node.position((await calling.Token(ticket=2**63)).token) == Ticket(2**63)


async def test_status_is_what_the_node_says_of_itself() -> None:
    """Its name, where it has followed the database to, and its numbers."""
    async with in_memory() as (node, calling):
        status = await calling.Status()
        assert (status.node, node.position(status.watermark)) == ("memory", SNAPSHOT)
        assert {section.name: section.fields["hits"] for section in status.sections} == {"reads": "0"}


@pytest.mark.parametrize(
    ("method", "fields", "reason"),
    [
        ("Get", {"key": "1"}, "KEY_INVALID"),
        ("Get", {"key": "nope:1"}, "CACHE_UNKNOWN"),
        ("Get", {"key": "{users:1}@x"}, "TOKEN_INVALID"),
        ("Get", {"key": f"{{users:1}}@{TOKEN}", "consistency": v1.Consistency(strong=True)}, "ERR"),
        ("Get", {"key": "users:1", "consistency": v1.Consistency(at_least="x")}, "TOKEN_INVALID"),
        ("Get", {"key": "users:1", "consistency": v1.Consistency(exactly=TICKET)}, "TOKEN_INVALID"),
        ("Get", {"key": "users:1", "track": True, "consistency": v1.Consistency(exactly=TOKEN)}, "ERR"),
        ("GetMany", {}, "ERR"),
        ("GetMany", {"keys": ["users:1"] * 4}, "ERR"),
        ("Token", {"ticket": 0}, "ERR"),
        ("Write", {"deeds": [v1.Deed(key="settings:a")]}, "ERR"),
        ("Write", {"deeds": [v1.Deed(key=f"{{settings:a}}@{TOKEN}", put=b"")]}, "ERR"),
        ("Write", {"deeds": [v1.Deed(key="settings:a", put=b"", if_version=2**53)]}, "ERR"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(
    method: str, fields: dict[str, Any], reason: str
) -> None:
    """With a status whose details say which error it is."""
    async with in_memory(max_keys=3) as (_, calling):
        assert (await failure(getattr(calling, method)(**fields)))[1] == reason


@pytest.mark.parametrize("kind", SnapringError.__subclasses__(), ids=lambda kind: str(kind.code))
async def test_an_error_of_the_node_travels_with_its_code(kind: type[SnapringError]) -> None:
    """Reason, and whether to try again."""
    async with in_memory() as (node, calling):
        error = failed(kind.code)
        for name, value in {"position": 3, "key": "k", "version": 4, "retry_after_s": 1.5}.items():
            setattr(error, name, value)
        node.rows["users:1"] = error
        _, reason, metadata = await failure(calling.Get(key="users:1"))
        assert (reason, metadata["retryable"]) == (kind.code, "true" if kind.retryable else "false")
        assert metadata.get("retry_s") == ("1.5" if kind is Overloaded else None)


async def test_a_defect_is_internal_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What went wrong is in the log alone."""
    async with in_memory() as (node, calling):
        node.rows["users:1"] = RuntimeError("a secret")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await calling.Get(key="users:1")
        assert caught.value.code() is Code.INTERNAL
        assert "secret" not in str(caught.value.details())
        assert "a secret" in caplog.text


async def test_the_clients_deadline_is_the_requests() -> None:
    """But never later than the node's own; and what waits for it is let go of."""
    async with in_memory(Memory(request_timeout_s=7.0)) as (node, calling):
        node.held["users:1"] = asyncio.Event()
        before_s = monotonic()
        code, _, _ = await failure(calling.Get(key="users:1", within_s=0.2))
        await calling.Get(key="users:2", within_s=None)
        await calling.Get(key="users:3", within_s=60.0)
        until_s = [deadline_s - before_s for _, _, deadline_s in node.asked]
        assert code is Code.DEADLINE_EXCEEDED
        assert until_s[0] <= 0.2 + (monotonic() - before_s)
        assert until_s[0] < 6.0
        assert all(7.0 <= each <= 7.0 + (monotonic() - before_s) for each in until_s[1:])
        await eventually(lambda: node.cancelled == ["users:1"])


async def test_a_cancelled_call_lets_go_of_what_it_waited_for() -> None:
    """All that a GetMany had under way."""
    async with in_memory() as (node, calling):
        node.held.update({"users:1": asyncio.Event(), "users:2": asyncio.Event()})
        call = calling.GetMany(keys=["users:1", "users:2"])
        await eventually(lambda: node.waiting == 2)
        call.cancel()
        await eventually(lambda: sorted(node.cancelled) == ["users:1", "users:2"])
        assert node.waiting == 0


async def test_requests_and_replies_beyond_their_bounds_are_refused() -> None:
    """The request by gRPC, before it is read; the reply in our own words."""
    async with in_memory(max_request_bytes=4096, max_reply_bytes=4096) as (node, calling):
        node.keep("users:1", b"v" * 4090)
        large = [v1.Deed(key="settings:a", put=b"v" * 4096)]
        assert (await failure(calling.Write(deeds=large)))[:2] == (Code.RESOURCE_EXHAUSTED, "")
        assert (await failure(calling.Get(key="users:1")))[:2] == (Code.INVALID_ARGUMENT, "VALUE_INVALID")
        node.keep("users:1", b"v" * 3000)
        assert len((await calling.Get(key="users:1")).value) == 3000
        assert not node.writes


async def test_more_calls_than_allowed_are_refused_and_the_others_answered() -> None:
    """The bound is on what is under way."""
    async with in_memory(max_calls=2, max_watches=1) as (node, calling):
        node.held["users:1"] = asyncio.Event()
        calls = [asyncio.ensure_future(calling.Get(key="users:1")) for _ in range(3)]
        await eventually(lambda: node.waiting == 3)
        assert (await failure(calling.Get(key="users:2")))[0] is Code.RESOURCE_EXHAUSTED
        node.held["users:1"].set()
        assert len(await asyncio.gather(*calls)) == 3
        await calling.Get(key="users:2")


async def test_more_streams_of_a_connection_than_allowed_wait_at_the_client() -> None:
    """They come to the node one after the other."""
    async with in_memory(max_streams=1) as (node, calling):
        await calling.Token()
        node.held.update({"users:1": asyncio.Event(), "users:2": asyncio.Event()})
        calls = [asyncio.ensure_future(calling.Get(key=f"users:{number}")) for number in (1, 2)]
        await eventually(lambda: node.waiting == 1)
        await asyncio.sleep(0.05)  # for one that must not come
        assert node.waiting == 1
        for event in node.held.values():
            event.set()
        await asyncio.gather(*calls)


async def test_more_watches_than_allowed_are_refused_with_a_retry_hint() -> None:
    """Those of the health service count."""
    async with in_memory(max_watches=1) as (_, calling):
        watch = calling.Watch()
        await watch.read()
        assert (await failure(calling.Watch().read()))[1:] == (
            "OVERLOADED",
            {"retryable": "true", "retry_s": "1.0"},
        )
        health = health_pb2_grpc.HealthStub(calling.channel)
        other = health.Watch(health_pb2.HealthCheckRequest(), timeout=WITHIN_S)
        assert (await failure(other.read()))[1] == "OVERLOADED"
        watch.cancel()
        await eventually(lambda: calling.door.calls.watches == 0)
        other = health.Watch(health_pb2.HealthCheckRequest(), timeout=WITHIN_S)
        assert (await other.read()).status == health_pb2.HealthCheckResponse.SERVING


async def test_more_connections_than_allowed_are_closed() -> None:
    """The one that is there goes on."""
    async with in_memory(max_connections=1) as (_, calling):
        await calling.Token()
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{calling.door.port}", options=options) as second:
            call = second.unary_unary(f"/{SERVICE}/Token")(b"", timeout=1.0)
            assert (await failure(call))[0] in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
        await calling.Token()


async def test_who_keeps_calling_is_moved_to_a_new_connection_and_no_call_fails() -> None:
    """When his is of the age that the setting says."""
    async with in_memory(max_connection_age_s=0.2) as (_, calling):
        health = health_pb2_grpc.HealthStub(calling.channel)
        await health.Check(health_pb2.HealthCheckRequest(), timeout=WITHIN_S)
        ready = grpc.ChannelConnectivity.READY
        moved = asyncio.create_task(calling.channel.wait_for_state_change(ready))
        async with asyncio.timeout(WITHIN_S):
            while not moved.done() or calling.channel.get_state() is not ready:
                await health.Check(health_pb2.HealthCheckRequest(), timeout=WITHIN_S)


async def test_who_does_not_end_a_call_keeps_no_connection() -> None:
    """It is closed when as much time again has passed."""
    async with in_memory(max_connection_age_s=0.1) as (_, calling):

        async def never() -> AsyncIterator[bytes]:
            await asyncio.Event().wait()
            yield b""

        call = calling.channel.stream_unary("/grpc.health.v1.Health/Check")(never(), timeout=WITHIN_S)
        assert (await failure(call))[0] is Code.UNAVAILABLE


async def test_a_drain_answers_what_is_under_way_and_takes_no_more() -> None:
    """Health says so first."""
    async with in_memory() as (node, calling):
        node.held["users:1"] = asyncio.Event()
        call, watch = asyncio.ensure_future(calling.Get(key="users:1")), calling.Watch()
        await watch.read()
        await eventually(lambda: node.waiting == 1)
        draining = asyncio.create_task(calling.door.drain(monotonic() + WITHIN_S))
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            while True:
                await watch.read()
        assert ended.value.code() is Code.UNAVAILABLE
        node.held["users:1"].set()
        assert (await call).source == v1.SOURCE_LOAD
        await draining
        assert (await failure(calling.Token()))[0] is Code.UNAVAILABLE


async def test_a_drain_that_runs_out_of_time_says_so_and_of_a_write_that_nobody_knows() -> None:
    """Typed errors, not broken connections."""
    async with in_memory() as (node, calling):
        node.held.update({"users:1": asyncio.Event(), "settings:a": asyncio.Event()})
        read = asyncio.ensure_future(failure(calling.Get(key="users:1")))
        write = asyncio.ensure_future(failure(calling.Write(deeds=[v1.Deed(key="settings:a", put=b"")])))
        await eventually(lambda: node.waiting == 2)
        await calling.door.drain(monotonic())
        assert (await read)[:2] == (Code.UNAVAILABLE, "NODE_STOPPING")
        assert (await write)[:2] == (Code.UNKNOWN, "WRITE_UNCERTAIN")


async def test_health_follows_the_node() -> None:
    """NOT_SERVING until it has followed the database, and from a drain on."""
    node = Memory()
    node.timeline.watermark = None
    async with in_memory(node) as (_, calling):
        health = health_pb2_grpc.HealthStub(calling.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=WITHIN_S)
        states = [(await watch.read()).status]
        node.timeline.watermark = SNAPSHOT
        states.append((await watch.read()).status)
        draining = asyncio.create_task(calling.door.drain(monotonic() + 0.1))
        states.append((await watch.read()).status)
        not_serving, serving = (
            health_pb2.HealthCheckResponse.NOT_SERVING,
            health_pb2.HealthCheckResponse.SERVING,
        )
        assert states == [not_serving, serving, not_serving]
        await draining


async def test_reflection_tells_the_published_contract() -> None:
    """The standard client finds the service and its messages as they are in the .proto."""
    async with in_memory() as (_, calling):

        def look() -> tuple[list[str], bytes]:
            with grpc.insecure_channel(f"127.0.0.1:{calling.door.port}") as channel:
                database = ProtoReflectionDescriptorDatabase(channel)
                found = DescriptorPool(database).FindServiceByName(SERVICE)
                return list(database.get_services()), found.file.serialized_pb

        services, file = await asyncio.to_thread(look)
        assert set(services) == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
        assert file == v1.DESCRIPTOR.serialized_pb


async def test_a_port_that_is_taken_is_an_os_error() -> None:
    """As with any other listener."""
    async with in_memory() as (node, calling):
        second = GrpcDoor(node, node, node.watching, GrpcConfig(port=calling.door.port), Readiness({}))
        with pytest.raises(OSError, match="cannot listen"):
            await second.start()


TEXT = st.text(max_size=20) | st.sampled_from(
    ["users:1", "settings:a", "nope:1", "{users:1}@x", "{users:1}@"]
)
REQUESTS = st.one_of(
    st.tuples(st.sampled_from(sorted(set(METHODS) - {"Watch"})), st.binary(max_size=60)),
    st.builds(
        lambda key, at, track: (
            "Get",
            v1.GetRequest(key=key, consistency=at, track=track).SerializeToString(),
        ),
        TEXT,
        st.builds(v1.Consistency, at_least=TEXT) | st.builds(v1.Consistency, exactly=TEXT),
        st.booleans(),
    ),
    st.builds(
        lambda keys, one: ("GetMany", v1.GetManyRequest(keys=keys, one_snapshot=one).SerializeToString()),
        st.lists(TEXT, max_size=5),
        st.booleans(),
    ),
    st.builds(
        lambda deeds: ("Write", v1.WriteRequest(deeds=deeds).SerializeToString()),
        st.lists(st.builds(v1.Deed, key=TEXT, put=st.binary(max_size=8)), max_size=4),
    ),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(REQUESTS, min_size=1, max_size=8))
def test_whatever_is_sent_is_answered_or_refused_in_words(
    asked: list[tuple[str, bytes]], caplog: Any
) -> None:
    """No request is a defect, whatever its bytes; and the door goes on."""

    async def ask() -> None:
        async with in_memory() as (_, calling):
            for method, data in asked:
                try:
                    METHODS[method][1].FromString(await calling.raw(method, data))
                except grpc.aio.AioRpcError as error:
                    assert error.code() not in (Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED), error
            await calling.Token()

    asyncio.run(ask())
    assert "defect" not in caplog.text


REFLECTION = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
STANDARD = ("grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch", REFLECTION)


@pytest.mark.parametrize("method", STANDARD)
async def test_what_is_no_request_of_a_standard_service_is_refused_in_words(method: str, caplog: Any) -> None:
    """As with our own: nobody fills the log with tracebacks, whether or not he holds a key."""
    async with in_memory() as (_, calling):
        if method.endswith("/Check"):
            call = calling.channel.unary_unary(f"/{method}")(b"\xff", timeout=WITHIN_S)
        else:
            call = calling.channel.stream_stream(f"/{method}")(iter([b"\xff"]), timeout=WITHIN_S).read()
        with pytest.raises(grpc.aio.AioRpcError, match="request is no grpc") as refused:
            await call
        assert refused.value.code() is Code.INVALID_ARGUMENT
        assert not caplog.records


def test_an_unknown_cache_of_the_node_in_memory_is_refused_as_the_real_one_does() -> None:
    """The double keeps to the contract."""
    with pytest.raises(CacheUnknown):
        Memory().peek(parse(b"nope:1")[0])
