"""The RESP door: any Redis client reads every cache of a node, and writes its ``store`` caches.

`RespDoor` listens and ends, `Connection` keeps one client's order and bounds, `CommandParser` turns its
bytes into commands, and the commands are in `reads`, `writes`, `listing`,
`conversation`, `inspection`, `cluster_commands` and `refusals`. `Tracking` tells clients that keep values themselves when to
let go of them.
"""

from cluster.doors.resp.door import RespDoor

__all__ = ["RespDoor"]
