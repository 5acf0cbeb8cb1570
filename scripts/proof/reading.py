"""The readers' process, seen from the outside: started, told of commits, ended, and its record fetched."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from scripts.demonstration.programs import ProgramFailed, last_words
from scripts.proof.readers import BEGUN, PORTS, Errand
from scripts.proof.replies import Replies

_BEGIN_S: Final = 60.0
_END_S: Final = 60.0


class Reading:
    """A readers' process at work."""

    def __init__(self, process: asyncio.subprocess.Process, errand: Errand, log_file: Path) -> None:
        assert process.stdin is not None, "it was started with a pipe"
        self._process = process
        self._orders = process.stdin
        self._file = Path(errand.file)
        self._log_file = log_file

    def tell(self, incarnation: int, xid: int) -> None:
        """A commit was acknowledged."""
        if not self._orders.is_closing():
            self._orders.write(b"%d %d\n" % (incarnation, xid))

    def send_to(self, ports: Sequence[int]) -> None:
        """These are the nodes in service from now on."""
        if not self._orders.is_closing():
            self._orders.write(b" ".join([PORTS, *(b"%d" % port for port in ports)]) + b"\n")

    async def begin(self) -> None:
        """Return once every reader has asked something, or has found nobody to ask. Raises `ProgramFailed`."""
        assert self._process.stdout is not None, "it was started with a pipe"
        try:
            async with asyncio.timeout(_BEGIN_S):
                said = await self._process.stdout.readline()
        except TimeoutError:
            raise ProgramFailed(f"a node kept a reader waiting for {_BEGIN_S:g} s") from None
        if said != BEGUN:
            raise ProgramFailed(f"the readers did not begin:\n{last_words(self._log_file)}")

    async def outlive(self) -> None:
        """Wait for its end, and raise `ProgramFailed`: it has none before its time."""
        await self._process.wait()
        raise ProgramFailed(f"the readers ended before their time:\n{last_words(self._log_file)}")

    async def record(self) -> Replies:
        """End it; what it has recorded. Raises `ProgramFailed`."""
        self._orders.close()
        try:
            async with asyncio.timeout(_END_S):
                status = await self._process.wait()
        except TimeoutError:
            raise ProgramFailed(f"the readers did not end within {_END_S:g} s") from None
        if status:
            raise ProgramFailed(f"the readers failed:\n{last_words(self._log_file)}")
        return Replies.load(self._file)


@contextlib.asynccontextmanager
async def reading(errand: Errand) -> AsyncIterator[Reading]:
    """Readers on ``errand`` who have begun, for as long as the context lasts. Raises `ProgramFailed`."""
    log_file = Path(errand.file).with_name("readers.log")
    with log_file.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "scripts.proof.readers"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env=dict(os.environ),
        )
    try:
        assert process.stdin is not None, "it was started with a pipe"
        process.stdin.write(errand.line())
        reading = Reading(process, errand, log_file)
        await reading.begin()
        yield reading
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
