"""Asks one key of a RESP door through many connections, each as fast as it is answered, refused or not: a flood.

Or it comes, shows its key and goes, again and again: a flood of logins.
"""

import argparse
import asyncio
import os
import socket
from contextlib import ExitStack
from typing import Final, cast

import hiredis
import uvloop

from scripts.benchmarks.hits import KEY

_REPORT_S: Final = 0.5


class _Asker(asyncio.Protocol):
    """One connection. ``answers`` and ``refusals`` count for all of them."""

    answers = 0
    refusals = 0

    def __init__(self, key: bytes, request: bytes, pipeline: int) -> None:
        self._key = key
        self._request = request * pipeline
        self._pipeline = pipeline
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        self._awaited = 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Show the key."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"AUTH %b\r\n" % self._key)

    def data_received(self, data: bytes) -> None:
        """Whatever comes is an answer: ask again once there is one to everything."""
        self._reader.feed(data)
        for answer in iter(self._reader.gets, Ellipsis):
            refused = isinstance(answer, hiredis.ReplyError)
            _Asker.refusals += refused
            _Asker.answers += not refused
            self._awaited -= 1
        if not self._awaited:
            self._awaited = self._pipeline
            self._transport.write(self._request)


def main() -> None:
    """Ask until killed; every half second one line of how often it was answered and refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument(
        "--pipeline", type=int, default=1, help="requests that one connection sends at once; 0: it goes"
    )
    uvloop.run(_flood(parser.parse_args(), os.environ["SNAPRING_BENCH_KEY"].encode()))


async def _flood(asked: argparse.Namespace, key: bytes) -> None:
    name = KEY.replace("__rand_int__", "000000000000").encode()
    request = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(name), name)
    loop = asyncio.get_running_loop()
    if not asked.pipeline:
        loop.run_in_executor(None, _come_and_go, key, asked.port, asked.connections)
    for _ in range(asked.connections if asked.pipeline else 0):
        await loop.create_connection(lambda: _Asker(key, request, asked.pipeline), "127.0.0.1", asked.port)
    while True:
        before = _Asker.answers, _Asker.refusals
        await asyncio.sleep(_REPORT_S)
        print(
            *(round((now - was) / _REPORT_S) for now, was in zip(_counts(), before, strict=True)), flush=True
        )


def _come_and_go(key: bytes, port: int, connections: int) -> None:
    while True:
        with ExitStack() as stack:
            comers = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(connections)
            ]
            for each in comers:
                each.sendall(b"AUTH %b\r\n" % key)
            welcome = [each.recv(64) == b"+OK\r\n" for each in comers]
            _Asker.answers += sum(welcome)
            _Asker.refusals += len(welcome) - sum(welcome)


def _counts() -> tuple[int, int]:
    return _Asker.answers, _Asker.refusals


if __name__ == "__main__":
    main()
