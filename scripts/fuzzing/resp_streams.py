"""Streams in RESP to begin with, and others that are like them: sound ones mostly."""

from collections.abc import Iterator, Mapping
from random import Random
from typing import Final

from scripts.fuzzing import resp_model

OPEN, GUARDED, ENCRYPTED, GARBAGE = range(4)
"""The doors that the first byte of an input names, the last one for who speaks no TLS where it is spoken."""

HASTY: Final = 4
"""The bit of that byte by which a client leaves without reading."""

SLOW: Final = 8
"""The bit by which he reads nothing before he has sent everything, and may be disconnected for it."""

HEAD_BYTES: Final = 3

_MOST_PIECES: Final = 8
KEYS: Final = (
    b"users:1", b"users:x", b"users:99", b"team:1", b"team:9", b"said:hello", b"said:%00", b"halves:0:1:a", b"halves:2:nan:b",
    b"settings:a", b"settings:b", b"closed", b"acme/settings:a", b"zeta/settings:secret", b"default/zeta/settings:secret",
    b"{users:1}@AQ", b"nobody:1", b"users", b"", b"default/said:x", b"said:" + b"y" * 300,
)  # fmt: skip
WORDS: Final = (
    b"ATLEAST", b"EXACT", b"STRONG", b"TIMEOUT", b"IFVERSION", b"NX", b"COUNT", b"AFTER", b"TICKET", b"PUT", b"DEL", b"0", b"1",
    b"-1", b"18446744073709551616", b"9" * 30, b"", b"\xff\xfe", b"\r\n", b"ON", b"OFF", b"BCAST", b"OPTIN", b"NOLOOP", b"ID",
    b"INFO", b"LIST", b"SETNAME", b"SETINFO", b"lib-name", b"TRACKING", b"CACHING", b"REDIRECT", b"KEYSLOT", b"SLOTS", b"SHARDS",
    b"NODES", b"DOCS", b"COUNT", b"GETKEYS", b"GET", b"3", b"2", b"AUTH", b"default",
)  # fmt: skip
COMMANDS: Final = (
    b"GET", b"MGET", b"EXISTS", b"TTL", b"PTTL", b"TYPE", b"SNAP.GET", b"SNAP.MGET", b"SNAP.TOKEN", b"SNAP.PUT", b"SNAP.DEL",
    b"SNAP.WRITE", b"SNAP.KEYS", b"SET", b"SETNX", b"MSET", b"DEL", b"UNLINK", b"HELLO", b"AUTH", b"SELECT", b"CLIENT", b"CLUSTER",
    b"COMMAND", b"CONFIG", b"INFO", b"PING", b"ECHO", b"RESET", b"QUIT", b"DBSIZE", b"TIME", b"READONLY", b"ASKING", b"MULTI",
    b"SUBSCRIBE", b"SCAN", b"KEYS", b"INCR", b"nonsense", b"get", b"Ping",
)  # fmt: skip
STREAMS: Final[tuple[tuple[tuple[bytes, ...], ...], ...]] = (
    ((b"PING",), (b"ECHO", b"\xc3\xa9"), (b"GET", b"users:1"), (b"GET", b"said:x")),
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
RAW: Final = (
    b"PING\r\nECHO 'a b'\n", b"GET users:1\r\n*1\r\n$4\r\nPING\r\n", b"*1000000000\r\n", b"*1\r\n$999999999999\r\n", b"*1\r\n*1\r\n",
    b"*-1\r\n", b"$4\r\nPING\r\n", b"~1\r\n", b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", b'ECHO "unfinished\r\n', b"*2\r\n$3\r\nGET\r\n$7\r\nuse",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64, b"\r\n" * 50, b"*0\r\n" * 50, b"*3\r\n$3\r\nSET\r\n",
)  # fmt: skip


def seeds(keys: Mapping[str, bytes]) -> Iterator[bytes]:
    """Sound conversations at each door, and beginnings of unsound ones; without ``keys`` at the open door alone."""
    for door in (OPEN, GUARDED, ENCRYPTED)[: 3 if keys else 1]:
        for stream in STREAMS:
            head = command(b"AUTH", keys["writer"]) if door != OPEN else b""
            yield bytes([door, 0, 0]) + head + b"".join(command(*words) for words in stream)
    for name, key in keys.items():
        sent = (
            (b"HELLO", b"3", b"AUTH", name.encode(), key),
            *((b"GET", key) for key in KEYS),
            (b"INFO",),
            (b"CONFIG", b"GET", b"*"),
        )
        yield bytes([GUARDED, 3, 7]) + b"".join(command(*words) for words in sent)
    for raw in RAW:
        yield from (bytes([door, 1, 2]) + raw for door in (OPEN, GARBAGE))
        yield bytes([OPEN | SLOW, 5, 5]) + (command(b"COMMAND", b"DOCS") + command(b"INFO")) * 30 + raw
        yield bytes([OPEN | HASTY, 5, 5]) + command(b"PING") + raw


def changed(data: bytes, random: Random) -> bytes:
    """A command more, less, again, elsewhere, or with other words."""
    said = resp_model.read(data[HEAD_BYTES:], max_bytes=1 << 20, max_words=1 << 10).commands
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
            words[random.randrange(len(words))] = random.choice(WORDS + KEYS)
        case _ if said:
            said[at % len(said)].append(random.choice(WORDS + KEYS))
    tail = random.choice((b"", b"", b"", *RAW))
    head = (
        data[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0") if random.random() < 0.7 else random.randbytes(HEAD_BYTES)
    )
    return head + b"".join(command(*words) for words in said) + tail


def command(*words: bytes) -> bytes:
    """A command as clients send it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _new(random: Random) -> list[bytes]:
    count = random.choice((0, 1, 1, 1, 2, 2, 3, 5, 12))
    return [
        random.choice(COMMANDS),
        *(random.choice(KEYS if random.random() < 0.6 else WORDS) for _ in range(count)),
    ]


def pieces(stream: bytes, first: int, second: int) -> list[bytes]:
    """``stream`` in up to `_MOST_PIECES`, as two bytes choose."""
    random = Random(first << 8 | second)
    cuts = sorted(random.randrange(len(stream) + 1) for _ in range(first % _MOST_PIECES))
    return [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
