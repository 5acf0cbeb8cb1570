"""SNAP.TRACE traceparent COMMAND …: the command, as part of the client's trace. It works with every Redis library.

The reply is the command's own, and the command is let in as if it stood alone. The context is that of W3C's "Trace
Context"; one that is none is ignored, as is demanded there: what a service was sent by somebody else must not fail its
reads. Ignored, too, is that of a client who has not said who he is, where the door asks.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Final

from cluster.doors.resp.commands import Alone, Command, Commands, Outcome, Session, Words
from snapring.errors import CommandInvalid

if TYPE_CHECKING:
    from cluster.tracing.traced import Traced
    from cluster.tracing.tracing import Tracing

NAME: Final = "SNAP.TRACE"


class Traces:
    """The commands of a door as part of traces, where there are any: ``traced`` are those that tell what they do.

    ``asks``: whether clients must say who they are.
    """

    def __init__(
        self, plain: Commands, traced: Commands | None = None, tracing: "Tracing | None" = None, *, asks: bool
    ) -> None:
        self._plain = plain
        self._traced = traced or plain
        self._tracing = tracing
        self._asks = asks
        self.command = Command(
            name=NAME,
            arity=-3,
            summary="A command as part of a trace",
            run=self.run,
            flags=("write", "movablekeys"),
        )

    def run(self, session: Session, words: Words) -> Outcome:
        """SNAP.TRACE traceparent command [argument …]."""
        inner, traced = words[2:], None
        if inner[0].upper() == NAME.encode():
            raise CommandInvalid(
                "SNAP.TRACE takes a command other than itself: a request is part of one trace"
            )
        if self._tracing is not None and not (self._asks and session.caller is None):
            name = self._plain.name(inner[0])
            traced = self._tracing.asked(name, words[1]) if name else None
        return self._plain.execute(session, inner) if traced is None else self._tell(traced, session, inner)

    def choose(self, session: Session, words: Words) -> Outcome | None:
        """What ``words`` come to where they begin a trace, by chance; None where they do not."""
        tracing = self._tracing
        if tracing is None or not tracing.draws() or (self._asks and session.caller is None):
            return None
        name = self._plain.name(words[0])
        traced = tracing.drawn(name) if name and name != NAME else None
        return None if traced is None else self._tell(traced, session, words)

    def _tell(self, traced: "Traced", session: Session, words: Words) -> Outcome:
        with traced.begun():
            outcome = self._traced.execute(session, words)
        if isinstance(outcome, Alone):
            begin = outcome.begin
            return Alone(lambda: traced.errand(begin()))
        if isinstance(outcome, Coroutine):
            return traced.errand(outcome)
        traced.end()
        return outcome


class Sampled(Commands):
    """``commands``, some of which begin a trace."""

    def __init__(self, commands: Commands, traces: Traces) -> None:
        super().__init__(commands.by_name.values())
        self._commands = commands
        self._traces = traces

    def execute(self, session: Session, words: Words) -> Outcome:
        """See `Commands`."""
        return self._traces.choose(session, words) or self._commands.execute(session, words)
