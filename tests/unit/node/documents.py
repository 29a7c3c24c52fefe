"""Strategies for node.yml: good ones, made from the shipped schema, and good ones with one thing changed."""

from __future__ import annotations

import base64
import copy
import ipaddress
import operator
import re
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import settings
from hypothesis import strategies as st

from patroni_node import schema, tuning
from patroni_node.checks import OWN_PARAMETERS
from patroni_node.network import bracketed
from tests.unit.node.conftest import DATA, KEY, Node

Path = tuple[str, ...]
Strategy = st.SearchStrategy[Any]

SCHEMA = schema.load_schema()
TOP = SCHEMA["properties"]
CONSUL = TOP["dcs"]["properties"]["consul"]["properties"]
OWN4, OWN6 = "10.129.0.21", "fd00:129::21"
GOSSIP_KEY = "YWFhYWFhYWFhYWFhYWFhYQ=="
FURNISHED = {
    "secret": KEY,
    "gossip": GOSSIP_KEY,
    **{name: (DATA / name).read_text() for name in ("ca.pem", "node.pem", "node.key")},
}

# Every character that a file can hold, and then those that YAML, Jinja, shells and PostgreSQL take for more than text.
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0\n")
TEXT = st.text(st.one_of(CHARACTERS, st.sampled_from("'\"\\{}[]%$#:-&*!|>\t é😀\u2028\ufeff\x85")), max_size=30)
PRINTABLE = st.text(CHARACTERS.filter(str.isprintable), max_size=40)
NUMBER = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False))
SCALAR = st.one_of(TEXT, NUMBER, st.booleans())
ANYTHING = st.recursive(
    st.one_of(st.none(), SCALAR),
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(TEXT, below, max_size=3)),
    max_leaves=6,
)

HOST_NAME = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z]{2,10}){0,2}", fullmatch=True)
PORT = st.integers(1, 65535)


def often(times: float) -> settings:
    """So many times the examples that the profile asks for (--hypothesis-profile)."""
    return settings(max_examples=round(settings().max_examples * times))


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def written(document: dict[str, Any]) -> str:
    """The text of a node.yml, without the anchors that it may not have."""

    def dump(*, allow_unicode: bool) -> str:
        return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=allow_unicode)

    text = dump(allow_unicode=True)
    # PyYAML writes these as they are, and reads them as line breaks or not at all.
    return dump(allow_unicode=False) if re.search("[\x85\u2028\u2029\ufeff]", text) else text


def furnish(node: Node) -> Node:
    """Give a machine two addresses, and the files and credentials that documents() refer to."""
    node.ip.links[1]["addr_info"] = [{"local": text} for text in (OWN4, OWN6)]
    for folder in ("srv", "run/credentials/@system"):
        (node.paths.root / folder).mkdir(parents=True, exist_ok=True)
        for name, text in FURNISHED.items():
            path = node.paths.root / folder / name
            path.write_text(text)
            path.chmod(0o600)
    return node


def _reachable(ip: Any) -> bool:
    return not (ip.is_multicast or ip.is_unspecified or ip.is_link_local or ip.is_loopback or int(ip) == 2**32 - 1)


IPS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).filter(_reachable)


@st.composite
def networks(draw: st.DrawFn) -> str:
    ip = draw(IPS)
    length = draw(st.integers(0, ip.max_prefixlen))
    found = ipaddress.ip_network(f"{ip}/{length}", strict=False)
    return str(found if not found.is_multicast else ipaddress.ip_network(ip))


def _sources(name: str, text: Strategy) -> Strategy:
    """A secret or a certificate: itself, or where a furnished machine has it."""
    return st.one_of(text, st.just({"file": f"/srv/{name}"}), st.just({"credential": name}))


SECRET = _sources("secret", PRINTABLE.map(lambda text: KEY + text))
RANDOM = st.sampled_from((16, 24, 32)).flatmap(lambda n: st.binary(min_size=n, max_size=n))
GOSSIP = _sources("gossip", RANDOM.map(lambda raw: base64.b64encode(raw).decode()))


def _pems(name: str) -> Strategy:
    return _sources(name, st.just(FURNISHED[name]))


CA = {"ca": _pems("ca.pem")}
PAIR = {"certificate": _pems("node.pem"), "key": _pems("node.key")}
WHOLE_TLS = st.fixed_dictionaries(CA | PAIR)
CLIENT_TLS = st.one_of(st.fixed_dictionaries(CA), WHOLE_TLS)

# What Patroni insists on in its own configuration; the rest of it takes anything.
MERGED = st.fixed_dictionaries(
    {},
    optional={
        "bootstrap": st.fixed_dictionaries(
            {},
            optional={
                "dcs": st.fixed_dictionaries(
                    {},
                    optional={
                        "ttl": st.integers(20, 600),
                        "loop_wait": st.one_of(st.none(), st.integers(1, 60)),
                        "synchronous_mode": st.booleans(),
                        "failsafe_mode": st.none(),
                        "slots": st.dictionaries(HOST_NAME, st.just({"type": "physical"}), max_size=2),
                    },
                ),
                "initdb": st.just(["data-checksums", {"encoding": "UTF8"}]),
            },
        ),
        "postgresql": st.fixed_dictionaries(
            {},
            optional={
                "pgpass": st.one_of(st.none(), TEXT),
                "use_pg_rewind": st.booleans(),
                "pg_ident": st.lists(TEXT, min_size=1, max_size=2),
                "parameters": st.dictionaries(HOST_NAME, st.one_of(st.none(), SCALAR), max_size=2),
            },
        ),
        "log": st.fixed_dictionaries({}, optional={"level": st.just("DEBUG"), "static_fields": st.just({"a": "b"})}),
        "watchdog": st.fixed_dictionaries({}, optional={"safety_margin": st.one_of(st.none(), st.integers(-1, 99))}),
        "restapi": st.fixed_dictionaries({}, optional={"allowlist": st.lists(networks(), min_size=1, max_size=2)}),
        "ours": ANYTHING,
    },
)

# Parameters that Patroni takes notice of, and others; among those, what YAML reads as a boolean.
NOTICED = {name: st.integers(least, tuning.MOST) for name, least in tuning.LEAST.items()}
NOTICED |= {"wal_level": st.sampled_from(("replica", "logical")), "wal_keep_size": st.just("1GB")}
PARAMETER = TOP["tuning"]["properties"]["parameters"]["propertyNames"]["pattern"]
PARAMETERS = st.dictionaries(
    st.one_of(st.from_regex(PARAMETER, fullmatch=True), st.sampled_from(("on", "n", "null", "work_mem", "a.b"))).filter(
        lambda name: name not in OWN_PARAMETERS.keys() | NOTICED.keys()
    ),
    SCALAR,
    max_size=3,
)

# What the schema says too little about.
KNOWN: dict[Path, Strategy] = {
    ("patroni",): MERGED,
    ("tags", "replicatefrom"): HOST_NAME,
    ("tags", "*"): SCALAR,
    ("tuning", "parameters"): st.builds(operator.or_, PARAMETERS, st.fixed_dictionaries({}, optional=NOTICED)),
    ("archive", "pgbackrest", "options", "*"): st.one_of(TEXT, st.integers(), st.booleans()),
    ("archive", "pgbackrest", "repository"): TEXT.map(lambda text: f"/{text}x"),
    **{("callbacks", name): TEXT.map(lambda text: f"/{text}x") for name in TOP["callbacks"]["properties"]},
}


def _of(part: dict[str, Any], path: Path) -> Strategy:
    """What a part of the schema takes, with KNOWN in its places."""
    if path in KNOWN:
        return KNOWN[path]
    if "$ref" in part:
        return _of(SCHEMA["definitions"][part["$ref"].rpartition("/")[2]], path)
    if "enum" in part:
        return st.sampled_from(part["enum"])
    makers: dict[str, Callable[[], Strategy]] = {
        "object": lambda: _object(part, path),
        "array": lambda: st.lists(_of(part["items"], (*path, "[]")), min_size=part.get("minItems", 0), unique=True),
        "string": lambda: st.from_regex(part["pattern"], fullmatch=True) if "pattern" in part else TEXT,
        "integer": lambda: st.integers(part.get("minimum"), part.get("maximum")),
        "number": lambda: NUMBER,
        # Beside a mapping, true says nothing.
        "boolean": lambda: st.just(False) if "object" in kinds else st.booleans(),
    }
    kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
    return st.one_of(*(makers[kind]() for kind in kinds))


def _object(part: dict[str, Any], path: Path) -> Strategy:
    below = {name: _of(value, (*path, name)) for name, value in part.get("properties", {}).items()}
    least = part.get("minProperties", 0)
    named = st.fixed_dictionaries({}, optional=below).filter(lambda found: len(found) >= least)
    more = part.get("additionalProperties", True)
    if more is False:
        return named
    names = st.from_regex(part["propertyNames"]["pattern"], fullmatch=True).filter(lambda name: name not in below)
    others = st.dictionaries(names, _of(more, (*path, "*")), max_size=3)
    return st.tuples(named, others).map(lambda both: {**both[0], **both[1]})


def _consul(draw: st.DrawFn, mode: str, own: str) -> dict[str, Any]:
    found: dict[str, Any] = {"mode": mode} if mode != "server" or draw(st.booleans()) else {}
    if mode == "external":
        found["host"] = draw(st.one_of(HOST_NAME, IPS.map(str), IPS.map(bracketed)))
        found |= draw(st.fixed_dictionaries({}, optional={"port": PORT, "tls": CLIENT_TLS}))
    else:
        join = draw(st.lists(IPS.map(str), max_size=4, unique=True, min_size=1 if mode == "client" else 0))
        if mode == "server":
            peers = [ip for ip in join if ip != own]
            found |= draw(st.fixed_dictionaries({}, optional={"expect": st.integers(2, 9) if peers else st.just(1)}))
            join = draw(st.permutations([*peers, *draw(st.sampled_from(([], [own])))]))
        if join or draw(st.booleans()):
            found["join"] = list(join)
        found |= draw(st.fixed_dictionaries({}, optional={"tls": WHOLE_TLS}))
    both = {name: _of(CONSUL[name], ("dcs", "consul", name)) for name in ("datacenter", "register_service")}
    return found | draw(st.fixed_dictionaries({}, optional=both))


def _etcd(draw: st.DrawFn) -> dict[str, Any]:
    host = st.one_of(HOST_NAME, IPS.map(bracketed))
    hosts = st.tuples(host, PORT).map(lambda both: f"{both[0]}:{both[1]}")
    found = {"hosts": draw(st.lists(hosts, min_size=1, max_size=3, unique=True))}
    return found | draw(
        st.fixed_dictionaries({}, optional={"tls": CLIENT_TLS, "username": TEXT.map(lambda t: f"u{t}")})
    )


def _secrets(draw: st.DrawFn, mode: str, *, etcd_user: bool) -> dict[str, Any]:
    users = dict.fromkeys(("superuser", "replication", "rewind", "restapi"), SECRET)
    gossip = {"gossip": GOSSIP} if mode in ("server", "client") else {}
    needed = users | (gossip if mode == "server" else {})
    more = gossip | ({"consul_token": SECRET} if mode != "etcd3" else {})
    fixed = {"etcd": SECRET} if etcd_user else {}
    with_key = st.fixed_dictionaries({"key": SECRET} | fixed, optional=users | more)
    rest = {name: way for name, way in more.items() if name not in needed}
    by_itself = st.fixed_dictionaries(needed | fixed, optional=rest)
    return dict(draw(st.one_of(with_key, by_itself)))


def _protection(draw: st.DrawFn, own: str, *, has_key: bool) -> dict[str, Any]:
    """Without a key there is no authority, so something has to be said; data/ has certificates of one address."""
    given = [{"tls": draw(WHOLE_TLS)}] if own == OWN4 else []
    before = [{"compatibility": 1, **one} for one in ({}, *given)]
    auto = [{}, {"tls": "auto"}, *given] if has_key else []
    found: dict[str, Any] = draw(st.sampled_from([*auto, *before, {"tls": "off"}, {"tls": False}]))
    return found


@st.composite
def _loose(draw: st.DrawFn) -> dict[str, Any]:
    """A good one, but for tags of which two may contradict each other."""
    separate = ("cluster", "address", "networks", "dcs", "secrets", "tls", "compatibility")
    own = draw(st.sampled_from((OWN4, OWN6)))
    mode = draw(st.sampled_from(("server", "client", "external", "etcd3")))
    found: dict[str, Any] = {"cluster": draw(_of(TOP["cluster"], ("cluster",)))}
    if own == OWN6 or draw(st.booleans()):
        ways = [own, {"cidr": str(ipaddress.ip_network(f"{own}/24", strict=False))}]
        found["address"] = draw(st.sampled_from([*ways, {"interface": "eth0"}] if own == OWN4 else ways))
    if mode == "etcd3":
        found["dcs"] = {"etcd3": _etcd(draw)}
    elif mode != "server" or draw(st.booleans()):
        found["dcs"] = {"consul": _consul(draw, mode, own)}
    if mode != "server" or draw(st.booleans()):
        found["networks"] = draw(st.lists(networks(), min_size=1, max_size=4, unique=True))
    found["secrets"] = _secrets(draw, mode, etcd_user="username" in found.get("dcs", {}).get("etcd3", {}))
    found |= _protection(draw, own, has_key="key" in found["secrets"])
    rest = {name: _of(part, (name,)) for name, part in TOP.items() if name not in separate}
    return found | draw(st.fixed_dictionaries({}, optional=rest))


@st.composite
def good(draw: st.DrawFn) -> dict[str, Any]:
    """A node.yml that a furnished machine must take."""
    found = draw(_loose())
    for pair in (("nofailover", "failover_priority"), ("nosync", "sync_priority")):
        if set(pair) <= found.get("tags", {}).keys():
            del found["tags"][draw(st.sampled_from(pair))]
    return found


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, below in items for place in _places(below, (*path, name)))]


def _names(part: Any) -> set[str]:
    if not isinstance(part, dict):
        return set()
    return {*part.get("properties", {}), *(name for below in part.values() for name in _names(below))}


NAMES = st.sampled_from(sorted(_names(SCHEMA)))


@st.composite
def changed(draw: st.DrawFn) -> dict[str, Any]:
    """One in which a value is another, is gone, or has something more beside it; it may still be good."""
    found = copy.deepcopy(draw(_loose()))
    *above, last = draw(st.sampled_from(_places(found)[1:]))
    parent = found
    for name in above:
        parent = parent[name]
    act = draw(st.sampled_from(("replace", "remove", "add")))
    if act == "replace":
        parent[last] = draw(ANYTHING)
    elif act == "remove":
        del parent[last]
    elif isinstance(parent, dict):
        parent[draw(st.one_of(TEXT, NAMES))] = draw(ANYTHING)
    else:
        parent.append(draw(ANYTHING))
    return found
