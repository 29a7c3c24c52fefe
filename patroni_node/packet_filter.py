"""Who may connect to this node at all: a table of nftables' that holds nothing but our ports.

Stateless on purpose. A table of connections would cost a lookup for each packet of a database, and drop packets of all
services once it is full. So connections are asked about when they begin, as PostgreSQL asks pg_hba: whoever is no
longer permitted keeps what is open, and gets nothing new.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patroni_node.dcs import Consul
from patroni_node.errors import Key, NodeError, Problem
from patroni_node.model import Settings
from patroni_node.network import IP, Network, own_network
from patroni_node.patroni_yml import at

TABLE = "inet patroni_node"

CONSUL_RPC = 8300
CONSUL_GOSSIP = 8301
CONSUL_WAN = 8302
CONSUL_HTTP = "8500-8502"
CONSUL_REQUESTS: tuple[int | str, ...] = (CONSUL_WAN, CONSUL_HTTP, 8600)
"""What a Consul agent may be told to answer elsewhere, too: gossip between datacenters, HTTP, HTTPS, gRPC, DNS."""
CONSUL_REQUESTS_UDP: tuple[int | str, ...] = (CONSUL_WAN, 8600)

ASKED_AT_MOST = "256 kbytes"
"""What an account that is not ours may send to the agent's HTTP in a connection; 200 of them are open at most."""

_NOT_FROM_OUTSIDE = ("127.0.0.0/8", "::1/128", "::ffff:0:0/96")
"""No packet on a wire has such a source by right; the kernel lets some through (IPv6 knows no martian sources)."""


@dataclass(frozen=True)
class Ports:
    """Where PostgreSQL and Patroni's REST API listen."""

    postgresql: int = 5432
    restapi: int = 8008


def for_node(
    settings: Settings,
    networks: Sequence[Network],
    own: IP,
    patroni: Mapping[str, Any],
    *,
    gossip_key: bool,
    agent: int | None = None,
    database: int | None = None,
) -> tuple[str, str | None]:
    """Return the script for nft and the drop-in for consul.service; None where the agent's peers cannot be told.

    Args:
        settings: what node.yml says.
        networks: who may connect, as render.permitted says.
        own: this node's address.
        patroni: the whole of patroni.yml.
        gossip_key: whether gossip is encrypted.
        agent, database: as of ruleset.

    Raises:
        NodeError: when a port cannot be told.
    """
    ports = listening(patroni, settings.document.problem)
    dcs = settings.dcs
    if not (isinstance(dcs, Consul) and dcs.local):
        return ruleset(networks, (), own, consul=False, ports=ports, database=database), None
    peers = dcs.peers(own)
    others = dcs.mode == "client"
    anywhere = others and gossip_key
    script = ruleset(
        networks, peers, own, consul=True, ports=ports, gossip_from_anywhere=anywhere, agent=agent, database=database
    )
    return script, None if others else consul_addresses(networks, peers, own)


def listening(patroni: Mapping[str, Any], problem: Callable[[Key, str], Problem]) -> Ports:
    """Return the ports of a patroni.yml, what `patroni:` of node.yml changed included.

    Args:
        patroni: the whole of patroni.yml.
        problem: makes a problem of a key of node.yml, as Document.problem does.

    Raises:
        NodeError: when a port cannot be told, since whatever listens there would be open to everybody.
    """
    problems: list[Problem] = []
    found: dict[str, int] = {}
    for section, default in (("postgresql", 5432), ("restapi", None)):
        port = _port(at(patroni, (section, "listen")), default)
        if port is None:
            message = "names no port: write address and port, as in 0.0.0.0:{}"
            problems.append(problem(("patroni", section, "listen"), message.format(getattr(Ports, section))))
        else:
            found[section] = port
    if problems:
        raise NodeError(problems)
    return Ports(**found)


def _port(listen: object, default: int | None) -> int | None:
    """Read `listen` as Patroni does, which takes what follows the last colon (utils.split_host_port)."""
    if not isinstance(listen, str) or not listen.strip():
        return None
    _, colon, text = listen.rpartition(":")
    if not colon:
        return default
    try:
        port = int(text)
    except ValueError:
        return None
    return port if 0 < port < 65536 else None


def ruleset(
    networks: Sequence[Network],
    peers: Sequence[IP],
    own: IP,
    *,
    consul: bool,
    ports: Ports = Ports(),
    gossip_from_anywhere: bool = False,
    agent: int | None = None,
    database: int | None = None,
) -> str:
    """Return the script for `nft -f` that replaces our table, and touches no other, in one transaction.

    Args:
        networks: who may connect.
        peers: the addresses in `join`.
        own: this node's address. What the node sends to itself comes through lo; from a wire, this address is a lie.
        consul: whether an agent of ours runs on this node.
        ports: where PostgreSQL and the REST API listen.
        gossip_from_anywhere: leave 8301 to the gossip key: for an agent (mode client) in a datacenter with others,
            which all ask each other whether they live.
        agent: the number of Consul's account, where it is known: nobody else on this node answers at the agent's ports
            then, and nobody else calls servers.
        database: the number of PostgreSQL's account, likewise: nobody else answers at ports.
    """
    permitted = [*networks, *map(own_network, peers)]
    asked: list[int | str] = [ports.postgresql, ports.restapi]
    rules = ['iifname "lo" accept', "exthdr frag exists jump first", "tcp flags & (ack | rst) != 0 accept"]
    if consul:
        asked += [CONSUL_RPC] if gossip_from_anywhere else [CONSUL_RPC, CONSUL_GOSSIP]
    rules.append(f"tcp dport {_set(asked)} goto ask")
    if consul:
        rules += [] if gossip_from_anywhere else [f"udp dport {CONSUL_GOSSIP} goto ask"]
        rules.append(f"tcp dport {_set(CONSUL_REQUESTS)} goto refuse")
        rules.append(f"udp dport {_set(CONSUL_REQUESTS_UDP)} goto refuse")
    lies = [ipaddress.ip_network(text) for text in _NOT_FROM_OUTSIDE] + [own_network(own)]
    ask = [f"{_family(version)} saddr {_set(_of(lies, version))} goto refuse" for version in (4, 6)]
    ask += [f"{_family(v)} saddr {_set(found)} accept" for v in (4, 6) if (found := _of(permitted, v))]
    answers = _of_accounts(agent if consul else None, database, ports, [*permitted, own_network(own)])
    return _SCRIPT.format(table=TABLE, rules=_lines(rules), ask=_lines([*ask, "goto refuse"]), output=answers)


def _of_accounts(agent: int | None, database: int | None, ports: Ports, servers: Sequence[Network]) -> str:
    """Keep other accounts of this node from being taken for one that is down, and from Consul's servers.

    Who answers in place of the agent or of PostgreSQL is told tokens and passwords; in place of a server of Consul's,
    without TLS, all that the store holds, from who leads. Raft asks for no token: without TLS, who calls a server
    writes to the store, and this node's own address lets him in. At the gossip's port no key is asked for either before
    an agent has up to 20 MiB of each connection in its memory (memberlist, decryptRemoteState).

    A connection takes a SYN of each side, so those are what is looked at: with an ACK of who listens, and without one
    of who connects to a client that is about to connect to him (RFC 9293, section 3.5, figure 7). One of which the
    kernel cannot tell whose it is goes nowhere: it sends such (SYN cookies) for a listener that is made to overflow.
    """
    chains, rules = "", []
    if database is not None:
        chains += _ANSWER.format(name="answer_database", account=database)
        rules.append(f"tcp sport {_set((ports.postgresql, ports.restapi))} {_SYN} goto answer_database")
    if agent is not None:
        members = _set((CONSUL_RPC, CONSUL_GOSSIP))
        call = [f"meta skuid {agent} accept"]
        call += [f"{_family(v)} daddr {_set(found)} goto refuse" for v in (4, 6) if (found := _of(servers, v))]
        chains += f"    chain call {{\n{_lines(call)}\n    }}\n" + _ANSWER.format(name="answer_agent", account=agent)
        chains += _HTTP.format(accounts=_set(n for n in (0, agent, database) if n is not None), most=ASKED_AT_MOST)
        rules += [
            f"tcp dport {members} tcp flags & (syn | ack) == syn goto call",
            f"udp dport {CONSUL_GOSSIP} goto call",
            f"tcp sport {members} {_SYN} goto answer_agent",
            f"udp sport {CONSUL_GOSSIP} goto answer_agent",
            'oifname != "lo" accept',
            f"tcp sport {_set(CONSUL_REQUESTS)} {_SYN} goto answer_agent",
            f"udp sport {_set(CONSUL_REQUESTS_UDP)} goto answer_agent",
            f"tcp dport {CONSUL_HTTP} goto ask_agent",
        ]
    return f"{chains}{_OUTPUT.format(rules=_lines(rules))}" if rules else ""


_SYN = "tcp flags & syn == syn"


# The rule about flags comes first, since nearly all packets end there. It lets through, instead of picking out what
# opens a connection, so that a fragment whose flags are in the next one is asked about, too. A first fragment without
# a port is dropped: IPv6 lets headers without number stand before it, and this hook sees fragments of IPv6 one by one.
# A reset, so that a client with several hosts goes on to the next at once. ICMP would say more ("prohibited"), where
# clouds and clients do not drop it; the counter and the log line of the node say it.
_SCRIPT = """\
# Written by patroni-node from /etc/patroni/node.yml; /usr/libexec/patroni-node/packet-filter loads it.
table {table}
delete table {table}
table {table} {{
    counter refused {{
    }}
    chain refuse {{
        counter name refused
        meta l4proto tcp reject with tcp reset
        drop
    }}
    chain ask {{
{ask}
    }}
    chain first {{
        frag frag-off != 0 return
        meta l4proto {{ tcp, udp }} th dport != 0 return
        meta l4proto != {{ tcp, udp, 255 }} return
        counter name refused
        drop
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
{rules}
    }}
{output}}}
"""
_ANSWER = """\
    chain {name} {{
        meta skuid {account} accept
        counter name refused
        drop
    }}
"""
# Consul reads a body to its end, into memory and without a limit, and sends it on to who leads, before it asks for a
# token. It limits connections by their source, of which there are many on lo. No table of connections is kept, so a
# quota begins anew with a SYN. That goes to the agent alone: two connections to two places may come from one port.
# Where the set is full, nothing is sent.
_HTTP = """\
    set asked {{
        type ipv4_addr . inet_service . inet_service
        size 65535
        flags dynamic,timeout
        timeout 1h
    }}
    chain ask_agent {{
        meta skuid {accounts} accept
        ip saddr != 127.0.0.1 goto refuse
        ip daddr != 127.0.0.1 goto refuse
        tcp flags & (syn | ack) == syn delete @asked {{ ip saddr . tcp sport . tcp dport }} accept
        update @asked {{ ip saddr . tcp sport . tcp dport quota until {most} }} accept
        goto refuse
    }}
"""
_OUTPUT = """\
    chain output {{
        type filter hook output priority filter; policy accept;
{rules}
    }}
"""


def consul_addresses(networks: Sequence[Network], peers: Sequence[IP], own: IP) -> str:
    """Return a drop-in that keeps consul.service from all but its members, whoever flushes the packet filter.

    systemd asks about every packet, in both directions and of connections that are open. An agent of ours talks to
    members only: names come from nowhere (`join` holds addresses), and there are no recursors. It is for mode server;
    in a datacenter with other agents it would cut them off.
    """
    permitted = [*networks, *map(own_network, (*peers, own))]
    allowed = " ".join(str(network) for version in (4, 6) for network in _of(permitted, version))
    return (
        "# Written by patroni-node from `networks:` and `join:` of node.yml.\n"
        f"[Service]\nIPAddressDeny=any\nIPAddressAllow=localhost {allowed}\n"
    )


def _of(networks: Iterable[Network], version: int) -> list[Network]:
    """Return the networks of this version, without those that lie in others: an interval set takes no overlaps."""
    mine: Any = [network for network in networks if network.version == version]
    return list(ipaddress.collapse_addresses(mine))


def _family(version: int) -> str:
    return "ip" if version == 4 else "ip6"


def _set(elements: Iterable[object]) -> str:
    return "{ " + ", ".join(dict.fromkeys(map(str, elements))) + " }"


def _lines(rules: Iterable[str]) -> str:
    return "\n".join(f"        {rule}" for rule in rules)
