"""A DNS server for one node: it names the members of the cluster that this node is to see.

Real packets over UDP, as a headless service of Kubernetes has them: an SRV record for each member, and beside
them the addresses.
"""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rrset
from dns.rdatatype import RdataType

from scripts.proof.proxy import HOST

SERVICE: Final = "snapring.proof"
"""The service and its namespace, as the node's address form has them."""

_NAME: Final = dns.name.from_text(f"{SERVICE}.svc.cluster.local.")
_TTL_S: Final = 1


class NameServer(asyncio.DatagramProtocol):
    """Answers on ``port`` with ``members``: the address of each by its name, each at ``peers_port``."""

    def __init__(self, peers_port: int) -> None:
        self.members: Mapping[str, str] = {}
        self.port = 0
        self._peers_port = peers_port
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(HOST, 0))
        self.port = transport.get_extra_info("sockname")[1]
        self._transport = transport
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """asyncio's. What is no question is not answered."""
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return
        if self._transport is not None and query.question:
            self._transport.sendto(self._answer(query).to_wire(), addr)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        asked, answer = query.question[0], dns.message.make_response(query)
        answer.flags |= dns.flags.AA
        if asked.name != _NAME:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif asked.rdtype is RdataType.SRV and self.members:
            targets = [f"0 100 {self._peers_port} {self._pod(name)}" for name in self.members]
            answer.answer.append(_records(_NAME, RdataType.SRV, targets))
            answer.additional += [
                _records(self._pod(name), RdataType.A, [address]) for name, address in self.members.items()
            ]
        return answer

    def _pod(self, name: str) -> dns.name.Name:
        return dns.name.from_text(name, _NAME)


def _records(name: dns.name.Name, kind: RdataType, texts: list[str]) -> dns.rrset.RRset:
    return dns.rrset.from_text_list(name, _TTL_S, dns.rdataclass.IN, kind, texts)
