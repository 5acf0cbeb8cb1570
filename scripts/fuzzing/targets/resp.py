"""Streams of bytes at the RESP door: each command is answered in its turn, or the connection closed with an error.

An input's first three bytes say at which door and how it is sent, the rest is sent. Beside it a bystander on a
connection of his own goes on being answered, and nothing is left of who came when he is gone.
"""

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, Final

import hiredis
import msgpack

from cluster.config import RespConfig
from cluster.doors.resp import RespDoor
from scripts.fuzzing import resp_model
from scripts.fuzzing.ground import CANARY, PATIENCE_S, RESP_BOUNDS, Ground, guards_canary
from scripts.fuzzing.resp_client import RespClient
from scripts.fuzzing.target import Stand, Target, hold
from snapring.errors import KeyInvalid
from snapring.keys import DEFAULT_TENANT, parse

_LOGIN: Final = {"max_bytes": 16 * 1024, "max_words": 10}
_OPEN, _GUARDED, _ENCRYPTED, _GARBAGE = range(4)
_HASTY: Final = 4
"""The bit by which a client leaves without reading."""

_MOST_PIECES: Final = 8
_KEYS: Final = (
    b"users:1", b"users:x", b"users:99", b"team:1", b"team:9", b"said:hello", b"said:%00", b"halves:0:1:a", b"halves:2:nan:b",
    b"settings:a", b"settings:b", b"closed", b"acme/settings:a", b"zeta/settings:secret", b"default/zeta/settings:secret",
    b"{users:1}@AQ", b"nobody:1", b"users", b"", b"default/said:x", b"said:" + b"y" * 300,
)  # fmt: skip
_WORDS: Final = (
    b"ATLEAST", b"EXACT", b"STRONG", b"TIMEOUT", b"IFVERSION", b"NX", b"COUNT", b"AFTER", b"TICKET", b"PUT", b"DEL", b"0", b"1",
    b"-1", b"18446744073709551616", b"9" * 30, b"", b"\xff\xfe", b"\r\n", b"ON", b"OFF", b"BCAST", b"OPTIN", b"NOLOOP", b"ID",
    b"INFO", b"LIST", b"SETNAME", b"SETINFO", b"lib-name", b"TRACKING", b"CACHING", b"REDIRECT", b"KEYSLOT", b"SLOTS", b"SHARDS",
    b"NODES", b"DOCS", b"COUNT", b"GETKEYS", b"GET", b"3", b"2", b"AUTH", b"default",
)  # fmt: skip
_COMMANDS: Final = (
    b"GET", b"MGET", b"EXISTS", b"TTL", b"PTTL", b"TYPE", b"SNAP.GET", b"SNAP.MGET", b"SNAP.TOKEN", b"SNAP.PUT", b"SNAP.DEL",
    b"SNAP.WRITE", b"SNAP.KEYS", b"SET", b"SETNX", b"MSET", b"DEL", b"UNLINK", b"HELLO", b"AUTH", b"SELECT", b"CLIENT", b"CLUSTER",
    b"COMMAND", b"CONFIG", b"INFO", b"PING", b"ECHO", b"RESET", b"QUIT", b"DBSIZE", b"TIME", b"READONLY", b"ASKING", b"MULTI",
    b"SUBSCRIBE", b"SCAN", b"KEYS", b"INCR", b"nonsense", b"get", b"Ping",
)  # fmt: skip
_STREAMS: Final[tuple[tuple[tuple[bytes, ...], ...], ...]] = (
    ((b"PING",), (b"ECHO", b"a"), (b"GET", b"users:1"), (b"GET", b"said:x")),
    tuple((b"GET", b"said:%d" % number) for number in range(20)),
    (
        (b"HELLO", b"3"),
        (b"CLIENT", b"TRACKING", b"ON"),
        (b"GET", b"users:1"),
        (b"SET", b"settings:a", b"1"),
        (b"GET", b"settings:a"),
    ),
    ((b"SET", b"settings:a", b"v"), (b"GET", b"settings:a"), (b"DEL", b"settings:a"), (b"ECHO", b"end")),
    (
        (b"SNAP.GET", b"users:1", b"STRONG"),
        (b"SNAP.MGET", b"users:1", b"team:1"),
        (b"SNAP.TOKEN",),
        (b"SNAP.TOKEN", b"TICKET", b"9"),
    ),
    (
        (b"SNAP.PUT", b"settings:a", b"1", b"IFVERSION", b"0"),
        (b"SNAP.KEYS", b"settings:", b"COUNT", b"2"),
        (b"MGET", b"users:1", b"users:2"),
    ),
    (
        (b"CLIENT", b"SETINFO", b"lib-name", b"x"),
        (b"COMMAND", b"DOCS"),
        (b"INFO",),
        (b"CLUSTER", b"SLOTS"),
        (b"QUIT",),
        (b"PING",),
    ),
)
_RAW: Final = (
    b"PING\r\nECHO 'a b'\n", b"GET users:1\r\n*1\r\n$4\r\nPING\r\n", b"*1000000000\r\n", b"*1\r\n$999999999999\r\n", b"*1\r\n*1\r\n",
    b"*-1\r\n", b"$4\r\nPING\r\n", b"~1\r\n", b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", b'ECHO "unfinished\r\n', b"*2\r\n$3\r\nGET\r\n$7\r\nuse",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64, b"\r\n" * 50, b"*0\r\n" * 50, b"*3\r\n$3\r\nSET\r\n",
)  # fmt: skip


def made(stand: Stand) -> Target:
    """The target."""
    return Resp(Apart(stand.port) if stand.port else Here(stand))


class Here:
    """Doors that are open, ask for keys, and speak TLS, before one node of this process."""

    def __init__(self, stand: Stand) -> None:
        self.ground = ground = Ground(stand.database, stand.folder)
        self.keys = ground.access.keys
        self.run = ground.run
        self.tls = ssl.create_default_context(cadata=ground.access.authority.cert_pem.bytes().decode())
        self._doors = [
            RespDoor(
                ground.node,
                RespConfig(port=0, **RESP_BOUNDS),
                guard,
                near=ground.node,
                watching=ground.node.watching,
            )
            for guard in (None, ground.guard(encrypted=False), ground.guard(encrypted=True))
        ]

    async def begin(self) -> list[int]:
        """Listen at the ports that it returns: `_OPEN`, `_GUARDED`, `_ENCRYPTED`."""
        for door in self._doors:
            await door.start()
        return [door.port for door in self._doors]

    async def begun(self) -> None:
        """From now on what is there is there for good: one connection for each door, and tasks."""
        self._lasting = await self.ground.lasting()

    async def settled(self) -> None:
        """Wait until who came is gone with all that was his. Raises `Broken`."""
        async with asyncio.timeout(PATIENCE_S):
            while any(door.connections != 1 for door in self._doors):  # noqa: ASYNC110 -- it has no event
                await asyncio.sleep(0)
        await self.ground.settled(self._lasting)


class Apart:
    """The one open door of a node in a process of its own, of which no more is seen than a client sees."""

    def __init__(self, port: int) -> None:
        self.keys: dict[str, bytes] = {}
        self.tls: ssl.SSLContext | None = None
        self.run = asyncio.new_event_loop().run_until_complete
        self._port = port

    async def begin(self) -> list[int]:
        """It listens already."""
        return [self._port]

    async def begun(self) -> None:
        """Nothing changes."""

    async def settled(self) -> None:
        """Nothing is seen."""


class Resp(Target):
    """Each input is a client of its own, who comes, sends and goes."""

    max_bytes = 8192
    words = (
        *_COMMANDS,
        *_KEYS[:16],
        *(b"\r\n$%d\r\n%b" % (len(word), word) for word in _WORDS),
        b"\r\n*2",
        b"*1\r\n$4\r\nPING\r\n",
    )

    def __init__(self, place: Here | Apart) -> None:
        self._place = place
        place.run(self._begun())

    def seeds(self) -> Iterable[bytes]:
        """Sound conversations at each door, and beginnings of unsound ones."""
        keys = self._place.keys
        for door in (_OPEN, _GUARDED, _ENCRYPTED)[: 3 if keys else 1]:
            for stream in _STREAMS:
                head = command(b"AUTH", keys["writer"]) if door != _OPEN else b""
                yield bytes([door, 0, 0]) + head + b"".join(command(*words) for words in stream)
        for name, key in keys.items():
            sent = (
                (b"HELLO", b"3", b"AUTH", name.encode(), key),
                *((b"GET", key) for key in _KEYS),
                (b"INFO",),
                (b"CONFIG", b"GET", b"*"),
            )
            yield bytes([_GUARDED, 3, 7]) + b"".join(command(*words) for words in sent)
        for raw in _RAW:
            yield from (bytes([door, 1, 2]) + raw for door in (_OPEN, _GARBAGE))
            yield bytes([_OPEN | _HASTY, 5, 5]) + command(b"PING") + raw

    def attempt(self, data: bytes) -> None:
        """One client comes, sends and goes; the bystanders are asked meanwhile."""
        self._place.run(self._attempt(data))

    def changed(self, data: bytes, random: Random) -> bytes | None:
        """A command more, less, again, elsewhere, or with other words: a sound stream mostly."""
        said = resp_model.read(data[3:], max_bytes=1 << 20, max_words=1 << 10).commands
        at = random.randrange(len(said) + 1)
        match random.randrange(6):
            case 0 | 1:
                said.insert(at, _new(random))
            case 2 if said:
                del said[at % len(said)]
            case 3 if said:
                said[at:at] = [said[at % len(said)]] * random.choice((1, 2, 40))
            case 4 if said:
                words = said[at % len(said)]
                words[random.randrange(len(words))] = random.choice(_WORDS + _KEYS)
            case _ if said:
                said[at % len(said)].append(random.choice(_WORDS + _KEYS))
        tail = random.choice((b"", b"", b"", *_RAW))
        head = data[:3].ljust(3, b"\0") if random.random() < 0.7 else random.randbytes(3)
        return head + b"".join(command(*words) for words in said) + tail

    async def _begun(self) -> None:
        self._ports = await self._place.begin()
        self._bystanders = [await self._arrived(number) for number in range(len(self._ports))]
        await self._answered(self._bystanders[_OPEN], command(b"SET", b"zeta/settings:secret", CANARY), b"OK")
        for bystander in self._bystanders[_GUARDED:]:
            await self._answered(bystander, command(b"AUTH", self._place.keys["reader"]), b"OK")
        for bystander in self._bystanders:
            await self._answered(bystander, command(b"PING"), b"PONG")
        await self._place.begun()

    async def _arrived(self, door: int) -> RespClient:
        return await RespClient.come(self._ports[door], self._place.tls if door == _ENCRYPTED else None)

    async def _attempt(self, data: bytes) -> None:
        manner, first, second = data[:3].ljust(3, b"\0")
        stream, door = data[3:], manner & 3 if len(self._ports) > 1 else _OPEN
        if door == _GARBAGE:
            await self._unwelcome(_pieces(stream, first, second))
        else:
            await self._conversation(
                door, stream, _pieces(stream, first, second), hasty=bool(manner & _HASTY)
            )
        for bystander in self._bystanders:
            await self._answered(bystander, command(b"PING"), b"PONG")
        await self._place.settled()

    async def _conversation(self, door: int, stream: bytes, pieces: Sequence[bytes], *, hasty: bool) -> None:
        client = await self._arrived(door)
        try:
            await client.send(pieces)
            if not hasty:
                await self._judged(client, door, stream)
        finally:
            client.leave()

    async def _judged(self, client: RespClient, door: int, stream: bytes) -> None:
        """Hold what comes back to what was sent; before it is known who asks, bounds are others."""
        whole = {"max_bytes": RESP_BOUNDS["max_request_bytes"], "max_words": RESP_BOUNDS["max_args"]}
        said = resp_model.read(stream, **whole)
        commands, quits = _until_quit(said.commands)
        if door != _OPEN and resp_model.read(stream, **_LOGIN) != said:
            await client.until(len(resp_model.read(stream, **_LOGIN).commands))
        elif quits or said.wrong:
            # Under TLS the door cannot say that it has ended: it waits a moment for the client to.
            await client.until(len(commands) + (not quits) if door == _ENCRYPTED else None)
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
        if door != _OPEN:
            guards_canary(stream, bytes(client.received))

    def _answers(self, client: RespClient, door: int, commands: Sequence[Sequence[bytes]]) -> None:
        for words, reply in zip(commands, client.replies, strict=False):
            if isinstance(reply, hiredis.ReplyError):
                text = str(reply)
                hold(not text.startswith("INTERNAL"), f"a defect at {words!r:.200}")
                hold(
                    door != _OPEN or words[0].upper() not in (b"PING", b"ECHO") or "arguments" in text,
                    f"{words!r:.100}: {text}",
                )
            else:
                _fits(words, reply)

    async def _unwelcome(self, pieces: Sequence[bytes]) -> None:
        """Who speaks no TLS to a door that speaks nothing else."""
        client = await RespClient.come(self._ports[_ENCRYPTED])
        await client.send(pieces)
        client.leave()

    async def _answered(self, bystander: RespClient, sent: bytes, reply: bytes) -> None:
        hold(not bystander.ended, "a bystander's connection is closed")
        await bystander.send([sent])
        await bystander.until(1)
        found = bystander.replies.pop(0)
        bystander.received.clear()
        hold(found in (reply, reply.decode()) and not bystander.replies, f"a bystander is told {found!r}")


def command(*words: bytes) -> bytes:
    """A command as clients send it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _new(random: Random) -> list[bytes]:
    count = random.choice((0, 1, 1, 1, 2, 2, 3, 5, 12))
    return [
        random.choice(_COMMANDS),
        *(random.choice(_KEYS if random.random() < 0.6 else _WORDS) for _ in range(count)),
    ]


def _pieces(stream: bytes, first: int, second: int) -> list[bytes]:
    """``stream`` in up to `_MOST_PIECES`, as two bytes choose."""
    random = Random(first << 8 | second)
    cuts = sorted(random.randrange(len(stream) + 1) for _ in range(first % _MOST_PIECES))
    return [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


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
