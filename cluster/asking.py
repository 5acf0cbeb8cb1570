"""Asks a node's RESP door one question: for the programs that watch and start nodes."""

import asyncio
import os
import ssl
from dataclasses import dataclass, field
from typing import Final

import hiredis

from snapring.errors import Unavailable
from snapring.refusals import refusal

_CHUNK_BYTES: Final = 64 * 1024
_MAX_REPLY_BYTES: Final = 4 * 1024 * 1024
_MORE: Final = object()


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who asks: the API ``key`` that it shows, and ``tls``, whom it believes; None where the door wants neither.
    ``server_name``: what the certificate says, where that is not the host's name.
    """

    key: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    server_name: str | None = None


class Refused(ConnectionError):
    """It answered with an error, which ``error`` is."""

    def __init__(self, text: str) -> None:
        super().__init__(f"it answered {text}")
        code, _, message = text.partition(" ")
        self.error = refusal(code, message)


async def ask(door: str, *words: str, within_s: float, by: Introduction | None = None) -> object:
    """What the node at ``door`` (``host:port``) answers to the command ``words``, text as `str`.

    Raises `Unavailable`, which says why there is no answer (its cause is `Refused` where that is one of the node's),
    `ValueError` if ``door`` is no address.
    """
    host, port = parse_door(door)
    try:
        async with asyncio.timeout(within_s):
            return await _answer(host, port, words, by or Introduction())
    except TimeoutError:
        raise Unavailable(f"no answer from {door} within {within_s:g} s") from None
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"no answer from {door}: {_reason(error)}") from error
    except hiredis.HiredisError as error:
        raise Unavailable(f"{door} does not speak RESP: {error}") from error


def parse_door(text: str) -> tuple[str, int]:
    """Host and port of ``host:port``, an IPv6 address in brackets. Raises `ValueError`."""
    host, _, port = text.rpartition(":")
    if host[:1] + host[-1:] == "[]":
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65_535):
        raise ValueError(f"{text!r}: expected host:port, such as 127.0.0.1:7379 or [::1]:7379")
    return host, int(port)


def show_door(host: str, port: int) -> str:
    """The ``host:port`` that `parse_door` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _answer(host: str, port: int, words: tuple[str, ...], by: Introduction) -> object:
    name = (by.server_name or host) if by.tls else None
    reader, writer = await asyncio.open_connection(host, port, ssl=by.tls, server_hostname=name)
    try:
        if by.key is not None:
            writer.write(hiredis.pack_command(("AUTH", by.key)))  # type: ignore[arg-type]  # the same
            await _reply(reader)
        writer.write(hiredis.pack_command(words))  # type: ignore[arg-type]  # its type allows one word
        return await _reply(reader)
    finally:
        writer.transport.abort()


async def _reply(reader: asyncio.StreamReader) -> object:
    parser, received = hiredis.Reader(encoding="utf-8", errors="replace", notEnoughData=_MORE), 0
    while (reply := parser.gets()) is _MORE:
        chunk = await reader.read(_CHUNK_BYTES)
        received += len(chunk)
        if not chunk or received > _MAX_REPLY_BYTES:
            raise ConnectionError("it hung up" if not chunk else "its answer does not end")
        parser.feed(chunk)
    if isinstance(reply, hiredis.ReplyError):
        raise Refused(str(reply))
    return reply


def _reason(error: OSError | UnicodeError) -> str:
    number = getattr(error, "errno", None)
    # asyncio words a refusal its own way, with the address again; negative numbers are of the name resolution.
    return (
        os.strerror(number).lower()
        if number and number > 0
        else getattr(error, "strerror", None) or str(error)
    )
