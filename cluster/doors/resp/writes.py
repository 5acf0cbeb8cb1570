"""The commands that write to ``store`` caches; refusals on caches of rows, and of all else that Redis writes.

Each is one atomic write, begun when everything that its connection asked before has been answered, and done
before anything behind it begins. From then on the connection reads no older state than the write left, or
was refused for: see `Session.floor`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Final

from cluster.doors.reads import Reads
from cluster.doors.resp.commands import Alone, Command, Session, Words, shown
from cluster.doors.resp.frames import OK, bulk, integer, mapping
from cluster.doors.resp.words import following, number, plain_key
from cluster.requests import AtLeast
from cluster.tokens import Ticket
from cluster.writes import ABSENT, MAX_VERSION, Deed, Refused, Written, require_store
from snapring.errors import CommandInvalid
from snapring.keys import Key

_ONE_KEY: Final = (1, 1, 1)
_ALL_KEYS: Final = (1, -1, 1)
_INSTEAD: Final = "store caches have SET [NX], SETNX, MSET, DEL, SNAP.PUT, SNAP.DEL and SNAP.WRITE"
_REFUSED: Final = (
    "APPEND",
    "DECR",
    "DECRBY",
    "EXPIRE",
    "EXPIREAT",
    "GETDEL",
    "GETEX",
    "GETSET",
    "INCR",
    "INCRBY",
    "INCRBYFLOAT",
    "MSETNX",
    "PERSIST",
    "PEXPIRE",
    "PEXPIREAT",
    "PSETEX",
    "SETEX",
    "SETRANGE",
)


class WriteCommands:
    """The commands that reach the database through the node."""

    def __init__(self, node: Reads) -> None:
        self._node = node
        self._timeout_s = node.config.request_timeout_s

    def table(self) -> list[Command]:
        """Every command of this module."""
        return [
            _writing("SET", -3, "Put a value under a key: SET key value [NX]", self.set),
            _writing("SETNX", 3, "Put a value under a key that is not there", self.setnx),
            _writing("MSET", -3, "Put several values at once", self.mset, keys=(1, -1, 2)),
            _writing("DEL", -2, "Delete keys at once", self.delete, keys=_ALL_KEYS),
            _writing("UNLINK", -2, "The same", self.delete, keys=_ALL_KEYS),
            _writing("SNAP.PUT", -3, "Put values at once, and the ticket that sees them", self.snap_put),
            _writing("SNAP.DEL", -2, "Delete keys at once, and the ticket that sees it", self.snap_del),
            _writing("SNAP.WRITE", -3, "Put and delete at once", self.snap_write, keys=(2, 2, 1)),
            *(_writing(name, -2, f"Refused: {_INSTEAD}", self.refuse) for name in _REFUSED),
        ]

    def set(self, session: Session, words: Words) -> Alone:
        """SET key value [NX]."""
        key = self._writable(words[1])
        if not words[3:]:
            return self._alone(session, [Deed(key=key, value=words[2])], lambda _: OK)
        if [word.upper() for word in words[3:]] != [b"NX"]:
            raise CommandInvalid(
                f"SET has no option '{shown(words[3])}' here, only NX: values do not expire;"
                " SNAP.PUT key value IFVERSION n replaces a version that you have read"
            )
        return self._alone(session, [_new(key, words[2])], lambda _: OK, refused=session.null)

    def setnx(self, session: Session, words: Words) -> Alone:
        """SETNX key value."""
        deeds = [_new(self._writable(words[1]), words[2])]
        return self._alone(session, deeds, lambda _: integer(1), refused=integer(0))

    def mset(self, session: Session, words: Words) -> Alone:
        """MSET key value [key value ...]: of a key that comes twice, the last value."""
        if len(words) % 2 == 0:
            raise CommandInvalid("wrong number of arguments for 'mset' command")
        values = {self._writable(key): value for key, value in zip(words[1::2], words[2::2], strict=True)}
        deeds = [Deed(key=key, value=value) for key, value in values.items()]
        return self._alone(session, deeds, lambda _: OK)

    def delete(self, session: Session, words: Words) -> Alone:
        """DEL key [key ...]: how many there were."""
        keys = dict.fromkeys(map(self._writable, words[1:]))
        deeds = [Deed(key=key, value=None) for key in keys]
        return self._alone(session, deeds, lambda written: integer(written.existed))

    def snap_put(self, session: Session, words: Words) -> Alone:
        """SNAP.PUT key value [IFVERSION n] [key value [IFVERSION n] ...]."""
        return self._in_full(session, list(self._deeds(words[1:], put=True)))

    def snap_del(self, session: Session, words: Words) -> Alone:
        """SNAP.DEL key [IFVERSION n] [key [IFVERSION n] ...]."""
        return self._in_full(session, list(self._deeds(words[1:], put=False)))

    def snap_write(self, session: Session, words: Words) -> Alone:
        """SNAP.WRITE PUT key value [IFVERSION n] | DEL key [IFVERSION n], any number of both."""
        return self._in_full(session, list(self._deeds(words[1:], put=None)))

    def refuse(self, _session: Session, words: Words) -> bytes:
        """Any other write of Redis."""
        self._writable(words[1])
        raise CommandInvalid(f"{shown(words[0]).upper()} is not offered: {_INSTEAD}")

    def _writable(self, text: bytes) -> Key:
        key = plain_key(text)
        self._node.peek(key)  # an unknown cache is the better thing to say
        require_store(self._node.config.caches[key.cache])
        return key

    def _deeds(self, words: Sequence[bytes], *, put: bool | None) -> Iterator[Deed]:
        """What ``words`` ask to do: all puts, all deletes, or each as the word before it says.

        A key of a store cache has a colon, so that no key looks like an option.
        """
        rest = iter(words)
        word = next(rest, None)
        while word is not None:
            putting = put
            if putting is None:
                putting = _verb(word)
                word = following(rest, word)
            key = self._writable(word)
            value = following(rest, word) if putting else None
            if_version = None
            word = next(rest, None)
            if word is not None and word.upper() == b"IFVERSION":
                if_version = number(following(rest, word), "IFVERSION", MAX_VERSION, least=ABSENT)
                word = next(rest, None)
            yield Deed(key=key, value=value, if_version=if_version)

    def _in_full(self, session: Session, deeds: Sequence[Deed]) -> Alone:
        """``version`` is what the keys that were put are at now; `ABSENT` where all were deleted."""
        put = any(deed.value is not None for deed in deeds)
        protocol = session.protocol

        def answer(written: Written) -> bytes:
            fields: Mapping[str, bytes] = {
                "token": bulk(self._node.written_token(written)),
                "version": integer(written.version if put else ABSENT),
            }
            return mapping(protocol, fields.items())

        return self._alone(session, deeds, answer)

    def _alone(
        self,
        session: Session,
        deeds: Sequence[Deed],
        answer: Callable[[Written], bytes],
        *,
        refused: bytes | None = None,
    ) -> Alone:
        """The write, its reply by ``answer``, or ``refused``, where given, if a key is not as demanded."""

        async def write() -> bytes:
            try:
                written = await self._node.write(deeds, monotonic() + self._timeout_s)
            except Refused as mismatch:
                session.floor = AtLeast(mismatch.seen, mismatch.incarnation)
                if refused is None:
                    raise
                return refused
            finally:
                if session.tracker is not None:
                    session.tracker.wrote(deed.key.canonical for deed in deeds)
            session.floor = AtLeast(Ticket(written.xid), written.incarnation)
            return answer(written)

        return Alone(write)


def _writing(
    name: str,
    arity: int,
    summary: str,
    run: Callable[[Session, Words], Alone | bytes],
    *,
    keys: tuple[int, int, int] = _ONE_KEY,
) -> Command:
    return Command(name=name, arity=arity, summary=summary, run=run, keys=keys, flags=("write",))


def _new(key: Key, value: bytes) -> Deed:
    return Deed(key=key, value=value, if_version=ABSENT)


def _verb(word: bytes) -> bool:
    """Whether ``word`` says to put, not to delete."""
    verbs = {b"PUT": True, b"DEL": False}
    found = verbs.get(word.upper())
    if found is None:
        raise CommandInvalid(f"SNAP.WRITE expects PUT or DEL, not '{shown(word)}'")
    return found
