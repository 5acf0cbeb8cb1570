"""What follows for connections from the settings that an operator names."""

from dataclasses import fields

import pytest

from cluster.config import PeersConfig
from cluster.node import Node
from cluster.peering.limits import bounds_of
from cluster.peering.place import Among
from cluster.settings.schema import specs
from nodes import config
from peers.bounds import Bounds


def test_what_is_configured_by_default_is_what_bounds_are_by_default() -> None:
    """But for the handshake, which may take as long as a hop: both are a second."""
    assert bounds_of(PeersConfig()) == Bounds()


def test_a_silent_peer_is_found_within_a_hop() -> None:
    """Up to three looks pass from a call to the loss of its connection, and none greets for longer."""
    (spec,) = (one for one in specs() if (one.section, one.field) == ("peers", "hop_timeout_s"))
    for hop_timeout_s in (spec.setting.least, 1.0, spec.setting.most):
        bounds = bounds_of(PeersConfig(hop_timeout_s=hop_timeout_s))
        assert 3 * bounds.pulse_s < bounds.handshake_s == hop_timeout_s


@pytest.mark.parametrize("extreme", ["least", "most"])
def test_every_bound_may_be_as_small_and_as_large_as_its_setting(extreme: str) -> None:
    """No setting within its range makes bounds that are none."""
    for spec in specs():
        if spec.section == "peers" and spec.setting.most < float("inf") and spec.setting.least > 0:
            value = type(spec.default)(getattr(spec.setting, extreme))  # type: ignore[call-arg]
            changes = {spec.field: value}
            if spec.field in ("max_message_bytes", "buffer_bytes"):
                changes = {"max_message_bytes": value, "buffer_bytes": value}
            bounds = bounds_of(PeersConfig(**changes))
            assert all(getattr(bounds, each.name) > 0 for each in fields(bounds))


async def test_a_node_among_others_goes_by_its_settings() -> None:
    """Its service and its channels alike."""
    peers = PeersConfig(discovery="static:///node-0=127.0.0.1:7946", queue=7)
    among = Among(Node(config("postgresql://nobody@127.0.0.1:1/none", peers=peers)), instance="1", door=str)
    assert among._bounds.max_waiting == 7
