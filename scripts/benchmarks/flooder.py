"""Asks one key of a RESP door through many connections, each as fast as it is answered, refused or not: a flood."""

import argparse
import asyncio
import os
from typing import Final, cast

import uvloop

from scripts.benchmarks.hits import KEY

_REPORT_S: Final = 0.5


class _Asker(asyncio.Protocol):
    """One connection. ``answers`` and ``refusals`` count for all of them."""

    answers = 0
    refusals = 0

    def __init__(self, key: bytes, request: bytes) -> None:
        self._key = key
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Show the key."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"AUTH %b\r\n" % self._key)

    def data_received(self, data: bytes) -> None:
        """Whatever comes is the answer: ask again."""
        if data.startswith(b"-"):
            _Asker.refusals += 1
        else:
            _Asker.answers += 1
        self._transport.write(self._request)


def main() -> None:
    """Ask until killed; every half second one line of how often it was answered and refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    uvloop.run(_flood(parser.parse_args(), os.environ["SNAPRING_BENCH_KEY"].encode()))


async def _flood(asked: argparse.Namespace, key: bytes) -> None:
    name = KEY.replace("__rand_int__", "000000000000").encode()
    request = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(name), name)
    loop = asyncio.get_running_loop()
    for _ in range(asked.connections):
        await loop.create_connection(lambda: _Asker(key, request), "127.0.0.1", asked.port)
    while True:
        before = _Asker.answers, _Asker.refusals
        await asyncio.sleep(_REPORT_S)
        print(
            *(round((now - was) / _REPORT_S) for now, was in zip(_counts(), before, strict=True)), flush=True
        )


def _counts() -> tuple[int, int]:
    return _Asker.answers, _Asker.refusals


if __name__ == "__main__":
    main()
