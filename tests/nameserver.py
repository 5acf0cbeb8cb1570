"""A DNS server inside the test: real packets over UDP and TCP, on a zone that changes under it."""

import asyncio
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Self

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rrset
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from peers.discovery.lookup import Nameserver

HOST = "127.0.0.1"
SERVICE = "snapring.default.svc.cluster.local."
Question = tuple[str, RdataType]


class NameServer:
    """Answers from ``records``: the texts of a question's records; a name in none of them does not exist.

    ``rcodes`` fails questions with a code of choice, ``garbled`` answers them with noise, ``silent`` not at
    all; ``lost`` counts datagrams to leave unanswered; ``spoil`` may change an answer's bytes. ``beside`` says whether SRV answers bring addresses
    along, ``udp_bytes`` what fits into a datagram, ``over_tcp`` whether TCP is served. ``asked`` lists every
    question, with its transport.
    """

    def __init__(self) -> None:
        self.records: dict[Question, list[str]] = {}
        self.rcodes: dict[Question, Rcode] = {}
        self.garbled: set[Question] = set()
        self.silent: set[Question] = set()
        self.lost = 0
        self.spoil: Callable[[bytes], bytes] = bytes
        self.beside = True
        self.udp_bytes = 1232
        self.over_tcp = True
        self.asked: list[tuple[str, str, RdataType]] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        while True:
            self._udp, _ = await loop.create_datagram_endpoint(lambda: Datagrams(self), local_addr=(HOST, 0))
            self.port = self._udp.get_extra_info("sockname")[1]
            try:
                self._tcp = await asyncio.start_server(self._converse, HOST, self.port)
            except OSError:  # free for datagrams is not yet free for connections
                self._udp.close()
            else:
                break
        return self

    async def __aexit__(self, *_: object) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    @property
    def address(self) -> Nameserver:
        return Nameserver(host=HOST, port=self.port)

    def headless(self, pods: Mapping[str, str], *, service: str = SERVICE) -> None:
        """The zone of a headless service with these pods (name: address), and nothing else."""
        targets = [f"0 100 7946 {pod}.{service}" for pod in pods]
        self.records = {(service, RdataType.SRV): targets, (service, RdataType.A): []}
        for pod, address in pods.items():
            kind = RdataType.AAAA if ":" in address else RdataType.A
            self.records[f"{pod}.{service}", kind] = [address]
            self.records[service, RdataType.A] += [address] if kind is RdataType.A else []

    def without_srv(self, *addresses: str) -> None:
        """The zone of a name that has addresses alone."""
        four = [address for address in addresses if ":" not in address]
        six = [address for address in addresses if ":" in address]
        self.records = {(SERVICE, RdataType.A): four, (SERVICE, RdataType.AAAA): six}

    def answer(self, wire: bytes, transport: str) -> bytes | None:
        """What goes back for one packet, None for silence."""
        query = dns.message.from_wire(wire)
        name, kind = query.question[0].name.to_text().lower(), query.question[0].rdtype
        self.asked.append((transport, name, kind))
        if transport == "udp" and self.lost:
            self.lost -= 1
            return None
        if (name, kind) in self.silent:
            return None
        if (name, kind) in self.garbled:
            return wire[:2] + b"\x84\x00\xff\xff" * 3
        response = self._response(query, name, kind)
        most = min(query.payload or 512, self.udp_bytes) if transport == "udp" else 65_535
        return self.spoil(response.to_wire(max_size=most, prefer_truncation=True))

    def _response(self, query: dns.message.Message, name: str, kind: RdataType) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        response.set_rcode(self.rcodes.get((name, kind), self._rcode(name)))
        if response.rcode() == dns.rcode.NOERROR and self.records.get((name, kind)):
            response.answer.append(self._rrset(name, kind))
            if kind is RdataType.SRV and self.beside:
                response.additional += self._beside(response.answer[0])
        return response

    def _rcode(self, name: str) -> Rcode:
        return Rcode.NOERROR if any(name == known for known, _ in self.records) else Rcode.NXDOMAIN

    def _rrset(self, name: str, kind: RdataType) -> dns.rrset.RRset:
        return dns.rrset.from_text_list(name, 5, dns.rdataclass.IN, kind, self.records[name, kind])

    def _beside(self, services: dns.rrset.RRset) -> list[dns.rrset.RRset]:
        names = sorted({record.target.to_text() for record in services})
        kinds = (RdataType.A, RdataType.AAAA)
        return [self._rrset(name, kind) for name in names for kind in kinds if self.records.get((name, kind))]

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while self.over_tcp:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                back = self.answer(await reader.readexactly(length), "tcp")
                if back is not None:
                    writer.write(struct.pack("!H", len(back)) + back)
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    """The UDP side of a `NameServer`."""

    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        back = self._server.answer(data, "udp")
        if back is not None:
            self._transport.sendto(back, addr)
