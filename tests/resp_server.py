"""A small RESP server of the tests' own, for what a real node cannot be made to do: break off, refuse, tell of slots.

It answers HELLO and CLIENT by itself, and everything else as ``answer`` says.
"""

import socket
import threading
from collections.abc import Callable
from typing import Self

import hiredis

Words = tuple[bytes, ...]
HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"
VALUE = b"$1\r\n\xc0\r\n"
STOPPING = b"-NODE_STOPPING the node is stopping: ask another\r\n"
UNKNOWN = b"-ERR unknown command 'CLUSTER'\r\n"


class RespServer:
    """Listens on loopback. ``answer`` gives the bytes of a reply; None closes the connection instead.

    ``asked`` lists what it was asked, ``connections`` counts who came.
    """

    def __init__(self, answer: Callable[[Words], bytes | None]) -> None:
        self.answer = answer
        self.asked: list[Words] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(10)

    def hang_up(self) -> None:
        """Close every connection there is, as a node that restarts does."""
        while self._open:
            connection = self._open.pop()
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def commands(self, name: bytes) -> list[Words]:
        """What it was asked to do by that name."""
        return [words for words in self.asked if words[0] == name]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        reader = hiredis.Reader()
        with connection:
            while True:
                words = reader.gets()
                if words is False:
                    try:
                        data = connection.recv(65_536)
                    except OSError:
                        return
                    if not data:
                        return
                    reader.feed(data)
                    continue
                reply = self._reply(tuple(words))
                if reply is None:
                    return
                try:
                    connection.sendall(reply)
                except OSError:
                    return  # he has not waited for it

    def _reply(self, words: Words) -> bytes | None:
        if words[0] == b"HELLO":
            return HELLO
        if words[0] == b"CLIENT":
            return b"+OK\r\n"
        self.asked.append(words)
        return self.answer(words)


def found(value: bytes = b"\xc0", as_of: bytes = b"TOKEN") -> bytes:
    """A reply to SNAP.GET."""
    pairs = (b"value", value), (b"as_of", as_of), (b"state", b"FRESH"), (b"source", b"local")
    bulks = b"".join(b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(k), k, len(v), v) for k, v in pairs)
    return b"%5\r\n" + bulks + b"$6\r\nage_ms\r\n:11\r\n"


def answering(words: Words) -> bytes | None:
    """What a node that tells of no slots answers."""
    return UNKNOWN if words[0] == b"CLUSTER" else found()


def slots(*ranges: tuple[int, int, list["RespServer"]]) -> bytes:
    """A reply to CLUSTER SLOTS: first and last slot, then the owner and those that stand in for it."""
    rows = []
    for first, last, servers in ranges:
        nodes = b"".join(b"*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$1\r\nx\r\n" % server.port for server in servers)
        rows.append(b"*%d\r\n:%d\r\n:%d\r\n%b" % (2 + len(servers), first, last, nodes))
    return b"*%d\r\n%b" % (len(rows), b"".join(rows))
