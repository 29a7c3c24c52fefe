"""Lines of pg_hba.conf, as far as they say who gets in how (PostgreSQL 15's manual, section 21.1)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

KINDS = {"host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"}

# A field ends at a blank, unless it is quoted or follows a comma; # begins a comment.
_FIELD = re.compile(r"""#.*|((?:"[^"]*"|,\s*|[^\s",#])+)""")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Rule:
    """One rule; address is None for `local`."""

    kind: str
    databases: frozenset[str]
    users: frozenset[str]
    address: str | None
    method: str

    @property
    def local(self) -> bool:
        """Whether it is for this machine's own users only."""
        network = _network(self.address) if self.address else None
        return self.kind == "local" or (network is not None and network.is_loopback)

    def admits(self, addresses: list[Address]) -> bool:
        """Whether one of the addresses may match; a host name, `all` and `samehost` may match any."""
        if self.address is None or self.method == "reject":
            return False
        network = _network(self.address)
        return network is None or any(ip.version == network.version and ip in network for ip in addresses)


def parse(line: str) -> Rule | None:
    """Return the rule in a line; None for a comment, and for what is none of these kinds of rules."""
    fields = [match[1] for match in _FIELD.finditer(line) if match[1]]
    if fields[:1] == ["local"] and len(fields) > 3:
        return Rule("local", _names(fields[1]), _names(fields[2]), None, fields[3])
    if len(fields) < 5 or fields[0] not in KINDS:
        return None
    kind, databases, users, address, method, *more = fields
    if more and _network(f"{address}/{method}") is not None:
        address, method = f"{address}/{method}", more[0]
    return Rule(kind, _names(databases), _names(users), address, method)


def _names(field: str) -> frozenset[str]:
    return frozenset(name.strip(' "') for name in field.split(","))


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
