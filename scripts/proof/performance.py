"""Rounds of proof: writers and readers at work on the ground, for a while; and what they recorded."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

from cluster.tokens import TokenCodec
from scripts.proof.chronicle import Chronicle
from scripts.proof.cluster import Survey
from scripts.proof.deeds import Step
from scripts.proof.ground import Ground, standing
from scripts.proof.mutations import Mutation
from scripts.proof.readers import Errand
from scripts.proof.reading import Reading, reading
from scripts.proof.replies import Replies
from scripts.proof.scenes import Scene
from scripts.proof.store import StoreWriter
from scripts.proof.tables import FILL, prepare
from scripts.proof.writers import Finisher, Writer, connected

T = TypeVar("T")

_END_S: Final = 30.0


@dataclass(slots=True, kw_only=True)
class Performance:
    """Ground, and who keeps the history of what is done on it. ``seed`` is what everything is drawn from."""

    scene: Scene
    ground: Ground
    seed: int
    chronicle: Chronicle = field(init=False)
    survey: Survey = field(init=False)
    _rounds: Iterator[int] = field(default_factory=count)
    _reading: Reading | None = None

    def __post_init__(self) -> None:
        self.chronicle = Chronicle(self._tell)
        self.ground.witnesses.append(self._witness)
        self.ground.watchers.append(self._send_to)
        self.survey = Survey(self.ground.places)

    async def fill(self) -> None:
        """The first transaction. Raises `psycopg.Error`."""
        async with connected(self.ground.dsn(), self.chronicle) as connection:
            await self._writer("first", kept=100).do(connection, _everything)

    async def round(self, meanwhile: Awaitable[T]) -> tuple[Replies, T]:
        """Writers and readers side by side for as long as ``meanwhile`` takes; the replies, and what it brought.

        Afterwards every transaction is accounted for. Raises `ProgramFailed` if a program ends before
        its time, `TwoHops`, and whatever ``meanwhile`` does.
        """
        number = next(self._rounds)
        writers = [self._writer(f"{number} {each}") for each in range(self.scene.writers)]
        finisher = Finisher(
            self.ground.dsn,
            self.chronicle,
            rng=Random(f"{self.seed} {number} finisher"),
            after_s=self.scene.prepared_s,
        )
        store_writers = self._store_writers(number)
        hands: list[Writer | StoreWriter | Finisher] = [*writers, *store_writers, finisher]
        writing = [asyncio.create_task(each.run()) for each in hands]
        try:
            async with reading(self._errand(number)) as self._reading:
                programs = [node.outlive() for node in self.ground.places]
                programs += [self._reading.outlive(), self.survey.run()]
                brought = await _beside(meanwhile, programs, writing)
                replies = await self._reading.record()
            for each in hands:
                each.stop()
            async with asyncio.timeout(_END_S):
                await asyncio.gather(*writing)
        finally:
            self._reading = None
            await _cancelled(writing)
        await self.ground.settled()
        await self.survey.look()
        for each in store_writers:
            replies.extend(each.record)
        return replies, brought

    def _writer(self, name: str, *, kept: int = 90) -> Writer:
        return Writer(
            self.ground.dsn,
            self.chronicle,
            self.scene.deeds,
            rng=Random(f"{self.seed} {name}"),
            pace_s=self.scene.pace_s,
            kept=kept,
        )

    def _store_writers(self, round_number: int) -> list[StoreWriter]:
        return [
            StoreWriter(
                self.ground.dsn,
                partial(self._port, number),
                TokenCodec([self.ground.secret]),
                self.chronicle,
                number=number,
                rng=Random(f"{self.seed} {round_number} store {number}"),
                pace_s=self.scene.pace_s,
                thinks_s=self.scene.thinks_s,
            )
            for number in range(self.scene.store_writers)
        ]

    def _port(self, number: int) -> int:
        """Where writer ``number`` of the store writes."""
        nodes = self.ground.nodes
        return nodes[number % len(nodes)].port

    def _errand(self, number: int) -> Errand:
        return Errand(
            ports=[node.port for node in self.ground.nodes],
            secret=self.ground.secret.decode(),
            keys=self.scene.keys,
            readers=self.scene.readers,
            seed=f"{self.seed} {number}",
            file=str(self.ground.directory / "replies"),
        )

    def _send_to(self) -> None:
        if self._reading is not None:
            self._reading.send_to([node.port for node in self.ground.nodes])

    def _tell(self, incarnation: int, xid: int) -> None:
        if self._reading is not None:
            self._reading.tell(incarnation, xid)

    async def _witness(self) -> None:
        await self.chronicle.witness(self.ground.dsn())


@contextlib.asynccontextmanager
async def performing(
    scene: Scene,
    *,
    seed: int,
    epoch: int = 0,
    stepping: bool = False,
    mutation: Mutation | None = None,
    template: Path | None = None,
    nodes: int = 1,
) -> AsyncIterator[Performance]:
    """A performance of ``scene`` that may begin; see `scripts.proof.ground.standing` for the rest."""

    async def set_up(dsn: str) -> None:
        await prepare(dsn, mutation.alter if mutation else None)

    async with standing(
        prepare=set_up,
        node_settings=scene.node_settings(),
        server_settings=scene.server,
        template=template,
        epoch=epoch,
        stepping=stepping,
        mutation=mutation.name if mutation and mutation.remove else None,
        nodes=nodes,
    ) as ground:
        if scene.delay_s:
            ground.proxy.delay(scene.delay_s)
        performance = Performance(scene=scene, ground=ground, seed=seed)
        await performance.fill()
        yield performance


def _everything(_: Random) -> Iterator[Step]:
    yield FILL


async def _beside(
    meanwhile: Awaitable[T], programs: Sequence[Awaitable[None]], writing: Sequence[asyncio.Task[None]]
) -> T:
    """What ``meanwhile`` brings. Neither ``programs`` nor ``writing`` end before it does, but with an error."""
    task = asyncio.ensure_future(meanwhile)
    watched = [asyncio.ensure_future(program) for program in programs]
    try:
        ended, _ = await asyncio.wait([task, *watched, *writing], return_when=asyncio.FIRST_COMPLETED)
        for each in ended - {task}:
            await each
        return await task
    finally:
        await _cancelled([task, *watched])


async def _cancelled(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
