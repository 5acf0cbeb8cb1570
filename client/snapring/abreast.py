"""Several courses side by side in one thread: what each has to send is sent before any answer is read.

It goes in rounds. In a round each course makes a step; connections are taken in the order of the nodes' addresses, and
no two to one node, so that callers who go through several nodes at once never wait for one another in a circle.
"""

import time
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any

from snapring.connections import Connections, Sent
from snapring.course import Course, Exchange, Rest, Step


class _Lane:
    """One course, at a ``step`` since monotonic ``since_s``, which is None at its end; then there is a ``result``."""

    __slots__ = ("came", "course", "result", "since_s", "step")

    def __init__(self, course: Course[Any]) -> None:
        self.course = course
        self.step: Step | None = next(course)
        self.since_s = monotonic()
        self.came: Sent | Exception | None = None
        self.result: Any = None

    def go_on(self, came: object) -> None:
        """Take the next step. Raises what the course raises."""
        try:
            self.step = self.course.throw(came) if isinstance(came, Exception) else self.course.send(came)
            self.since_s = monotonic()
        except StopIteration as end:
            self.step, self.result = None, end.value


def abreast(courses: Sequence[Course[Any]], connections: Connections) -> list[Any]:
    """The results of ``courses``. The first error ends the others."""
    lanes = [_Lane(course) for course in courses]
    while any(lane.step for lane in lanes):
        _rest([lane for lane in lanes if isinstance(lane.step, Rest)])
        departing = list(_departing(lanes))
        try:
            for lane, step in departing:
                lane.came = _sent(step, lane.since_s, connections)
            for lane, _ in departing:
                came, lane.came = lane.came, None
                lane.go_on(_received(came, connections))
        finally:
            for lane, _ in departing:
                if isinstance(lane.came, Sent):
                    connections.abandon(lane.came)
    return [lane.result for lane in lanes]


def _departing(lanes: Sequence[_Lane]) -> Iterator[tuple[_Lane, Exchange]]:
    """Who has something to send, one for each node."""
    sending = [(lane, lane.step) for lane in lanes if isinstance(lane.step, Exchange)]
    by_node = {step.address: (lane, step) for lane, step in reversed(sending)}
    for address in sorted(by_node):
        yield by_node[address]


def _rest(resting: Sequence[_Lane]) -> None:
    """All rests of a round are one."""
    if resting:
        time.sleep(max(lane.step.seconds for lane in resting if isinstance(lane.step, Rest)))
        for lane in resting:
            lane.go_on(None)


def _sent(step: Exchange, since_s: float, connections: Connections) -> Sent | Exception:
    try:
        return connections.send(step, since_s + step.timeout_s)
    except Exception as error:  # noqa: BLE001  # the course decides what becomes of it
        return error


def _received(sent: Sent | Exception | None, connections: Connections) -> list[Any] | Exception:
    assert sent is not None, "what departs was sent, or failed"
    if isinstance(sent, Exception):
        return sent
    try:
        return connections.receive(sent)
    except Exception as error:  # noqa: BLE001  # the same
        return error
