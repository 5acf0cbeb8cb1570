"""Between a client's words and the command that they spell: who he is, what he may, and whose keys they name.

Every key of every command is turned into one of the caller's tenant here, by the table of `cluster.access.needs`, so
that no command has to think of tenants, and one that is missing in the table is refused.
"""

from collections.abc import Callable, Coroutine
from typing import Final

from cluster.access.gate import Caller
from cluster.access.needs import COMMANDS, Need
from cluster.doors.resp.commands import Command, Outcome, Session, Words
from cluster.entries import Entry
from snapring.errors import Overloaded, PermissionDenied, Unauthenticated

LOGIN_BYTES: Final = 16 * 1024
LOGIN_WORDS: Final = 10
"""The largest command before a key has been shown, as in Redis."""


class Admission:
    """The same for every connection of a guarded door."""

    def run(self, session: Session, command: Command, words: Words) -> Outcome:
        """What ``command`` makes of ``words``. Raises `Unauthenticated`, `PermissionDenied`, `Overloaded`.

        What is to be waited for has entered the caller's `Allowance`: who waits must leave it.
        """
        need, caller = COMMANDS.get(command.name), session.caller
        if need is None:
            raise PermissionDenied(f"the '{command.name.lower()}' command is open to nobody here")
        if need.role is None:
            return command.run(session, words)
        if caller is None:
            raise Unauthenticated("Authentication required.")
        places = [] if need.keys is None else list(need.keys(words))
        self._allow(session, caller, need, command, len(places) or 1)
        if places:
            words = words.copy()
            for place in places:
                words[place] = caller.reach.text(words[place])
        outcome = command.run(session, words)
        return outcome if isinstance(outcome, bytes) else _entered(caller, outcome)

    def _allow(self, session: Session, caller: Caller, need: Need, command: Command, requests: int) -> None:
        assert need.role is not None, "who needs no role is not asked for one"
        if caller.identity.role < need.role:
            raise PermissionDenied(
                f"this user has no permissions to run the '{command.name.lower()}' command:"
                f" it needs the role {need.role.name.lower()}, the key's is {caller.identity.role.name.lower()}"
            )
        try:
            caller.allowance.take(requests)
        except Overloaded:
            session.rest_s = caller.allowance.rest_s
            raise


def _entered(caller: Caller, outcome: Outcome) -> Outcome:
    try:
        caller.allowance.enter()
    except Overloaded:
        if isinstance(outcome, Coroutine):
            outcome.close()
        raise
    return outcome


def finder(caller: Caller, find: Callable[[bytes], Entry | None]) -> Callable[[bytes], Entry | None]:
    """``find`` for the hit path of ``caller``'s connection: within its tenant, and its rate.

    An entry that has ended is none: who reads its key pays when that is loaded.
    """
    reached, allowance = caller.reach.finder(find), caller.allowance
    if not allowance.metered:
        return reached

    def metered(text: bytes) -> Entry | None:
        entry = reached(text)
        if entry is None or entry.until_s < 0 or allowance.credit < 1.0:
            return None
        allowance.credit -= 1.0
        return entry

    return metered
