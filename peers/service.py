"""What answers the other nodes: a gRPC server with one method, a conversation each stream."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import grpc.aio

from peers.bounds import Bounds
from peers.connection import Traffic
from peers.conversation import Conversation
from peers.errors import PeerError
from peers.inbox import Handler
from peers.members import Address
from peers.transport import METHOD, SERVICE, listening_at, server_options
from peers.trust import Trust, names_in
from peers.wire import Hello

_FAREWELL_S: Final = 0.1

_log: Final = logging.getLogger("snapring.peers")


class Service:
    """Listens at ``address`` (port 0: any, see ``port``) and hands every call to ``handler``.

    ``hello`` says who we are, anew for each message. With ``trust`` only nodes that it believes are answered.
    """

    def __init__(
        self,
        address: Address,
        *,
        handler: Handler,
        hello: Callable[[], Hello],
        bounds: Bounds,
        trust: Trust | None = None,
    ) -> None:
        self.address = address
        self.port = 0
        self.traffic = Traffic()
        self._handler = handler
        self._hello = hello
        self._bounds = bounds
        self._trust = trust
        self._server: grpc.aio.Server | None = None
        self._conversations: set[Conversation] = set()
        self._stopping = False

    def __repr__(self) -> str:
        state = "stopping" if self._stopping else "listening" if self._server else "not started"
        return (
            f"<Service at {self.address.host} port {self.port}: {state}; {self.askers} askers {self.traffic}>"
        )

    @property
    def askers(self) -> int:
        """Streams that are open."""
        return len(self._conversations)

    async def start(self) -> None:
        """Listen. Raises `RuntimeError` if the address cannot be had."""
        server = grpc.aio.server(
            options=server_options(self._bounds), maximum_concurrent_rpcs=self._bounds.max_connections
        )
        method = grpc.stream_stream_rpc_method_handler(self._converse)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})])
        where = listening_at(self.address)
        if self._trust is None:
            self.port = server.add_insecure_port(where)
        else:
            self.port = server.add_secure_port(where, self._trust.for_answering())
        await server.start()
        self._server = server

    def announce(self) -> None:
        """What ``hello`` says has changed: tell every asker."""
        for conversation in self._conversations:
            conversation.announce()

    def expel(self) -> None:
        """End every stream: who is still trusted comes again."""
        for conversation in tuple(self._conversations):
            conversation.end()

    async def stop(self, within_s: float) -> None:
        """Refuse new calls, answer those under way within ``within_s``, then end every stream and listen no more."""
        self._stopping = True
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + within_s
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await asyncio.gather(*(conversation.finish() for conversation in self._conversations))
        for conversation in self._conversations:
            conversation.end()
        if self._server is not None:
            await self._server.stop(max(_FAREWELL_S, deadline_s - loop.time()))
            self._server = None

    async def _converse(self, _: object, stream: Any) -> None:
        conversation = Conversation(
            stream,
            handler=self._handler,
            bounds=self._bounds,
            hello=self._hello,
            stopping=lambda: self._stopping,
            traffic=self.traffic,
            believes=self._belief(stream),
        )
        self._conversations.add(conversation)
        try:
            await conversation.run()
        except PeerError as error:
            _log.debug("%r has ended: %s", conversation, error)
        finally:
            self._conversations.discard(conversation)

    def _belief(self, stream: Any) -> Callable[[str], bool]:
        """Whom the other end of ``stream`` may say to be."""
        trust = self._trust
        if trust is None:
            return lambda _: True
        names = names_in(stream.auth_context())
        return lambda node: trust.believes(node, names)
