"""What a node tells whoever keeps values that it got here: which keys it no longer vouches for, and how far it is.

`log` remembers, within bounds, which keys left memory and when; `hub` hands that to subscribers. No protocol is
known here: doors make of it what their clients understand.

What a subscriber may rely on. A value that this node **held**, that is, read out of an open entry and told to be
true from `Place` p on (`Hub.since`), is true at the watermark of every `News` of the same log whose place is not
before p, as long as none of the news since then has named its key or was ``skipped``. So:

W1  A key is named whenever the open entry under it ends, is replaced or leaves memory, whatever the reason.
W2  News bear a watermark only if they name, together with those before them, every key that left until then.
W3  Who missed anything hears ``skipped`` before anything else, and must let go of everything.
W4  Places of another log, that is of another node or another life of this one, are never read on from.
"""

from cluster.watching.hub import Hub, News, Subscription
from cluster.watching.log import Place

__all__ = ["Hub", "News", "Place", "Subscription"]
