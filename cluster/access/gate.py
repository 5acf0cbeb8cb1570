"""The one thing that a door asks: who is this, and may he? Pure: clocks are given.

    caller = gate.authenticate(key)         # once a connection; then for each command:
    caller.allow(Role.READ, requests=1)     # PermissionDenied, Overloaded
    caller = gate.admit("Get", header)      # or both at once, where each request shows its key
    key, token = caller.reach.key(text)     # a key of the caller's tenant, whatever the text says
    with caller.waiting(): …                # around what is not answered at once

Where no credentials are configured there is no gate: doors ask nothing and keys name their tenants themselves.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from cluster.access.identity import Identity, Role
from cluster.access.keyring import Keyring, Proof
from cluster.access.needs import RPCS
from cluster.access.quotas import Allowance
from cluster.access.tenancy import Reach, closed_to
from cluster.config import CacheConfig, TenantConfig
from snapring.errors import PermissionDenied, Unauthenticated

_SCHEME: Final = "bearer "


class Caller:
    """Somebody who has proved who he is, as long as `Gate.upholds` says so."""

    __slots__ = ("allowance", "identity", "proof", "reach")

    def __init__(self, proof: Proof, reach: Reach, allowance: Allowance) -> None:
        self.proof = proof
        self.identity: Identity = proof.identity
        self.reach = reach
        self.allowance = allowance

    def __repr__(self) -> str:
        who = self.identity
        return f"<Caller {who.name} of {who.tenant}, {who.role.name.lower()}>"

    def allow(self, role: Role, requests: int = 1) -> None:
        """Raise `PermissionDenied` below ``role``, `Overloaded` beyond the tenant's rate."""
        if self.identity.role < role:
            raise PermissionDenied(
                f"the credential {self.identity.name} may {self.identity.role.name.lower()},"
                f" this needs {role.name.lower()}"
            )
        self.allowance.take(requests)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While a request waits. Raises `Overloaded` if too many of the tenant's do."""
        self.allowance.enter()
        try:
            yield
        finally:
            self.allowance.leave()


class Gate:
    """The credentials in force, and what is left to each tenant. For one event loop.

    ``quota`` tells what a tenant may use. ``accepted`` and ``rejected`` count proofs.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        quota: Callable[[str], TenantConfig],
        caches: Mapping[str, CacheConfig],
        clock: Callable[[], float],
        unix_time: Callable[[], float],
    ) -> None:
        self._keyring = keyring
        self._quota = quota
        self._readers = {name: cache.tenants for name, cache in caches.items()}
        self._clock = clock
        self._unix_time = unix_time
        self._allowances: dict[str, Allowance] = {}
        self._callers: dict[Proof, Caller] = {}
        self.accepted = self.rejected = 0

    def __repr__(self) -> str:
        return f"<Gate {self._keyring!r} accepted={self.accepted} rejected={self.rejected}>"

    def renew(self, keyring: Keyring) -> None:
        """The credentials in force from now on, all at once."""
        self._keyring = keyring
        self._callers = {}

    def authenticate(self, key: bytes, name: str | None = None) -> Caller | None:
        """Whose ``key`` is, always the same object; None if nobody's, or not that of ``name`` where one is given."""
        proof = self._keyring.prove(key, self._unix_time(), name)
        if proof is None:
            self.rejected += 1
            return None
        self.accepted += 1
        caller = self._callers.get(proof)
        if caller is None:
            tenant = proof.identity.tenant
            reach = Reach(tenant, closed_to(tenant, self._readers))
            caller = self._callers[proof] = Caller(proof, reach, self._allowance(tenant))
        return caller

    def bearer(self, header: str | None) -> Caller:
        """The caller behind ``Bearer KEY``, an HTTP header or gRPC metadatum. Raises `Unauthenticated`."""
        if not header or not header.lower().startswith(_SCHEME):
            raise Unauthenticated("a credential is needed: send Authorization: Bearer and an API key")
        caller = self.authenticate(header[len(_SCHEME) :].strip().encode("utf-8", "replace"))
        if caller is None:
            raise Unauthenticated("the API key is not valid")
        return caller

    def admit(self, method: str, header: str | None, requests: int = 1) -> Caller:
        """Who calls ``method`` of ``snapring.v1`` with this ``authorization``, once he may; ``requests`` counts keys.

        Raises `Unauthenticated`, `PermissionDenied`, `Overloaded`.
        """
        caller, role = self.bearer(header), RPCS.get(method)
        if role is None:
            raise PermissionDenied(f"the method {method} is open to nobody here")
        caller.allow(role, requests)
        return caller

    def upholds(self, caller: Caller) -> bool:
        """Whether the credential that ``caller`` has shown is still valid, with the same tenant and role."""
        return self._keyring.upholds(caller.proof, self._unix_time())

    def describe(self) -> dict[str, object]:
        """What is known of credentials and quotas, as plain numbers; no tenant is named."""
        return {
            "credentials": self.credentials,
            "credentials_accepted": self.accepted,
            "credentials_rejected": self.rejected,
            "requests_refused": self.refused,
        }

    @property
    def credentials(self) -> int:
        """How many there are."""
        return len(self._keyring)

    @property
    def refused(self) -> int:
        """The requests that were more than their tenant may use."""
        return sum(each.refused for each in self._allowances.values())

    def _allowance(self, tenant: str) -> Allowance:
        known = self._allowances.get(tenant)
        if known is None:
            known = self._allowances[tenant] = Allowance(self._quota(tenant), self._clock)
        return known
