"""The commands that ask what this server is: COMMAND, INFO, CONFIG GET, DBSIZE, TIME."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Final

from cluster.access.guard import Guard
from cluster.access.identity import Role
from cluster.config import RespConfig
from cluster.doors.reads import Reads
from cluster.doors.resp.commands import (
    CLUSTER,
    REDIS_VERSION,
    Command,
    Counts,
    Session,
    Words,
    requests,
    shown,
)
from cluster.doors.resp.frames import array, bulk, integer, mapping, simple, text
from snapring.errors import CommandInvalid

_EVERYTHING: Final = frozenset({"default", "all", "everything"})


class InspectionCommands:
    """What the door and its node tell about themselves."""

    def __init__(
        self,
        *,
        node: Reads,
        config: RespConfig,
        counts: Counts,
        version: str,
        commands: Callable[[], Mapping[str, Command]],
        guard: Guard | None = None,
        mode: str,
    ) -> None:
        self._mode = mode
        self._guard = guard
        self._node = node
        self._config = config
        self._counts = counts
        self._version = version
        self._commands = commands

    def table(self) -> list[Command]:
        """Every command of this module."""
        return [
            Command(name="COMMAND", arity=-1, summary="What commands there are", run=self._command),
            Command(name="INFO", arity=-1, summary="The node's numbers, by section", run=self._info),
            Command(name="CONFIG", arity=-2, summary="CONFIG GET pattern [...]", run=self._settings),
            Command(
                name="DBSIZE", arity=1, summary="How many entries are in memory",
                run=lambda _session, _words: integer(len(self._node.store.index)),
            ),
            Command(name="TIME", arity=1, summary="Unix time: seconds, microseconds", run=_time),
        ]  # fmt: skip

    def _command(self, session: Session, words: Words) -> bytes:
        known = self._commands()
        names = [word.decode("utf-8", "replace").upper() for word in words[2:]]
        match words[1].upper() if len(words) > 1 else b"":
            case b"":
                return array([_entry(command) for command in known.values()])
            case b"COUNT":
                return integer(len(known))
            case b"INFO":
                asked = names or known
                return array([_entry(known[name]) if name in known else session.null for name in asked])
            case b"GETKEYS" if len(words) > 2:
                return array([*map(bulk, _keys(known, words[2:]))])
            case b"LIST":
                return array([bulk(name.lower()) for name in known])
            case b"DOCS":
                asked = [name for name in names if name in known] if names else known
                return mapping(
                    session.protocol,
                    ((name.lower(), _documentation(session, known[name])) for name in asked),
                )
        raise CommandInvalid(f"unknown subcommand '{shown(words[1])}' of COMMAND")

    def _info(self, session: Session, words: Words) -> bytes:
        asked = {word.decode("utf-8", "replace").lower() for word in words[1:]}
        everything = not asked or asked & _EVERYTHING
        told: dict[str, Mapping[str, object]] = {
            "server": self._server(),
            "cluster": {"cluster_enabled": int(self._mode == CLUSTER)},
        }
        sections = {**told, **(self._inside() if _may_look(session) else {})}
        chosen = [
            _section(name, fields) for name, fields in sections.items() if everything or name.lower() in asked
        ]
        return text(session.protocol, "\r\n".join(chosen))

    def _inside(self) -> dict[str, Mapping[str, object]]:
        """What is nobody's business but an administrator's: it tells one tenant of the others."""
        guard = {"access": self._guard.describe()} if self._guard else {}
        commands = requests(self._counts, self._node.store.tallies)
        clients = {**asdict(self._counts), "commands": commands}
        return {"clients": clients, **guard, **self._node.describe()}

    def _server(self) -> dict[str, object]:
        return {
            "redis_version": REDIS_VERSION,
            "redis_mode": self._mode,
            "loading": 0,
            "process_id": os.getpid(),
            "snapring_version": self._version,
            "max_clients": self._config.max_connections,
        }

    def _settings(self, session: Session, words: Words) -> bytes:
        if words[1].upper() != b"GET" or len(words) < 3:
            raise CommandInvalid("CONFIG knows only GET: settings are read once, when the node starts")
        patterns = [word.decode("utf-8", "replace").lower() for word in words[2:]]
        settings = self._redis_settings()
        return mapping(
            session.protocol,
            (
                (name, bulk(value))
                for name, value in settings.items()
                if any(fnmatchcase(name, pattern) for pattern in patterns)
            ),
        )

    def _redis_settings(self) -> dict[str, str]:
        """What a Redis client may ask for, in Redis' names and units."""
        return {
            "appendonly": "no",
            "bind": self._config.host,
            "databases": "1",
            "maxclients": str(self._config.max_connections),
            "maxmemory": str(self._node.config.memory_bytes),
            "port": str(self._config.port),
            "proto-max-bulk-len": str(self._config.max_request_bytes),
            "save": "",
            "timeout": str(int(self._config.idle_timeout_s or 0)),
        }


def _may_look(session: Session) -> bool:
    return session.caller is None or session.caller.identity.role >= Role.ADMIN


def _entry(command: Command) -> bytes:
    flags = array([simple(flag) for flag in command.flags])
    places = map(integer, command.keys)
    return array(
        [bulk(command.name.lower()), integer(command.arity), flags, *places, *(array(()) for _ in range(4))]
    )


def _keys(known: Mapping[str, Command], words: Words) -> Words:
    if words[0].upper() == b"SNAP.TRACE" and len(words) > 2:
        words = words[2:]
    command = known.get(words[0].decode("utf-8", "replace").upper())
    if command is None or not command.keys[0]:
        raise CommandInvalid("The command has no key arguments")
    command.check(words)
    first, last, step = command.keys
    return words[first : last + 1 if last >= 0 else None : step]


def _documentation(session: Session, command: Command) -> bytes:
    return mapping(
        session.protocol,
        (
            ("summary", bulk(command.summary)),
            ("group", bulk("snapring")),
        ),
    )


def _section(name: str, fields: Mapping[str, object]) -> str:
    lines: Iterable[str] = (f"{field}:{' '.join(str(value).split())}\r\n" for field, value in fields.items())
    return f"# {name.capitalize()}\r\n{''.join(lines)}"


def _time(_session: Session, _words: Words) -> bytes:
    seconds, micros = divmod(time.time_ns() // 1000, 1_000_000)
    return array([bulk(str(seconds)), bulk(str(micros))])
