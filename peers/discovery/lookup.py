"""Questions to DNS, through dnspython: absolute names, over UDP and, where that is too small, TCP.

Every question has a deadline, which is shared by all attempts at it. Foreign exceptions end here: what
could not be learned is `Unanswered`, what is not there is empty.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdataclass
import dns.rdatatype
import dns.resolver
from dns.rdatatype import RdataType
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from snapring.errors import ConfigInvalid

_NO_SERVICE: Final = "."
"""The target that says: decidedly not here (RFC 2782)."""

_PAYLOAD_BYTES: Final = 1232
"""What one datagram may carry unfragmented on any path (dnsflagday.net/2020); more goes over TCP."""


class Unanswered(Exception):
    """A question to DNS brought no answer that can be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nameserver:
    """A DNS server to ask: its IP address and port."""

    host: str
    port: int = 53


Hosts = tuple[str, ...]
"""IP addresses as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What an SRV record points to: its ``weight`` beside the others, and its addresses, as far as they came along."""

    weight: int
    hosts: Hosts


class Lookup:
    """Asks the ``nameservers``, or the system's where none are given. For one event loop.

    A server that has not answered after ``attempt_timeout_s`` is asked again, or the next one is. An answer
    with more than ``max_records`` records of one type is refused.
    """

    def __init__(
        self, *, nameservers: Sequence[Nameserver], attempt_timeout_s: float, max_records: int
    ) -> None:
        self._resolver = _resolver(nameservers)
        self._resolver.timeout = attempt_timeout_s
        self._resolver.use_edns(0, 0, _PAYLOAD_BYTES)
        self._max_records = max_records

    async def targets(self, service: str, deadline_s: float) -> dict[str, Target]:
        """The SRV targets of ``service`` (both lower-case and absolute), each once.

        Each comes with its weight and the addresses that the same answer brought along: none, where it brought none. Empty
        where ``service`` has no SRV record. Raises `Unanswered`, also where the name does not exist.
        """
        answer = await self._ask(service, RdataType.SRV, deadline_s)
        beside = _hosts_by_name(answer.response.additional)
        weights: dict[str, int] = {}
        for record in self._records(service, answer):
            target = _text(record.target)
            weights[target] = max(
                weights.get(target, 0), record.weight
            )  # a target has a record for each port
        return {
            target: Target(weight=weights[target], hosts=tuple(sorted(beside[target])))
            for target in sorted(weights)
            if target != _NO_SERVICE
        }

    async def addresses(self, host: str, deadline_s: float) -> Hosts:
        """The IPv4 addresses of ``host``, or its IPv6 addresses where it has no others; empty where none.

        Never IPv6 because the question for IPv4 failed. Raises `Unanswered`, also where there is no such name.
        """
        for kind in (RdataType.A, RdataType.AAAA):
            answer = await self._ask(host, kind, deadline_s)
            found = tuple(sorted({str(record.address) for record in self._records(host, answer)}))
            if found:
                return found
        return ()

    async def _ask(self, name: str, kind: RdataType, deadline_s: float) -> dns.resolver.Answer:
        left_s = max(0.0, deadline_s - asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(left_s):  # dnspython's own bound goes by the wall clock
                return await self._resolver.resolve(
                    dns.name.from_text(name), kind, lifetime=left_s, search=False, raise_on_no_answer=False
                )
        except dns.resolver.NXDOMAIN as error:
            raise Unanswered(f"{name} does not exist") from error
        except (TimeoutError, dns.exception.Timeout) as error:
            raise Unanswered(f"no DNS server answered for {name} in time") from error
        except (dns.exception.DNSException, OSError) as error:
            raise Unanswered(f"DNS failed for {name}: {error}") from error

    def _records(self, name: str, answer: dns.resolver.Answer) -> dns.rdataset.Rdataset | tuple[()]:
        if answer.rrset is None:
            return ()
        if len(answer.rrset) > self._max_records:
            raise Unanswered(f"{name} has {len(answer.rrset)} records, more than {self._max_records}")
        return answer.rrset


def _resolver(nameservers: Sequence[Nameserver]) -> dns.asyncresolver.Resolver:
    try:
        resolver = dns.asyncresolver.Resolver(configure=not nameservers)
    except dns.resolver.NoResolverConfiguration as error:
        raise ConfigInvalid([f"the system names no DNS server ({error}): name one"]) from error
    if nameservers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(one.host, one.port) for one in nameservers]
    return resolver


def _hosts_by_name(records: Iterable[dns.rrset.RRset]) -> Mapping[str, set[str]]:
    hosts: dict[str, set[str]] = defaultdict(set)
    for found in records:
        hosts[_text(found.name)].update(one.address for one in found if isinstance(one, A | AAAA))
    return hosts


def _text(name: dns.name.Name) -> str:
    return name.to_text().lower()
