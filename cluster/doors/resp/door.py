"""The RESP door of a node: listens, bounds the number of clients, drops idle ones, drains at the end."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.metadata import version
from itertools import count, islice
from random import Random
from time import monotonic
from typing import TYPE_CHECKING, Final

from cluster.access.gate import Caller
from cluster.access.guard import Guard
from cluster.config import RespConfig
from cluster.doors.lines import Lines, no_lines
from cluster.doors.reads import Near, Reads
from cluster.doors.resp.admission import Admission
from cluster.doors.resp.arrivals import Arrivals, Peer
from cluster.doors.resp.cluster_commands import ClusterCommands
from cluster.doors.resp.commands import CLUSTER, STANDALONE, Command, Commands, Counts, Session, Subcommands
from cluster.doors.resp.connection import Connection
from cluster.doors.resp.conversation import ConversationCommands
from cluster.doors.resp.followed import Followed, ThoroughReads
from cluster.doors.resp.frames import error
from cluster.doors.resp.inspection import InspectionCommands
from cluster.doors.resp.listing import ListingCommands
from cluster.doors.resp.reads import ReadCommands
from cluster.doors.resp.refusals import refusals
from cluster.doors.resp.shares import Shares
from cluster.doors.resp.traces import Sampled, Traces
from cluster.doors.resp.tracking import Tracking
from cluster.doors.resp.tracking_commands import TrackingCommands
from cluster.doors.resp.writes import WriteCommands
from cluster.peering.circle import Circle
from cluster.tracing.reads import TracedReads
from cluster.watching import Hub

if TYPE_CHECKING:
    from cluster.tracing.tracing import Tracing

_AT_ONCE: Final = 16
"""How many clients are let in in one round of the loop; where they show keys, and so have turns, one."""

_FULL: Final = error("ERR", "max number of clients reached")
_LOOKS_PER_TIMEOUT: Final = 4
_FLUSH_S: Final = 0.25
"""How long clients may take to read their last replies once a drain's deadline has passed."""


class RespDoor:
    """Answers RESP clients out of ``node``. For one event loop; ``counts`` are its numbers.

    ``circle`` tells them who else is there; a node by itself has none. Requests are traced where there is ``tracing``. Clients may keep values where there are ``near``, which they read, and ``watching``, which tells when to let go.

    Requests are told of in ``lines``. A stopped door cannot be started again.
    """

    def __init__(
        self,
        node: Reads,
        config: RespConfig,
        guard: Guard | None = None,
        *,
        near: Near | None = None,
        watching: Hub | None = None,
        circle: Callable[[], Circle] | None = None,
        tracing: "Tracing | None" = None,
        random: Random | None = None,
        lines: Lines | None = None,
    ) -> None:
        self.counts = Counts()
        self._gate = guard.gate if guard else None
        self._arrivals = Arrivals(
            protocol=self._connection,
            has_room=self._has_room,
            refusal=_FULL,
            tls=guard.tls if guard else None,
            patience_s=config.login_timeout_s,
            at_once=1 if self._gate else _AT_ONCE,
        )
        self._shares: Shares | None = None
        self._addresses: Counter[str] = Counter()
        if guard is not None:
            guard.reviews.append(self._review)
        self._node = node
        self._random = random or Random()
        self._config = config
        commands = _commands(
            node,
            config,
            self.counts,
            guard=guard,
            tracking=_tracking(node, near, watching, config, self.counts),
            circle=circle,
            tracing=tracing,
        )
        thorough = commands.but(ThoroughReads(node, config).table())
        self._commands = Followed(commands, thorough, lines or no_lines(), guarded=self._gate is not None)
        self._connections: set[Connection] = set()
        self._expected: dict[Connection, asyncio.TimerHandle] = {}
        self._ids = count(1)
        self._looking: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    def __repr__(self) -> str:
        return f"<RespDoor {self._config.host}:{self._config.port} connections={self.connections}>"

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    @property
    def port(self) -> int:
        """The TCP port that is listened on; the configured one until `start` has returned."""
        return self._arrivals.port or self._config.port

    async def start(self) -> None:
        """Listen. Raises `OSError` if the address cannot be had."""
        if self._gate is not None:
            self._shares = Shares(self._config.turn_s)
        await self._arrivals.listen(self._config.host, self._config.port)
        self._look()

    def sample(self, took: Callable[[float], None]) -> None:
        """Tell ``took`` how many seconds the next command takes of a client picked at random, if there is one."""
        if (connection := self._somebody()) is not None:
            connection.sample(took)

    def pick(self) -> None:
        """The next command of a client picked at random, if there is one, gets a line in the log."""
        if (connection := self._somebody()) is not None:
            connection.pick()

    async def drain(self, deadline_s: float) -> None:
        """Accept no more; let what is under way finish until monotonic ``deadline_s``; close everything.

        What has not been answered by then is answered with ``NODE_STOPPING``.
        """
        self._arrivals.close()
        if self._looking is not None:
            self._looking.cancel()
        for step, until_s in (
            (Connection.drain, deadline_s),
            (Connection.give_up, max(monotonic(), deadline_s) + _FLUSH_S),
            (Connection.abort, max(monotonic(), deadline_s) + 2 * _FLUSH_S),
        ):
            if await self._emptied(step, until_s):
                return

    def _somebody(self) -> Connection | None:
        if not self._connections:
            return None
        return next(islice(self._connections, self._random.randrange(self.connections), None))

    async def _emptied(self, step: Callable[[Connection], None], until_s: float) -> bool:
        for connection in tuple(self._connections):
            step(connection)
        try:
            await asyncio.wait_for(self._empty.wait(), max(0.0, until_s - monotonic()))
        except TimeoutError:
            return False
        return True

    def _connection(self, peer: Peer) -> Connection:
        return Connection(
            node=self._node,
            commands=self._commands,
            config=self._config,
            counts=self.counts,
            shares=self._shares,
            session=Session(id=next(self._ids), peer=f"{peer.address}:{peer.port}", began_s=monotonic()),
            address=peer.address,
            on_open=self._opened,
            on_close=self._closed,
        )

    def _has_room(self, address: str) -> bool:
        """For one more from there."""
        most, arrivals = self._config.max_per_address, self._arrivals
        room = self.connections + arrivals.count < self._config.max_connections and (
            most is None or self._addresses[address] + arrivals.of(address) < most
        )
        self.counts.refused += not room
        return room

    def _opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._addresses[connection.address] += 1
        if self._gate is not None:
            loop, patience_s = asyncio.get_running_loop(), self._config.login_timeout_s
            self._expected[connection] = loop.call_later(patience_s, self._expect, connection)
        self._empty.clear()
        self.counts.accepted += 1
        self.counts.connections = self.connections

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._addresses[connection.address] -= 1
        if not self._addresses[connection.address]:
            del self._addresses[connection.address]
        if (expected := self._expected.pop(connection, None)) is not None:
            expected.cancel()
        self.counts.connections = self.connections
        if not self._connections:
            self._empty.set()

    def _expect(self, connection: Connection) -> None:
        """By now it should have shown a key."""
        del self._expected[connection]
        if connection.caller is None:
            self.counts.strangers += 1
            connection.abort()

    def _review(self) -> None:
        """Expel whom the gate no longer upholds."""
        if self._gate is None:
            return
        upheld: dict[Caller, bool] = {}
        for connection in tuple(self._connections):
            caller = connection.caller
            if caller is None:
                continue
            if caller not in upheld:
                upheld[caller] = self._gate.upholds(caller)
            if not upheld[caller]:
                self.counts.revoked += 1
                connection.expel()

    def _look(self) -> None:
        """Close the connections that have been idle for too long, and look again later."""
        timeout_s = self._config.idle_timeout_s
        if timeout_s is None:
            return
        before_s = monotonic() - timeout_s
        for connection in tuple(self._connections):
            since_s = connection.idle_since_s()
            if since_s is not None and since_s < before_s:
                self.counts.idle_closed += 1
                connection.abort()
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(timeout_s / _LOOKS_PER_TIMEOUT, self._look)


def _tracking(
    node: Reads, near: Near | None, watching: Hub | None, config: RespConfig, counts: Counts
) -> Subcommands:
    if near is None or watching is None:
        return {}
    return TrackingCommands(node, near, Tracking(node, watching, config, counts), config).table()


def _commands(
    node: Reads,
    config: RespConfig,
    counts: Counts,
    *,
    guard: Guard | None,
    tracking: Subcommands,
    circle: Callable[[], Circle] | None,
    tracing: "Tracing | None",
) -> Commands:
    """Every command; what is traced runs by commands of its own."""

    def before(reads: Reads) -> Commands:
        return _untraced(
            reads, config, counts, guard=guard, tracking=tracking, circle=circle, known=lambda: plain.by_name
        )

    plain = before(node)
    asks = guard is not None and guard.gate is not None
    traces = Traces(plain, before(TracedReads(node)) if tracing else None, tracing, asks=asks)
    plain.add(traces.command)
    return Sampled(plain, traces) if tracing and tracing.share else plain


def _untraced(
    node: Reads,
    config: RespConfig,
    counts: Counts,
    *,
    guard: Guard | None,
    tracking: Subcommands,
    circle: Callable[[], Circle] | None,
    known: Callable[[], Mapping[str, Command]],
) -> Commands:
    release = version("snapring-node")
    gate = guard.gate if guard else None
    mode = CLUSTER if circle else STANDALONE
    inspection = InspectionCommands(
        node=node,
        config=config,
        counts=counts,
        version=release,
        commands=known,
        guard=guard,
        mode=mode,
    )
    return Commands(
        (
            *ReadCommands(node, config).table(),
            *WriteCommands(node).table(),
            *ListingCommands(node, config).table(),
            *ConversationCommands(release, tracking, gate, mode).table(),
            *inspection.table(),
            *ClusterCommands(node, config, circle).table(),
            *refusals(),
        ),
        Admission() if gate else None,
    )
