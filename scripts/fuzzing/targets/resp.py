"""Streams of bytes at the RESP door: each command is answered in its turn, or the connection closed with an error.

An input's first three bytes say at which door and how it is sent, the rest is sent. Beside it a bystander on a
connection of his own goes on being answered, and nothing is left of who came when he is gone.
"""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, Final

import hiredis
import msgpack

from scripts.fuzzing import resp_model
from scripts.fuzzing.ground import CANARY, RESP_BOUNDS, guards_canary
from scripts.fuzzing.resp_client import RespClient
from scripts.fuzzing.resp_doors import Apart, Here
from scripts.fuzzing.resp_streams import (
    COMMANDS,
    ENCRYPTED,
    GARBAGE,
    GUARDED,
    HASTY,
    HEAD_BYTES,
    KEYS,
    OPEN,
    SLOW,
    WORDS,
    changed,
    command,
    pieces,
    seeds,
)
from scripts.fuzzing.target import Stand, Target, hold
from snapring.errors import KeyInvalid
from snapring.keys import DEFAULT_TENANT, parse

_LOGIN: Final = {"max_bytes": 16 * 1024, "max_words": 10}


def made(stand: Stand) -> Target:
    """The target."""
    return Resp(Apart(stand.port) if stand.port else Here(stand))


class Resp(Target):
    """Each input is a client of its own, who comes, sends and goes."""

    max_bytes = 8192
    words = (
        *COMMANDS,
        *KEYS[:16],
        *(b"\r\n$%d\r\n%b" % (len(word), word) for word in WORDS),
        b"\r\n*2",
        b"*1\r\n$4\r\nPING\r\n",
    )

    def __init__(self, place: Here | Apart) -> None:
        self._place = place
        place.run(self._begun())

    def seeds(self) -> Iterable[bytes]:
        """Conversations at each door."""
        return seeds(self._place.keys)

    def attempt(self, data: bytes) -> None:
        """One client comes, sends and goes; the bystanders are asked meanwhile."""
        self._place.run(self._attempt(data))

    def changed(self, data: bytes, random: Random) -> bytes | None:
        """A sound stream mostly."""
        return changed(data, random)

    async def _begun(self) -> None:
        self._ports = await self._place.begin()
        self._bystanders = [await self._arrived(number) for number in range(len(self._ports))]
        await self._answered(self._bystanders[OPEN], command(b"SET", b"zeta/settings:secret", CANARY), b"OK")
        for bystander in self._bystanders[GUARDED:]:
            await self._answered(bystander, command(b"AUTH", self._place.keys["reader"]), b"OK")
        for bystander in self._bystanders:
            await self._answered(bystander, command(b"PING"), b"PONG")
        await self._place.begun()

    async def _arrived(self, door: int) -> RespClient:
        return await RespClient.come(self._ports[door], self._place.tls if door == ENCRYPTED else None)

    async def _attempt(self, data: bytes) -> None:
        manner, first, second = data[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0")
        stream, door = data[HEAD_BYTES:], manner & 3 if len(self._ports) > 1 else OPEN
        if door == GARBAGE:
            await self._unwelcome(pieces(stream, first, second))
        else:
            await self._conversation(door, manner, stream, pieces(stream, first, second))
        for bystander in self._bystanders:
            await self._answered(bystander, command(b"PING"), b"PONG")
        await self._place.settled()

    async def _conversation(self, door: int, manner: int, stream: bytes, pieces: Sequence[bytes]) -> None:
        client = await self._arrived(door)
        try:
            await client.send(pieces, slowly=bool(manner & SLOW))
            if not manner & HASTY:
                await self._judged(client, door, stream, slow=bool(manner & SLOW))
        finally:
            client.leave()

    async def _judged(self, client: RespClient, door: int, stream: bytes, *, slow: bool) -> None:
        """Hold what comes back to what was sent; before it is known who asks, bounds are others."""
        whole = {"max_bytes": RESP_BOUNDS["max_request_bytes"], "max_words": RESP_BOUNDS["max_args"]}
        said = resp_model.read(stream, **whole)
        commands, quits = _until_quit(said.commands)
        if slow or (door != OPEN and resp_model.read(stream, **_LOGIN) != said):
            await client.until(len(resp_model.read(stream, **_LOGIN).commands))
        elif quits or said.wrong:
            # Under TLS the door cannot say that it has ended: it waits a moment for the client to.
            await client.until(len(commands) + (not quits) if door == ENCRYPTED else None)
            hold(
                len(client.replies) == len(commands) + (said.wrong and not quits),
                f"{len(client.replies)} replies to {len(commands)} commands",
            )
            hold(
                quits or str(client.replies[-1]).startswith("ERR Protocol error"),
                "the connection ends without an error",
            )
        else:
            await client.until(len(commands))
            hold(not client.ended, "the connection is closed, and nothing was wrong")
            hold(len(client.replies) == len(commands), "there are more replies than commands")
        self._answers(client, door, commands)
        if door != OPEN:
            guards_canary(stream, bytes(client.received))

    def _answers(self, client: RespClient, door: int, commands: Sequence[Sequence[bytes]]) -> None:
        for words, reply in zip(commands, client.replies, strict=False):
            if isinstance(reply, hiredis.ReplyError):
                text = str(reply)
                hold(not text.startswith("INTERNAL"), f"a defect at {words!r:.200}")
                hold(
                    door != OPEN or words[0].upper() not in (b"PING", b"ECHO") or "arguments" in text,
                    f"{words!r:.100}: {text}",
                )
            else:
                _fits(words, reply)

    async def _unwelcome(self, pieces: Sequence[bytes]) -> None:
        """Who speaks no TLS to a door that speaks nothing else."""
        client = await RespClient.come(self._ports[ENCRYPTED])
        await client.send(pieces)
        client.leave()

    async def _answered(self, bystander: RespClient, sent: bytes, reply: bytes) -> None:
        hold(not bystander.ended, "a bystander's connection is closed")
        await bystander.send([sent])
        await bystander.until(1)
        found = bystander.replies.pop(0)
        bystander.received.clear()
        hold(found in (reply, reply.decode()) and not bystander.replies, f"a bystander is told {found!r}")


def _until_quit(commands: Sequence[list[bytes]]) -> tuple[Sequence[list[bytes]], bool]:
    for at, words in enumerate(commands, 1):
        if words[0].upper() == b"QUIT":
            return commands[:at], True
    return commands, False


def _fits(words: Sequence[bytes], reply: Any) -> None:
    """Whether ``reply`` may be the one to ``words``, as far as they say."""
    name, rest = words[0].upper(), words[1:]
    if name == b"ECHO" or (name == b"PING" and rest):
        hold(reply == rest[0], f"{words!r:.100} is answered with {reply!r:.100}")
    elif name == b"PING":
        hold(reply in ("PONG", b"PONG"), f"PING is answered with {reply!r:.100}")
    elif name in (b"MGET", b"SNAP.MGET"):
        hold(name != b"MGET" or len(reply) == len(rest), f"{len(rest)} keys, and {len(reply)} values")
    elif name == b"GET" and reply is not None:
        _is_said(rest[0], reply)


def _is_said(text: bytes, reply: Any) -> None:
    try:
        key, _ = parse(text)
    except KeyInvalid as error:
        raise AssertionError(f"{text!r} is no key and has a value") from error
    if key.cache == "said" and key.tenant == DEFAULT_TENANT:
        hold(msgpack.unpackb(reply) == {"v": key.args[0]}, f"{text!r} is answered with {reply!r:.100}")
