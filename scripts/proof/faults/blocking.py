"""Calls that block, beside the event loop, and never left half done."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_full(call: Callable[[], T]) -> T:
    """What ``call`` returns, from a thread. A cancellation takes effect when it has returned."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        running.exception()  # looked at, though nobody asks any more
        raise
