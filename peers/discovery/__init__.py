"""Who the other nodes are, and where: written down, asked of DNS, or watched in Kubernetes.

Every discovery gives views of the membership. It never gives an empty one: an error, a silence or an empty
answer leaves the last good view as it is, and is counted in `LastGood`.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from peers.discovery.dns import DnsConfig, DnsDiscovery
from peers.discovery.endpointslice import EndpointSliceConfig, EndpointSliceDiscovery
from peers.discovery.forms import HostForm, ServiceForm, StaticForm, parse
from peers.discovery.kubernetes_api import Access
from peers.discovery.last_good import LastGood
from peers.discovery.static import StaticDiscovery
from peers.members import Members


class Discovery(Protocol):
    """A source of views. ``last`` is what it knows and how it fares, for status."""

    last: LastGood

    def views(self) -> AsyncGenerator[Members, None]:
        """The view kept so far if there is one, then each that differs from the one before; never an empty one.

        Never ends by itself and raises nothing of its source's. Cancelling or closing it ends it and releases
        what it holds (`contextlib.aclosing` does so at once); called again, it goes on from where it
        stood. One iteration at a time.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryConfig:
    """``form`` is the address form, see `peers.discovery.forms`; the rest bounds how it is looked up."""

    form: str
    dns: DnsConfig = field(default_factory=DnsConfig)
    endpointslice: EndpointSliceConfig = field(default_factory=EndpointSliceConfig)
    access: Access | None = None


def discovery(config: DiscoveryConfig) -> Discovery:
    """What finds the members that ``config`` says. Raises `ConfigInvalid`."""
    match parse(config.form):
        case StaticForm(members=members):
            return StaticDiscovery(members)
        case HostForm(host=host, port=port):
            return DnsDiscovery(f"{host}.", port=port, srv=False, config=config.dns)
        case ServiceForm(watched=False) as form:
            name = f"{form.service}.{form.namespace}.svc.{config.dns.cluster_domain}."
            return DnsDiscovery(name, port=form.port, srv=True, config=config.dns)
        case ServiceForm() as form:
            return EndpointSliceDiscovery(
                form.service,
                namespace=form.namespace,
                port=form.port,
                config=config.endpointslice,
                access=config.access,
            )
