"""Whether an answer that a peer gave is one to what was asked. Pure.

The peer has judged by what it knew. The asker judges again by what it asked and by its own clock, so that
neither the way nor a mistake of the peer makes an answer of what is none.
"""

from cluster.config import CacheConfig
from cluster.requests import AtLeast, Bounded, Consistency, Exactly, Reply, State, Strong, sees


def fits(
    reply: Reply, asked: Consistency, *, cache: CacheConfig, since_s: float, incarnation: int | None
) -> bool:
    """Whether ``reply``, asked for ``since_s`` ago, answers ``asked``. ``incarnation`` is the asker's own.

    Its age must include ``since_s``, see `decode_reply`.
    """
    match asked:
        case Bounded(floor=floor):
            return young(reply.state, reply.age_s, cache) and (
                floor is None or _allowed(reply, floor, incarnation)
            )
        case _ if reply.state is not State.FRESH:
            return False
        case Strong():
            # The peer's own measure, at most what passed here: its snapshot is later than the question.
            return reply.age_s - since_s <= since_s
        case AtLeast():
            return reply.incarnation == asked.incarnation and sees(reply.as_of, asked.position)
        case Exactly():
            return reply.incarnation == asked.incarnation and reply.as_of == asked.snapshot
    return False


def young(state: State, age_s: float, cache: CacheConfig) -> bool:
    """Whether it is as fresh as its label says, now that it has come."""
    most_s = cache.max_staleness_s if state is State.FRESH else cache.stale_if_error_s
    return most_s is not None and age_s <= most_s


def _allowed(reply: Reply, floor: AtLeast, incarnation: int | None) -> bool:
    """A floor lasts as long as its incarnation; the peer may be one that has not come to that yet."""
    if reply.incarnation == floor.incarnation:
        return sees(reply.as_of, floor.position)
    return reply.incarnation == incarnation
