"""Members found in DNS, asked again and again: gRPC's own resolution is no faster than every 30 s.

A headless service in Kubernetes has SRV records whose targets are its pods, such as
``snapring-0.snapring.default.svc.cluster.local.``; a member's name is the first label of its target, so it
outlives the pod's address. The addresses usually come with the same answer; each target that came without is
asked for by itself.

A name without SRV records is taken for what its A or AAAA records say, and then **a member's name is its
address**: a member that moves is another member, and its slots move with it. That is for places whose
addresses last. A service that has had named members never falls back to addresses: an answer without SRV
is then an empty one.

A member's **weight** is that of its SRV record: the zone is the one thing that every node asks, so that every ring
comes out the same. What a node would say of itself, in its hello, is known to those alone who reach it, to each at
another time: rings would differ for as long as it takes, and for ever where two nodes do not reach the same others.
For the same reason members found here have no **zone**, of which DNS knows nothing: ``endpointslice:///`` does.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random
from time import monotonic
from typing import Final

from peers.discovery.addresses import assemble
from peers.discovery.last_good import LastGood
from peers.discovery.lookup import Hosts, Lookup, Nameserver, Target, Unanswered
from peers.members import MAX_WEIGHT, Member, Members

_TOLD: Final = 3
"""How many names an error message lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsConfig:
    """The bounds of asking. A round is one look at the whole membership."""

    cluster_domain: str = "cluster.local"
    """What the names of services end in; without a dot at its ends."""

    nameservers: tuple[Nameserver, ...] = ()
    """Whom to ask; where empty, whom the system names when the node starts."""

    period_least_s: float = 1.0
    period_most_s: float = 2.0
    """The pause between rounds, drawn anew each time so that nodes do not ask in step. Longer: a member is
    found, and missed, later. Shorter: more load on DNS, whose own records live for 5 to 30 s."""

    round_timeout_s: float = 2.0
    """What all questions of a round take together at most."""

    attempt_timeout_s: float = 0.5
    """After how long a lost datagram is sent again. Above ``round_timeout_s`` it never is."""

    max_members: int = 1_000
    """An answer with more members than this is refused whole: it is not this cluster's."""

    max_lookups: int = 16
    """How many targets are asked for at once."""


class DnsDiscovery:
    """The members that DNS names under ``name`` (absolute), each at ``port``. For one event loop.

    ``srv`` says whether SRV records are asked for before addresses.
    """

    def __init__(
        self,
        name: str,
        *,
        port: int,
        srv: bool,
        config: DnsConfig,
        clock: Callable[[], float] = monotonic,
        random: Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._name = name
        self._port = port
        self._srv = srv
        self._config = config
        self._random = random or Random()
        self._sleep = sleep
        self._named = False
        self._lookup = Lookup(
            nameservers=config.nameservers,
            attempt_timeout_s=config.attempt_timeout_s,
            max_records=config.max_members,
        )
        self.last = LastGood(f"DNS for {name}", clock=clock)

    def __repr__(self) -> str:
        return f"<DnsDiscovery {self._name} {self.last!r}>"

    async def views(self) -> AsyncGenerator[Members, None]:
        """The view kept so far if there is one, then each that differs from the one before."""
        if self.last.view:
            yield self.last.view
        while True:
            if await self.look():
                yield self.last.view
            pause_s = self._random.uniform(self._config.period_least_s, self._config.period_most_s)
            await self._sleep(pause_s)

    async def look(self) -> bool:
        """One round: whether the view is another one now. Never raises what DNS does wrong."""
        deadline_s = asyncio.get_running_loop().time() + self._config.round_timeout_s
        try:
            found = await self._found(deadline_s)
        except Unanswered as error:
            return self.last.failed(str(error))
        lacking = [member.name for member, hosts in found.items() if not hosts]
        view = assemble(found, port=self._port, before=self.last.view)
        return self.last.take(view, lacking=_lacking(lacking))

    async def _found(self, deadline_s: float) -> Mapping[Member, Hosts]:
        """The members, each with its addresses."""
        if self._srv:
            targets = await self._lookup.targets(self._name, deadline_s)
            self._named = self._named or bool(targets)
            if self._named:
                return await self._located(targets, deadline_s)
        hosts = await self._lookup.addresses(self._name, deadline_s)
        return {Member(name=host): (host,) for host in hosts}

    async def _located(self, targets: Mapping[str, Target], deadline_s: float) -> Mapping[Member, Hosts]:
        """Every target as a member; without an address where none was to be had in time."""
        if len({_member_name(target) for target in targets}) < len(targets):
            raise Unanswered(f"two targets of {self._name} begin with the same label")
        slots = asyncio.Semaphore(self._config.max_lookups)

        async def located(target: str, hosts: Hosts) -> Hosts:
            if hosts:
                return hosts
            async with slots:
                try:
                    return await self._lookup.addresses(target, deadline_s)
                except Unanswered:
                    return ()

        async with asyncio.TaskGroup() as group:
            asked = {
                target: group.create_task(located(target, found.hosts)) for target, found in targets.items()
            }
        weights = relative({target: found.weight for target, found in targets.items()})
        return {
            Member(name=_member_name(target), weight=weights[target]): task.result()
            for target, task in asked.items()
        }


def _member_name(target: str) -> str:
    return target.partition(".")[0]


def relative(weights: Mapping[str, int]) -> Mapping[str, int]:
    """The weights for a ring, out of those of SRV records (0 to 65,535).

    Those that are all alike say nothing, and are 1: Kubernetes gives each of n pods 100 / n, another number whenever
    one comes or goes. Others stand as they are, the least being 1, scaled down where they are over `MAX_WEIGHT`.
    """
    if len(set(weights.values())) <= 1:
        return dict.fromkeys(weights, 1)
    most = max(MAX_WEIGHT, *weights.values())
    return {target: max(1, weight * MAX_WEIGHT // most) for target, weight in weights.items()}


def _lacking(names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return f"no address was found for {', '.join(names[:_TOLD])}{more}"
