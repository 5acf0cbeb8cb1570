"""A channel to a real peer over loopback: coalescing, deadlines, bounds, errors, an orderly end."""

import asyncio
import struct
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest

from peer_process import (
    BREAK,
    ECHO,
    FAR_S,
    GROW,
    LATER,
    LOOPBACK,
    NEVER,
    QUICK,
    REFUSE,
    RING,
    answer,
    channel,
    hello,
    serving,
    until,
)
from peers.bounds import Bounds
from peers.channel import Channel
from peers.connection import Traffic
from peers.conversation import Conversation
from peers.errors import MessageTooLarge, PeerForeign, PeerIncompatible, PeerSilent, PeerUnreachable
from peers.flat import unpack
from peers.inbox import Asker
from peers.kinship import fingerprints
from peers.outbox import Pending
from peers.service import Service
from peers.transport import METHOD, SERVICE
from peers.wire import NEWEST, Answers, Call, Calls, decode, encode
from snapring.errors import DeadlineExceeded, NodeStopping, Overloaded, SnapringError, VersionMismatch


def ask(to: Channel, kind: int, body: bytes = b"", timeout_s: float = FAR_S) -> "asyncio.Task[bytes]":
    return asyncio.create_task(to.call(Call(kind=kind, body=body, timeout_s=timeout_s)))


def under_way(service: Service) -> int:
    return sum(conversation.under_way for conversation in service._conversations)


class Desk:
    """A handler whose calls wait until the test lets them go; ``calls`` as they came, ``cancelled`` of them."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.cancelled: list[bytes] = []
        self.open = asyncio.Event()

    def __call__(self, call: Call, asker: Asker) -> bytes | Coroutine[Any, Any, bytes]:
        self.calls.append(call)
        return call.body if call.kind == ECHO else self._wait(call)

    async def _wait(self, call: Call) -> bytes:
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(call.body)
            raise
        return call.body


async def test_each_caller_gets_its_own_answer() -> None:
    """A thousand at once, answered at once or later."""
    async with serving() as service, channel(service.port) as to:
        asked = [ask(to, number % 2, b"%d" % number) for number in range(1000)]
        assert await asyncio.gather(*asked) == [b"%d" % number for number in range(1000)]
        assert to.traffic.calls == service.traffic.calls == 1000


async def test_calls_made_meanwhile_go_together() -> None:
    """A thousand calls take a few messages each way, none of more calls than a batch may have."""
    bounds = replace(QUICK, max_batch_calls=100)
    async with serving(bounds=bounds) as service, channel(service.port, bounds) as to:
        await ask(to, ECHO)
        before = to.traffic.batches
        await asyncio.gather(*(ask(to, ECHO) for _ in range(1000)))
        assert to.traffic.batches - before == 10
        assert service.traffic.batches <= 12


async def test_while_many_are_under_way_the_next_ones_gather() -> None:
    """Until they are as many, or for a moment: then they go though nothing is answered. One alone goes at once."""
    desk, patient = Desk(), replace(QUICK, gather_s=FAR_S, pulse_s=FAR_S)
    async with serving(desk) as service, channel(service.port, patient) as to:
        await ask(to, ECHO)
        slow = [ask(to, LATER)]
        await until(lambda: len(desk.calls) == 2)
        slow += [ask(to, LATER), ask(to, LATER)]
        await until(lambda: len(desk.calls) == 4)
        slow += [ask(to, LATER), ask(to, LATER)]
        await asyncio.wait(slow, timeout=0.05)
        assert (to._outbox.waiting, len(desk.calls)) == (2, 4)
        slow.append(ask(to, LATER))
        await until(lambda: len(desk.calls) == 7)
        desk.open.set()
        await asyncio.gather(*slow)


async def test_those_that_gather_go_after_a_moment() -> None:
    """Behind slow calls, however few they are."""
    desk = Desk()
    async with serving(desk) as service, channel(service.port, replace(QUICK, gather_s=0.01)) as to:
        await ask(to, ECHO)
        slow = [ask(to, LATER) for _ in range(9)]
        await until(lambda: len(desk.calls) == 10)
        assert await ask(to, ECHO, b"behind them") == b"behind them"
        assert not any(call.done() for call in slow)
        desk.open.set()
        await asyncio.gather(*slow)


async def test_each_call_ends_by_its_own_deadline() -> None:
    """Whatever the order in which they were made."""
    desk = Desk()
    async with serving(desk) as service, channel(service.port) as to:
        await ask(to, ECHO)
        made = {limit_s: ask(to, LATER, timeout_s=limit_s) for limit_s in (FAR_S, 0.1, 0.02, 0.05)}
        done: list[float] = []
        for limit_s, task in made.items():
            task.add_done_callback(lambda _, limit_s=limit_s: done.append(limit_s))
        await asyncio.wait([made[0.1], made[0.05], made[0.02]])
        assert done == [0.02, 0.05, 0.1]
        assert (to.silences, len(to._outbox)) == (3, 1)
        desk.open.set()
        assert await made[FAR_S] == b""


class Broken(Pending):
    """A caller with a defect."""

    def answered(self, body: bytes) -> None:
        raise ZeroDivisionError

    def failed(self, error: SnapringError) -> None:
        raise ZeroDivisionError


async def test_a_defect_of_one_caller_reaches_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Neither an answer, nor a silence, nor the loss of the connection that it hears of."""
    async with serving() as service, channel(service.port) as to:
        await ask(to, ECHO)
        for kind, timeout_s in ((ECHO, FAR_S), (NEVER, 0.01), (NEVER, FAR_S)):
            to.ask(Broken(Call(kind, b"", timeout_s)))
        asked = [ask(to, ECHO, b"next"), ask(to, NEVER)]
        assert await asked[0] == b"next"
        await until(lambda: to.silences == 1)
        await service.stop(0.0)
        with pytest.raises(PeerUnreachable):
            await asked[1]
    assert len([record for record in caplog.records if record.exc_info]) == 3


@pytest.mark.parametrize("newest", [1, 2])
async def test_each_peer_is_spoken_to_as_it_understands(newest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older one gets no messages in columns, neither calls nor answers."""
    heard: list[object] = []

    def listening(data: bytes) -> object:
        heard.append(unpack(data)[0])
        return decode(data)

    monkeypatch.setattr("peers.conversation.decode", listening)
    monkeypatch.setattr("peers.connection.decode", listening)
    old = replace(hello("peer"), newest=newest)
    async with serving(hello=lambda: old) as service, channel(service.port) as to:
        assert await ask(to, ECHO, b"x") == b"x"
        assert heard == [0, 0, *((1, 2) if newest == 1 else (4, 5))]


async def test_a_slow_call_holds_up_no_other_of_its_batch() -> None:
    """The answers of the others come while it is still under way."""
    desk = Desk()
    async with serving(desk) as service, channel(service.port) as to:
        slow, *quick = [ask(to, kind, b"%d" % kind) for kind in (LATER, ECHO, ECHO)]
        assert await asyncio.gather(*quick) == [b"0", b"0"]
        assert len(desk.calls) == 3
        assert not slow.done()
        desk.open.set()
        assert await slow == b"1"


async def test_an_error_of_the_peer_is_raised_here() -> None:
    """With what it knows; a defect of the handler as a plain error that is not retryable."""
    async with serving() as service, channel(service.port) as to:
        with pytest.raises(VersionMismatch) as mismatch:
            await ask(to, REFUSE)
        assert (mismatch.value.key, mismatch.value.version) == ("a key", 7)
        with pytest.raises(SnapringError, match="ZeroDivisionError") as defect:
            await ask(to, BREAK)
        assert type(defect.value) is SnapringError
        assert to.traffic.failures == service.traffic.failures == 2


async def test_a_call_ends_by_its_deadline_on_both_ends() -> None:
    """The caller is released, and the handler is told by being cancelled."""
    desk = Desk()
    async with serving(desk) as service, channel(service.port) as to:
        with pytest.raises(PeerSilent, match="did not answer"):
            await ask(to, LATER, b"late", timeout_s=0.05)
        await until(lambda: desk.cancelled == [b"late"] and under_way(service) == 0)
        assert 0 < desk.calls[0].timeout_s <= 0.05
        assert await ask(to, ECHO, b"next") == b"next"


async def test_the_peer_keeps_the_deadline_by_itself() -> None:
    """An asker that is paused or careless gets an error once the time it gave is over."""
    desk = Desk()
    async with (
        serving(desk) as service,
        grpc.aio.insecure_channel(f"{LOOPBACK}:{service.port}") as raw,
        asyncio.timeout(FAR_S),
    ):
        stream = raw.stream_stream(f"/{SERVICE}/{METHOD}")()
        await stream.write(encode(hello("asker")))
        assert decode(await stream.read()) == hello("peer")
        await stream.write(encode(Calls(RING, [(7, LATER, 50_000, b"late")])))
        answers = decode(await stream.read())
        assert isinstance(answers, Answers)
        ((number, code, _),) = answers.rows
        assert (number, code) == (7, DeadlineExceeded.code)
        assert desk.cancelled == [b"late"]


async def test_a_call_without_time_is_not_carried_out() -> None:
    """It is not even begun by the peer."""
    desk = Desk()
    async with serving(desk) as service, channel(service.port) as to:
        await ask(to, ECHO)
        with pytest.raises(DeadlineExceeded):
            await ask(to, LATER, timeout_s=0.0)
        await ask(to, ECHO)
        assert [call.kind for call in desk.calls] == [ECHO, ECHO]


async def test_a_cancelled_caller_frees_its_place_on_both_ends() -> None:
    """The peer's handler is cancelled; the place here and there is for the next."""
    desk = Desk()
    bounds = replace(QUICK, max_under_way=1)
    async with serving(desk, bounds) as service, channel(service.port, bounds) as to:
        leaving = ask(to, LATER, b"first")
        await until(lambda: desk.calls)
        following = ask(to, ECHO, b"second")
        leaving.cancel()
        assert await following == b"second"
        await until(lambda: desk.cancelled == [b"first"] and under_way(service) == 0)


async def test_more_than_may_wait_is_refused() -> None:
    """With a hint when to retry; those who wait are not harmed."""
    bounds = replace(QUICK, max_waiting=2, max_under_way=1)
    desk = Desk()
    async with serving(desk, bounds) as service, channel(service.port, bounds) as to:
        first = ask(to, LATER, b"1")
        await until(lambda: desk.calls)
        waiting = [ask(to, LATER, b"2"), ask(to, LATER, b"3")]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refusal:
            await ask(to, LATER)
        assert refusal.value.retry_after_s > 0
        desk.open.set()
        assert await asyncio.gather(first, *waiting) == [b"1", b"2", b"3"]


async def test_the_peer_refuses_more_than_it_takes_of_one_asker() -> None:
    """Whatever the asker's own bounds are, and only that asker."""
    desk = Desk()
    async with (
        serving(desk, replace(QUICK, max_under_way=2)) as service,
        channel(service.port) as greedy,
        channel(service.port, hello=lambda: hello("other")) as other,
    ):
        taken = [ask(greedy, LATER), ask(greedy, LATER)]
        await until(lambda: len(desk.calls) == 2)
        with pytest.raises(Overloaded, match="under way here"):
            await ask(greedy, LATER)
        assert await ask(other, ECHO, b"fine") == b"fine"
        desk.open.set()
        await asyncio.gather(*taken)


async def test_a_body_over_the_limit_is_refused_and_one_at_the_limit_passes() -> None:
    """Both ways, and the connection lives on."""
    bounds = replace(QUICK, max_body_bytes=300_000)
    async with serving(bounds=bounds) as service, channel(service.port, bounds) as to:
        assert len(await ask(to, ECHO, bytes(300_000))) == 300_000
        with pytest.raises(MessageTooLarge):
            await ask(to, ECHO, bytes(300_001))
        with pytest.raises(MessageTooLarge, match="answer of 300001"):
            await ask(to, GROW, struct.pack("!I", 300_001))
        assert (await ask(to, ECHO, b"still here"), to.connects) == (b"still here", 1)


async def test_many_large_answers_are_held_within_bounds() -> None:
    """What is over the bytes that may be held is refused, the rest is answered; nothing is lost."""
    bounds = replace(QUICK, max_body_bytes=100_000, max_held_bytes=250_000)
    async with serving(bounds=bounds) as service, channel(service.port, bounds) as to:
        asked = [ask(to, GROW, struct.pack("!I", 100_000)) for _ in range(20)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {bytes, Overloaded}


class Unread:
    """The stream of an asker that calls without end and fetches nothing before ``room`` is set."""

    def __init__(self) -> None:
        self.reads = self.written = 0
        self.room = asyncio.Event()

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        self.reads += 1
        if self.reads == 1:
            return encode(hello("asker"))
        return encode(Calls(RING, [(self.reads * 5 + place, ECHO, 10**9, b"x") for place in range(5)]))

    async def write(self, data: bytes) -> None:
        if isinstance(decode(data), Answers):
            await self.room.wait()
            self.written += 1


def conversing(stream: Unread, bounds: Bounds) -> Conversation:
    """The answering end of ``stream``."""
    return Conversation(
        stream,
        handler=answer,
        bounds=bounds,
        hello=lambda: hello("peer"),
        stopping=lambda: False,
        traffic=Traffic(),
    )


@pytest.mark.parametrize("fetches", [True, False])
async def test_a_message_on_its_way_is_whole_before_the_stream_ends(fetches: bool) -> None:
    """As gRPC takes no status meanwhile; but who never fetches it is not waited for."""
    stream = Unread()
    conversation = conversing(stream, replace(QUICK, handshake_s=FAR_S if fetches else 0.01))
    task = asyncio.create_task(conversation.run())
    await until(lambda: conversation._sending and conversation.asker)
    conversation.end()
    if fetches:
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done()
        stream.room.set()
    await task
    assert stream.written == fetches


async def test_who_fetches_no_answers_is_not_read_from() -> None:
    """No more answers are held than the bound says and one message brings; once they are fetched it goes on."""
    stream = Unread()
    conversation = conversing(stream, replace(QUICK, max_under_way=10))
    task = asyncio.create_task(conversation.run())
    for _ in range(200):
        await asyncio.sleep(0)
    assert stream.reads <= 6
    assert len(conversation._answers) <= 15
    stream.room.set()
    await until(lambda: stream.reads > 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_peers_introduce_themselves_and_say_what_changes() -> None:
    """Each learns who the other is, and that it begins to drain."""
    draining = False
    askers: list[Asker] = []

    def note(call: Call, asker: Asker) -> bytes:
        askers.append(asker)
        return call.body

    async with (
        serving(note, hello=lambda: hello("peer", draining=draining)) as service,
        channel(service.port, hello=lambda: hello("asker", draining=draining)) as to,
    ):
        await ask(to, ECHO)
        assert to.peer == hello("peer")
        assert askers[0].hello == hello("asker")
        draining = True
        service.announce()
        to.announce()
        await until(lambda: to.peer == hello("peer", draining=True) and askers[0].hello.draining)
        assert await ask(to, ECHO, b"as ever") == b"as ever"


async def test_the_epoch_is_in_every_message_and_a_mismatch_is_counted() -> None:
    """Both ends see that their rings differ, and answer all the same."""
    rings = {"asker": b"one", "peer": b"one"}
    async with (
        serving(hello=lambda: hello("peer", ring=rings["peer"])) as service,
        channel(service.port, hello=lambda: hello("asker", ring=rings["asker"])) as to,
    ):
        await ask(to, ECHO)
        assert (to.traffic.epoch_mismatches, service.traffic.epoch_mismatches) == (0, 0)
        rings["asker"] = b"two"
        assert await ask(to, ECHO, b"x") == b"x"
        assert (to.traffic.epoch_mismatches, service.traffic.epoch_mismatches) == (1, 1)


async def test_peers_without_a_common_version_say_so() -> None:
    """A call fails with the reason, and is not sent."""
    newer = replace(hello("peer"), oldest=8, newest=9)
    async with serving(hello=lambda: newer) as service, channel(service.port) as to:
        with pytest.raises(PeerUnreachable, match="upgrade the older one"):
            await ask(to, ECHO)
        assert isinstance(to.last_error, PeerIncompatible)
        assert service.traffic.calls == 0


async def test_a_newer_peer_that_knows_our_version_speaks_it() -> None:
    """Both learn which one it is."""
    newer = replace(hello("peer"), oldest=1, newest=NEWEST + 1)
    async with serving(hello=lambda: newer) as service, channel(service.port) as to:
        assert await ask(to, ECHO, b"x") == b"x"
        assert to.version == NEWEST


async def test_another_node_at_the_address_is_not_the_peer() -> None:
    """Addresses are given to new pods; a call for one node never reaches another."""
    async with serving(hello=lambda: hello("stranger")) as service, channel(service.port) as to:
        with pytest.raises(PeerUnreachable, match="stranger is at this address"):
            await ask(to, ECHO)
        assert service.traffic.calls == 0


async def test_a_closing_channel_finishes_what_is_under_way() -> None:
    """New calls are refused meanwhile."""
    desk = Desk()
    async with serving(desk) as service, channel(service.port) as to:
        early = ask(to, LATER, b"early")
        await until(lambda: desk.calls)
        closing = asyncio.create_task(to.close(FAR_S))
        await asyncio.sleep(0)
        with pytest.raises(PeerUnreachable, match="closed"):
            await ask(to, ECHO)
        desk.open.set()
        assert await early == b"early"
        await closing
        await until(lambda: service.askers == 0)


async def test_a_closing_channel_waits_no_longer_than_told() -> None:
    """Then the rest fails, and the peer's handler is cancelled."""
    desk = Desk()
    async with serving(desk) as service, channel(service.port) as to:
        early = ask(to, LATER, b"early", timeout_s=10 * FAR_S)
        await until(lambda: desk.calls)
        await to.close(0.01)
        with pytest.raises(PeerUnreachable, match="closed"):
            await early
        await until(lambda: desk.cancelled == [b"early"])


async def test_a_stopping_service_answers_what_is_under_way_and_refuses_the_rest() -> None:
    """The refusal is typed; the early call gets its answer before the stream ends."""
    desk = Desk()
    async with serving(desk) as service, channel(service.port) as to:
        early = ask(to, LATER, b"early")
        await until(lambda: desk.calls)
        stopping = asyncio.create_task(service.stop(FAR_S))
        await asyncio.sleep(0)
        with pytest.raises(NodeStopping):
            await ask(to, ECHO)
        desk.open.set()
        assert await early == b"early"
        await stopping
        await until(lambda: not to.reachable)
        with pytest.raises(PeerUnreachable):
            await ask(to, ECHO)


async def test_a_stopping_service_waits_no_longer_than_told() -> None:
    """A call that never ends fails with the hop, not with an answer."""
    async with serving() as service, channel(service.port) as to:
        endless = ask(to, NEVER)
        await until(lambda: under_way(service) == 1)
        await service.stop(0.01)
        with pytest.raises(PeerUnreachable):
            await endless


async def test_state_and_counters_can_be_read() -> None:
    """One line each for a log."""
    async with serving() as service, channel(service.port) as to:
        await asyncio.gather(*(ask(to, LATER) for _ in range(3)))
        assert f"<Channel to peer at ipv4:127.0.0.1:{service.port}: connected; <Outbox 0 waiting, 0" in repr(
            to
        )
        assert "calls=3" in repr(service)
        assert to.traffic.bytes_sent == service.traffic.bytes_received > 0
    assert "stopping" in repr(service)


async def test_an_idle_connection_is_kept() -> None:
    """The service takes as many signs of life as the channel asks for: gRPC would hang up after the third."""
    async with serving() as service, channel(service.port) as idle:
        assert await ask(idle, ECHO, b"x") == b"x"
        await asyncio.sleep(5 * QUICK.keepalive_s)
        assert (idle.connects, idle.reachable) == (1, True)


async def test_a_peer_with_another_secret_is_not_asked() -> None:
    """It is of another cluster, or configured wrongly; one that says nothing of its secrets is older."""
    mine, theirs = fingerprints([b"a secret of ours"]), fingerprints([b"another secret!!"])
    for told, error in ((theirs, PeerForeign), (mine, None), (b"", None)):
        said = replace(hello("peer"), secrets=told)
        own = replace(hello("asker"), secrets=mine)
        async with (
            serving(hello=lambda said=said: said) as service,
            channel(service.port, hello=lambda own=own: own) as made,
        ):
            if error is None:
                assert await made.call(Call(ECHO, b"body", FAR_S)) == b"body"
            else:
                with pytest.raises(PeerUnreachable, match="peer has none of this node's secrets"):
                    await made.call(Call(ECHO, b"body", FAR_S))
                assert (type(made.last_error), service.traffic.calls) == (error, 0)
