"""The HTTP door, for operators and their programs alone: probes, metrics, status. No client reads caches here.

`HttpDoor` listens and ends, `Pages` answers, and what there is to count is in `node_metrics`, `peer_metrics` and
`door_metrics`, collected when somebody asks.
"""

from cluster.doors.http.door import HttpDoor
from cluster.doors.http.exposition import Sources
from cluster.doors.http.pages import Pages

__all__ = ["HttpDoor", "Pages", "Sources"]
