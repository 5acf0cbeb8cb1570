"""A channel to a peer that is paused, killed, restarted or hostile: in time, typed, and it recovers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest

from peer_process import (
    ECHO,
    FAR_S,
    LATER,
    LOOPBACK,
    NEVER,
    QUICK,
    SLOW,
    PeerProcess,
    channel,
    hello,
    serving,
    until,
)
from peers.channel import Channel
from peers.errors import PeerError, PeerSilent, PeerUnreachable
from peers.transport import METHOD, SERVICE
from peers.wire import Answers, Call, Calls, decode, encode
from snapring.errors import NodeStopping

PATIENT = replace(QUICK, pulse_s=FAR_S, keepalive_s=FAR_S)
"""Nothing but a call's own deadline ends its wait."""


@pytest.fixture
def peer() -> Iterator[PeerProcess]:
    """A peer that may be paused and killed."""
    with PeerProcess() as running:
        yield running


def ask(to: Channel, kind: int, body: bytes = b"", timeout_s: float = FAR_S) -> "asyncio.Task[bytes]":
    return asyncio.create_task(to.call(Call(kind=kind, body=body, timeout_s=timeout_s)))


async def recovered(to: Channel) -> bytes:
    """The first answer that comes again."""
    async with asyncio.timeout(FAR_S):
        while True:
            try:
                return await to.call(Call(kind=ECHO, body=b"again", timeout_s=FAR_S))
            except PeerUnreachable:
                await asyncio.sleep(0.01)


async def test_callers_of_a_paused_peer_are_released_by_their_deadlines(peer: PeerProcess) -> None:
    """In the order of their deadlines, while the peer is still paused; then the same connection goes on."""
    async with channel(peer.port, PATIENT) as to:
        await ask(to, ECHO)
        peer.pause()
        ended: list[bytes] = []
        asked = {name: ask(to, ECHO, name, timeout_s) for name, timeout_s in ((b"late", 0.4), (b"soon", 0.2))}
        for name, task in asked.items():
            task.add_done_callback(lambda _, name=name: ended.append(name))
        outcomes = await asyncio.gather(*asked.values(), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [PeerSilent, PeerSilent]
        assert ended == [b"soon", b"late"]
        peer.resume()
        assert await ask(to, ECHO, b"on") == b"on"
        assert to.connects == 1


async def test_a_paused_peer_is_noticed_before_the_deadline_and_found_again(peer: PeerProcess) -> None:
    """Callers with plenty of time hear of it, later ones at once; after the pause there is a new connection."""
    async with channel(peer.port) as to:
        await ask(to, ECHO)
        peer.pause()
        caller, patient = ask(to, ECHO), ask(to, LATER)
        for task in (caller, patient):
            with pytest.raises(PeerUnreachable, match="sign of life"):
                await task
        assert not to.reachable
        with pytest.raises(PeerUnreachable):
            await ask(to, ECHO)
        assert to.refused == 1
        peer.resume()
        assert await recovered(to) == b"again"
        assert to.connects == 2


async def test_a_slow_answer_is_not_taken_for_a_silent_peer(peer: PeerProcess) -> None:
    """The peer gives signs of life for as long as the call takes."""
    async with channel(peer.port) as to:
        endless = ask(to, NEVER)
        await until(lambda: to.traffic.batches >= 6)  # hello, call, and four signs of life asked for
        assert not endless.done()
        assert to.connects == 1
        endless.cancel()


async def test_a_killed_peer_fails_its_callers_and_its_successor_is_found(peer: PeerProcess) -> None:
    """What was under way is uncertain, and says so; nothing is asked twice."""
    async with channel(peer.port) as to:
        asked = [ask(to, NEVER) for _ in range(10)]
        await until(lambda: to.traffic.calls == 10)
        peer.kill9()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {PeerUnreachable}
        peer.start()
        assert await recovered(to) == b"again"
        assert to.traffic.calls == 11


async def test_a_peer_that_is_told_to_end_answers_first(peer: PeerProcess) -> None:
    """SIGTERM: what is under way gets its answer, what comes later a typed refusal, nothing is lost."""
    async with channel(peer.port) as to:
        early = ask(to, SLOW, b"early")
        assert await ask(to, ECHO, b"begun") == b"begun"  # so the call before it is under way there
        peer.terminate()
        refused = 0
        while not early.done():
            try:
                await ask(to, ECHO)
            except NodeStopping:
                refused += 1
            except PeerUnreachable:
                break  # all is answered, so the stream has ended
        assert await early == b"early"
        assert refused
        await until(lambda: not to.reachable)


async def test_nobody_listens_there() -> None:
    """Refused at once, and named."""
    async with serving() as service:
        port = service.port
    async with channel(port) as to:
        with pytest.raises(PeerUnreachable, match="peer: UNAVAILABLE"):
            await ask(to, ECHO)
        assert "UNAVAILABLE" in repr(to)


async def test_an_address_that_accepts_and_says_nothing(peer: PeerProcess) -> None:
    """The handshake has a deadline of its own, so the wait for a first connection has an end."""
    peer.pause()
    async with channel(peer.port) as to:
        with pytest.raises(PeerUnreachable):
            await ask(to, ECHO)
        peer.resume()
        assert await recovered(to) == b"again"


async def test_a_caller_may_be_out_of_time_before_there_is_a_connection(peer: PeerProcess) -> None:
    """Its call is never sent."""
    peer.pause()
    async with channel(peer.port, replace(QUICK, handshake_s=FAR_S)) as to:
        with pytest.raises(PeerSilent):
            await ask(to, ECHO, timeout_s=0.05)
        assert to.traffic.calls == 0


@asynccontextmanager
async def speaking(*messages: bytes) -> AsyncIterator[int]:
    """A server that says these messages, one for each that it gets, and then waits; its port."""

    async def speak(_: object, stream: Any) -> None:
        for message in messages:
            await stream.read()
            await stream.write(message)
        await asyncio.Event().wait()

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    method = grpc.stream_stream_rpc_method_handler(speak)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})])
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


HELLO = encode(hello("peer"))


@pytest.mark.parametrize(
    "messages",
    [
        [b"\xc1 rubbish"],
        [encode(Answers(b"ring", []))],
        [HELLO, b""],
        [HELLO, b"\xdc\xff\xff" * 100],
        [HELLO, encode(Calls(b"ring", [(1, 1, 1, b"")]))],
        [HELLO, encode(Answers(b"ring", [(1, "CODE", b"\xc1")]))],
        [HELLO, b"x" * (QUICK.max_message_bytes + 1)],
    ],
    ids=lambda messages: f"{len(messages)} {messages[-1][:9]!r}",
)
async def test_a_peer_that_talks_nonsense_is_unreachable(messages: list[bytes]) -> None:
    """The caller gets a typed error, never an answer, and the channel goes on trying."""
    async with speaking(*messages) as port, channel(port) as to:
        with pytest.raises(PeerUnreachable):
            await ask(to, ECHO)
        await until(lambda: isinstance(to.last_error, PeerError))


async def test_an_answer_to_nobody_is_passed_over() -> None:
    """A number that is not under way, whoever waits for another."""
    answers = encode(Answers(b"ring", [(99, None, b"other"), (1, None, b"mine"), (1, None, b"twice")]))
    async with speaking(HELLO, answers) as port, channel(port) as to:
        assert await ask(to, ECHO) == b"mine"


@pytest.mark.parametrize(
    "messages",
    [
        [b"\xc1 rubbish"],
        [encode(Calls(b"ring", [(1, ECHO, 1, b"")]))],
        [HELLO, b"\x91" * 100_000],
        [HELLO, encode(Answers(b"ring", []))],
        [HELLO, encode(Calls(b"ring", [(1, NEVER, 10**9, b""), (1, NEVER, 10**9, b"")]))],
        [HELLO, b"x" * (QUICK.max_message_bytes + 1)],
    ],
    ids=lambda messages: f"{len(messages)} {messages[-1][:9]!r}",
)
async def test_an_asker_that_talks_nonsense_is_hung_up_on(messages: list[bytes]) -> None:
    """Its calls are cancelled; another asker notices nothing."""
    async with serving() as service, channel(service.port) as other:
        await ask(other, ECHO)
        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{service.port}") as raw:
            stream = raw.stream_stream(f"/{SERVICE}/{METHOD}")()
            for message in messages:
                await stream.write(message)
            async with asyncio.timeout(FAR_S):
                await _end(stream)
        await until(lambda: service.askers == 1)
        assert await ask(other, ECHO, b"fine") == b"fine"
        assert other.connects == 1


async def test_an_asker_that_says_nothing_is_hung_up_on() -> None:
    """It keeps no place for longer than a handshake may take."""
    async with serving() as service, grpc.aio.insecure_channel(f"{LOOPBACK}:{service.port}") as raw:
        stream = raw.stream_stream(f"/{SERVICE}/{METHOD}")()
        await stream.wait_for_connection()
        async with asyncio.timeout(FAR_S):
            await _end(stream)
        assert service.askers == 0


async def _end(stream: Any) -> None:
    """Read until the other side has ended, one way or another."""
    try:
        while (message := await stream.read()) is not grpc.aio.EOF:
            decode(message)
    except grpc.aio.AioRpcError:
        pass


async def test_one_asker_more_than_the_service_takes_is_refused() -> None:
    """The first keeps its place, and the other learns why."""
    bounds = replace(QUICK, max_connections=1)
    async with serving(bounds=bounds) as service, channel(service.port) as first:
        await ask(first, ECHO)
        async with channel(service.port) as second:
            with pytest.raises(PeerUnreachable, match="RESOURCE_EXHAUSTED"):
                await ask(second, ECHO)
        assert await ask(first, ECHO, b"fine") == b"fine"
