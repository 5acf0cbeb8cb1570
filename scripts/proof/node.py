"""The node under proof: the ordinary program, without one of its guards if that is asked."""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Final

import peers.discovery
from cluster.cli import main as snapring
from peers.discovery.dns import DnsConfig
from peers.discovery.lookup import Nameserver
from scripts.proof import hops
from scripts.proof.clock import follow
from scripts.proof.mutations import MUTATIONS

_LOOK_LEAST_S: Final = 0.1
_LOOK_MOST_S: Final = 0.2
"""A proof has no time for DNS as it is in a cluster, where a change is seen after seconds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``snapring node`` with whatever ``arguments`` are not of this program."""
    follow()
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--mutate", choices=MUTATIONS)
    parser.add_argument("--nameserver")
    own, words = parser.parse_known_args(arguments)
    if own.nameserver:
        _ask(own.nameserver)
        hops.watch()
    if own.mutate:
        _remove(own.mutate)
    return snapring(["node", *words])


def _ask(nameserver: str) -> None:
    """Find the others through ``nameserver``, and look often. Before the membership is imported."""
    host, _, port = nameserver.rpartition(":")
    config = DnsConfig(
        nameservers=(Nameserver(host=host, port=int(port)),),
        period_least_s=_LOOK_LEAST_S,
        period_most_s=_LOOK_MOST_S,
    )
    setattr(peers.discovery, "DiscoveryConfig", partial(peers.discovery.DiscoveryConfig, dns=config))  # noqa: B010


def _remove(guard: str) -> None:
    remove = MUTATIONS[guard].remove
    assert remove is not None, "the guard is in the node, not in the database"
    remove()


if __name__ == "__main__":
    raise SystemExit(main())
