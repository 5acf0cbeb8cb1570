"""A node under proof, a process of its own that lives more than once."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Final, Self

from scripts.demonstration.programs import ProgramFailed, last_words, running
from scripts.proof.proxy import HOST

_START_S: Final = 30.0
_DRAIN_S: Final = 20.0
_POLL_S: Final = 0.05


class NodeEnded(ProgramFailed):
    """A node ended before its time, or not when it was told to, which no fault excuses."""


class NodeProcess:
    """The node called ``name``, which answers RESP on ``port`` while it lives; its context ends every life.

    ``turn`` belongs to whoever does something to this node alone.
    """

    def __init__(
        self, name: str, command: Sequence[str], port: int, log_file: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.port = port
        self.log_file = log_file
        self.turn = asyncio.Lock()
        self._command = command
        self._environment = environment
        self._lives = contextlib.AsyncExitStack()
        self._alive = asyncio.Event()

    def __repr__(self) -> str:
        return f"<NodeProcess {self.name} {'alive' if self._alive.is_set() else 'not there'}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._alive.is_set():
            with contextlib.suppress(ProcessLookupError):
                self.resume()  # SIGTERM must reach it
        await self._lives.aclose()

    @property
    def pid(self) -> int:
        """The process id of its present life, or of the last one."""
        return self._process.pid

    async def start(self) -> None:
        """Begin a life, and wait until it answers. Raises `ProgramFailed`."""
        life = running(*self._command, log_file=self.log_file, env=self._environment)
        self._process = await self._lives.enter_async_context(life)
        await self._until_it_answers()
        self._alive.set()

    async def kill(self) -> None:
        """SIGKILL: nothing is finished or said. `start` is to follow."""
        self._alive.clear()
        self._process.kill()
        await self._process.wait()

    async def drain(self) -> None:
        """SIGTERM, and wait for its end. Raises `NodeEnded` if that is late or not in order."""
        self._alive.clear()
        self._process.terminate()
        try:
            async with asyncio.timeout(_DRAIN_S):
                status = await self._process.wait()
        except TimeoutError:
            raise NodeEnded(f"{self.name} did not end within {_DRAIN_S:g} s:\n{self._words}") from None
        if status:
            raise NodeEnded(f"{self.name}, told to end, did so with status {status}:\n{self._words}")

    def pause(self) -> None:
        """SIGSTOP: its connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    async def outlive(self) -> None:
        """Wait for an end that nobody wanted, in whatever life, and raise `NodeEnded`."""
        while True:
            await self._alive.wait()
            status = await self._process.wait()
            if self._alive.is_set():
                raise NodeEnded(f"{self.name} ended with status {status}:\n{self._words}")

    async def _until_it_answers(self) -> None:
        deadline_s = monotonic() + _START_S
        while self._process.returncode is None and monotonic() < deadline_s:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, self.port)
                writer.close()
                return
            await asyncio.sleep(_POLL_S)
        raise ProgramFailed(f"{self.name} does not answer:\n{self._words}")

    @property
    def _words(self) -> str:
        return last_words(self.log_file)
