"""Several nodes on one database, each a process of its own, which come and go as a suite has them do."""

import asyncio
import json
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

from cluster import capture
from cluster.asking import ask
from cluster.embedded import EmbeddedPostgres
from cluster.local_nodes import LOOPBACK, LocalNode, discovery, flags, plan
from cluster.survey import Info, parse_info
from cluster.tokens import TokenCodec
from peers.members import Member as RingMember
from peers.ring import Ring
from scripts.demonstration.programs import ProgramFailed, last_words, running
from scripts.demonstration.resp import Resp
from snapring.errors import Unavailable
from snapring.keys import slot_of

Counters = Mapping[str, int]
"""The whole numbers of INFO, by name."""

SQL: Final = "SELECT id, name, n FROM items WHERE id = $1"
_SCHEMA: Final = """
CREATE TABLE items (id int PRIMARY KEY, name text, n int DEFAULT 0);
INSERT INTO items (id, name) SELECT n, 'item ' || n FROM generate_series(0, {rows} - 1) n;
"""
_SETTINGS: Final = {"shared_buffers": "64MB", "max_connections": "100"}
_AGREE_S: Final = 30.0
_ASK_S: Final = 5.0
_PAGE: Final = 500
_LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One node that runs, or ran, as ``process``."""

    node: LocalNode
    process: asyncio.subprocess.Process

    @property
    def name(self) -> str:
        """Its name in the ring."""
        return self.node.name

    @property
    def port(self) -> int:
        """Where clients find it."""
        return self.node.port

    async def info(self) -> Info:
        """What it says of itself now. Raises `Unavailable`."""
        return parse_info(str(await ask(self.node.door, "INFO", within_s=_ASK_S)))

    async def counters(self) -> Counters:
        """What it has counted until now. Raises `Unavailable`."""
        fields = {name: text for section in (await self.info()).values() for name, text in section.items()}
        return {name: int(text) for name, text in fields.items() if text.isdecimal()}


@dataclass(slots=True, kw_only=True)
class Several:
    """The database, where ``items`` has so many ``rows``, and those who were `start`\\ ed, by name."""

    server: EmbeddedPostgres
    directory: Path
    rows: int
    codec: TokenCodec
    options: Sequence[str]
    _lives: AsyncExitStack
    members: dict[str, Member] = field(default_factory=dict)

    async def start(self, node: LocalNode, others: Iterable[LocalNode]) -> Member:
        """Run ``node``, which is told of ``others`` and itself."""
        self.tell(node, others)
        command = (sys.executable, "-P", "-m", "scripts.benchmarks.member", "--view", str(self._view(node)))
        settings = ("--config", str(self.directory / "snapring.toml"), *flags(node, [node]))
        life = running(*command, *self.options, *settings, log_file=self._log(node))
        process = await self._lives.enter_async_context(life)
        self.members[node.name] = Member(node=node, process=process)
        return self.members[node.name]

    def tell(self, node: LocalNode, others: Iterable[LocalNode]) -> None:
        """From its next look on, ``node`` believes in ``others`` and itself, and in nobody else."""
        everybody = {each.name: each for each in (node, *others)}
        file, new = self._view(node), self.directory / "view.new"
        new.write_text(discovery(list(everybody.values())))
        new.replace(file)

    async def agree(self, *names: str) -> None:
        """Wait until those of ``names`` have the `ring` of just themselves and know it. Raises `ProgramFailed`."""
        for name in names:
            await self.believes(name, names, agreeing=len(names))

    async def believes(self, name: str, others: Iterable[str], *, agreeing: int = 1) -> None:
        """Wait until ``name`` has the `ring` of ``others``, and reaches so many, itself included, who have it too.

        Raises `ProgramFailed`.
        """
        epoch = ring(others).hash.hex()
        try:
            async with asyncio.timeout(_AGREE_S):
                while not await self._agrees(self.members[name], epoch, agreeing):  # noqa: ASYNC110 -- a process sets no event
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            log = last_words(self._log(self.members[name].node))
            raise ProgramFailed(f"{name} has not found the others:\n{log}") from None

    async def fill(self) -> None:
        """Have every item in its owner's memory and at its backup. Raises `ProgramFailed`."""
        client = await Resp.open(LOOPBACK, next(iter(self.members.values())).port)
        for since in range(0, self.rows, _PAGE):
            page = [b"item:%d" % item for item in range(since, min(since + _PAGE, self.rows))]
            (values,) = await client.ask([(b"MGET", *page)])
            if not isinstance(values, list) or not all(isinstance(value, bytes) for value in values):
                raise ProgramFailed(f"the nodes do not load: {values!r}")
        await client.close()
        try:
            async with asyncio.timeout(_AGREE_S):
                while await self.total("copies_filled", "copies_dropped") < self.rows:  # noqa: ASYNC110 -- as above
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise ProgramFailed(f"the backups have not been filled: {await self.counters()}") from None

    async def total(self, *names: str) -> int:
        """These counters of all that run, together."""
        return sum(counted[name] for counted in (await self.counters()).values() for name in names)

    async def counters(self) -> dict[str, Counters]:
        """What each that runs has counted until now."""
        alive = [each for each in self.members.values() if each.process.returncode is None]
        counted = await asyncio.gather(*(each.counters() for each in alive))
        return {each.name: counters for each, counters in zip(alive, counted, strict=True)}

    async def _agrees(self, member: Member, epoch: str, count: int) -> bool:
        """Whether ``member`` has the ring of ``epoch``, and reaches all others who have it."""
        if member.process.returncode is not None:
            raise ProgramFailed(f"{member.name} has ended:\n{last_words(self._log(member.node))}")
        try:
            peers = (await member.info()).get("peers", {})
        except Unavailable:
            return False
        return peers.get("epoch") == epoch and int(peers["agreeing"]) >= count

    def _view(self, node: LocalNode) -> Path:
        return self.directory / f"{node.name}.view"

    def _log(self, node: LocalNode) -> Path:
        return self.directory / f"{node.name}.log"


def ring(names: Iterable[str]) -> Ring:
    """The ring of the members of these names."""
    return Ring.of(RingMember(name=name) for name in names)


def owners(names: Iterable[str], rows: int) -> list[str]:
    """For each item who of the nodes of these names owns it."""
    everybody = ring(names)
    return [everybody.owner(slot_of(b"item:%d" % item)) for item in range(rows)]


def rise(before: Counters, after: Counters) -> Counters:
    """By how much each has grown; what is new counts from 0."""
    return {name: count - before.get(name, 0) for name, count in after.items()}


@asynccontextmanager
async def several(
    count: int,
    *,
    rows: int,
    caches: Mapping[str, Mapping[str, object]],
    options: Sequence[str] = (),
) -> AsyncIterator[Several]:
    """``count`` nodes that act as one. ``caches`` are caches of items, by name, with their settings.

    ``options`` are for `scripts.benchmarks.member`.
    """
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="snapring-bench-")))
        server = _server(stack.enter_context(ExitStack()))
        await _fill(server, rows)
        secret = secrets.token_hex(32)
        sections: dict[str, Mapping[str, object]] = {
            "node": {"secrets": [secret]},
            "postgres": {"url": server.dsn(tcp=True)},
            **{f"caches.{name}": {"sql": SQL, "single": True, **more} for name, more in caches.items()},
        }
        _configure(directory / "snapring.toml", sections)
        found = Several(
            server=server,
            directory=directory,
            rows=rows,
            codec=TokenCodec([secret.encode()]),
            options=options,
            _lives=stack,
        )
        nodes = plan(count, first_port=0)
        for node in nodes:
            await found.start(node, nodes)
        await found.agree(*found.members)
        yield found


def _server(stack: ExitStack) -> EmbeddedPostgres:
    return stack.enter_context(EmbeddedPostgres(settings=_SETTINGS))  # nothing else runs on this loop yet


async def _fill(server: EmbeddedPostgres, rows: int) -> None:
    async with await psycopg.AsyncConnection.connect(server.dsn(), autocommit=True) as owner:
        await owner.execute(_SCHEMA.format(rows=rows).encode())
        await capture.install(owner)
        await capture.track(owner, "items")
        await owner.execute("ANALYZE items")


def _configure(file: Path, sections: Mapping[str, Mapping[str, object]]) -> None:
    file.touch(mode=0o600)
    # JSON's way of writing texts, numbers, flags and lists is TOML's too.
    file.write_text(
        "\n".join(
            f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in section.items())
            for name, section in sections.items()
        )
    )
