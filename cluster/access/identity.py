"""Who a caller is, once a credential has said so. Pure."""

from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """What a credential allows. Each role may do what those before it may."""

    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The holder of the credential ``name``: everything it does is ``tenant``'s, and nobody else's.

    No role reaches beyond the tenant: ADMIN is about the node, not about other people's entries.
    """

    name: str
    tenant: str
    role: Role
