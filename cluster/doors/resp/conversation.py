"""The commands about the connection itself: PING, ECHO, HELLO, AUTH, SELECT, CLIENT, QUIT, RESET."""

from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Final

from cluster.access.gate import Caller, Gate
from cluster.doors.resp.commands import REDIS_VERSION, STANDALONE, Command, Session, Subcommands, Words, shown
from cluster.doors.resp.frames import OK, RESP2, array, bulk, error, integer, mapping, simple, text
from snapring.errors import CommandInvalid, Unauthenticated

_MAX_NAME_BYTES: Final = 256
_NOT_CONFIGURED: Final = (
    "AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
_HELLO_FIRST: Final = (
    "HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass>"
    " option can be used to authenticate the client and select the RESP protocol version at the same time"
)
_WRONG: Final = error("WRONGPASS", "invalid username-password pair or user is disabled.")


class ConversationCommands:
    """The commands that concern only the session, and never wait."""

    def __init__(
        self, version: str, tracking: Subcommands, gate: Gate | None = None, mode: str = STANDALONE
    ) -> None:
        self._version = version
        self._gate = gate
        self._mode = mode
        self._client: Subcommands = {
            b"ID": lambda session, _: integer(session.id),
            b"GETNAME": lambda session, _: bulk(session.name) if session.name else session.null,
            b"SETNAME": _set_name,
            b"SETINFO": _set_library,
            b"INFO": lambda session, _: text(session.protocol, _describe(session)),
            b"LIST": lambda session, _: text(session.protocol, _describe(session)),
            b"NO-EVICT": _switch(b"ON", b"OFF"),
            b"NO-TOUCH": _switch(b"ON", b"OFF"),
            b"REPLY": _switch(b"ON"),
            b"TRACKING": _switch(b"OFF"),
            **tracking,
        }

    def table(self) -> list[Command]:
        """Every command of this module."""
        return [
            Command(name="PING", arity=-1, summary="PONG, or the message given", run=_ping),
            Command(name="ECHO", arity=2, summary="The message given", run=lambda _, words: bulk(words[1])),
            Command(name="HELLO", arity=-1, summary="Agree on RESP2 or RESP3", run=self._hello),
            Command(name="AUTH", arity=-2, summary="Present credentials", run=self._auth),
            Command(name="SELECT", arity=2, summary="There is database 0 only", run=_select),
            Command(name="CLIENT", arity=-2, summary="About this connection", run=self._about),
            Command(name="QUIT", arity=-1, summary="Close the connection after this", run=_quit),
            Command(name="RESET", arity=1, summary="Begin the conversation anew", run=_reset),
        ]

    def _about(self, session: Session, words: Words) -> bytes:
        known = self._client.get(words[1].upper())
        if known is None:
            raise CommandInvalid(f"unknown subcommand '{shown(words[1])}' of CLIENT")
        return known(session, words)

    def _hello(self, session: Session, words: Words) -> bytes:
        protocol, name, caller = session.protocol, None, session.caller
        if len(words) > 1:
            if words[1] not in (b"2", b"3"):
                return error("NOPROTO", "unsupported protocol version")
            protocol = int(words[1])
        rest = iter(words[2:])
        for word in rest:
            match word.upper():
                case b"AUTH":
                    user, key = _take(rest, 2)
                    if self._gate is None and user != b"default":
                        return _WRONG
                    if self._gate is not None and (caller := _who(self._gate, key, user)) is None:
                        return _WRONG
                case b"SETNAME":
                    (name,) = _take(rest, 1)
                    _check_name(name)
                case _:
                    raise CommandInvalid(f"Syntax error in HELLO option '{shown(word)}'")
        if self._gate is not None and caller is None:
            raise Unauthenticated(_HELLO_FIRST)
        session.caller = caller
        session.speak(protocol)
        session.name = session.name if name is None else name
        return self._greeting(session)

    def _auth(self, session: Session, words: Words) -> bytes:
        """AUTH key, AUTH name key. Without credentials configured, as a Redis without a password."""
        if len(words) > 3:
            raise CommandInvalid("syntax error")
        user = words[1] if len(words) > 2 else b""
        if self._gate is None:
            if not user:
                raise CommandInvalid(_NOT_CONFIGURED)
            return OK if user == b"default" else _WRONG
        caller = _who(self._gate, words[-1], user)
        if caller is None:
            return _WRONG
        session.caller = caller
        return OK

    def _greeting(self, session: Session) -> bytes:
        return mapping(
            session.protocol,
            (
                ("server", bulk("redis")),
                ("version", bulk(REDIS_VERSION)),
                ("proto", integer(session.protocol)),
                ("id", integer(session.id)),
                ("mode", bulk(self._mode)),
                ("role", bulk("master")),
                ("modules", array(())),
                ("snapring", bulk(self._version)),
            ),
        )


def _ping(_session: Session, words: Words) -> bytes:
    match words:
        case [_]:
            return simple("PONG")
        case [_, message]:
            return bulk(message)
    raise CommandInvalid("wrong number of arguments for 'ping' command")


def _take(rest: Iterator[bytes], count: int) -> list[bytes]:
    taken = [word for _, word in zip(range(count), rest, strict=False)]
    if len(taken) < count:
        raise CommandInvalid("Syntax error in HELLO: an option lacks its value")
    return taken


def _who(gate: Gate, key: bytes, user: bytes) -> Caller | None:
    """Whose ``key`` is. ``default`` is what clients say who were given no name: the key says it."""
    name = user.decode("utf-8", "replace")
    return gate.authenticate(key, None if name in ("", "default") else name)


def _select(_session: Session, words: Words) -> bytes:
    if words[1] != b"0":
        raise CommandInvalid("DB index is out of range")
    return OK


def _quit(session: Session, _words: Words) -> bytes:
    session.ending = True
    return OK


def _reset(session: Session, _words: Words) -> bytes:
    session.speak(RESP2)
    session.name = b""
    session.caller = None
    return simple("RESET")


def _set_name(session: Session, words: Words) -> bytes:
    (name,) = _arguments(words, 1)
    _check_name(name)
    session.name = name
    return OK


def _set_library(session: Session, words: Words) -> bytes:
    option, value = _arguments(words, 2)
    if option.lower() not in (b"lib-name", b"lib-ver"):
        raise CommandInvalid(f"Unrecognized option '{shown(option)}'")
    _check_name(value)
    session.library[option.lower().decode()] = value
    return OK


def _switch(*settings: bytes) -> Callable[[Session, Words], bytes]:
    """A subcommand that accepts ``settings``, which are how things are here anyway."""

    def accept(_session: Session, words: Words) -> bytes:
        if words[2:3] and words[2].upper() in settings:
            return OK
        raise CommandInvalid(f"CLIENT {shown(words[1])} takes only {b' or '.join(settings).decode()} here")

    return accept


def _arguments(words: Words, count: int) -> Words:
    if len(words) != count + 2:
        raise CommandInvalid(f"wrong number of arguments for 'client|{shown(words[1]).lower()}' command")
    return words[2:]


def _check_name(name: bytes) -> None:
    if len(name) > _MAX_NAME_BYTES or not all(0x21 <= byte <= 0x7E for byte in name):
        raise CommandInvalid(
            "Client names cannot contain spaces, newlines or special characters,"
            f" nor be longer than {_MAX_NAME_BYTES} bytes."
        )


def _describe(session: Session) -> str:
    fields: Iterable[tuple[str, object]] = (
        ("id", session.id),
        ("addr", session.peer),
        ("name", session.name.decode()),
        ("age", int(monotonic() - session.began_s)),
        ("db", 0),
        ("resp", session.protocol),
        *((option, value.decode()) for option, value in session.library.items()),
    )
    return " ".join(f"{name}={value}" for name, value in fields) + "\n"
