"""Who gets in by a hand-made patroni.yml: rules that ask for no password, and passwords that everybody knows."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from patroni_node import hba, secret
from patroni_node.errors import Key
from patroni_node.patroni_yml import DCS, PARAMETERS, Finding, at, mapping

RULES: tuple[Key, ...] = (("bootstrap", "pg_hba"), (*DCS, "pg_hba"), ("postgresql", "pg_hba"))
AUTH_OPTIONS = {"auth", "auth-local", "auth-host"}
LOOPBACK = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]

# The passwords of the examples in Patroni's own repository (postgres0.yml).
EXAMPLES = {"zalando", "rep-pass", "rewind_password"}


def trusted(data: dict[str, Any]) -> Iterator[Finding]:
    """Find rules that let somebody in who has proved nothing."""
    for section in RULES:
        for index, rule in _rules(at(data, section)):
            message = _careless(rule)
            if message is not None:
                yield (*section, index), message
    if mapping(data, ("bootstrap",)) and not _ruled(data):
        yield from _left_by_initdb(data)


def _rules(value: Any) -> Iterator[tuple[int, hba.Rule]]:
    for index, text in enumerate(value) if isinstance(value, list) else ():
        for line in text.splitlines() if isinstance(text, str) else ():
            rule = hba.parse(line)
            if rule is not None:
                yield index, rule


def _careless(rule: hba.Rule) -> str | None:
    if rule.method == "trust":
        who = "every local user" if rule.local else "whoever has that address"
        # peer wants a system user of the same name.
        peer = rule.kind == "local" and rule.users & {"all", "postgres"}
        may = "in as anybody, even the superuser," if "all" in rule.users else "in as that user"
        if rule.databases == {"replication"}:
            may = "copy the whole cluster"
        return f"lets {who} {may} without a password: write {'peer' if peer else 'scram-sha-256'}"
    if rule.method == "ident" and not rule.local:
        return "takes the other machine's word for who its user is: write scram-sha-256"
    if rule.method == "password" and not rule.local and rule.kind != "hostssl":
        return "has passwords sent over the network as they are: write scram-sha-256"
    return None


def _ruled(data: dict[str, Any]) -> bool:
    """Whether Patroni writes pg_hba.conf anew (postgresql/config.py, replace_pg_hba)."""
    lists = any(at(data, section) for section in RULES[1:])
    return lists or any(at(data, (*section, "hba_file")) for section in PARAMETERS)


def _left_by_initdb(data: dict[str, Any]) -> Iterator[Finding]:
    """Find initdb's own rules, which stay in front of bootstrap.pg_hba where there is no other list."""
    bootstrap = mapping(data, ("bootstrap",))
    if bootstrap.get("method") not in (None, "initdb") or mapping(bootstrap, ("dcs", "standby_cluster")):
        return
    given: dict[str, tuple[Key, Any]] = {}
    for key, name, value in initdb_options(bootstrap.get("initdb")):
        if name in AUTH_OPTIONS:
            given[name] = (("bootstrap", "initdb", *key), value)
    message = "so initdb's own rules stay, by which every local user is superuser without a password"
    instead = "write `- auth-local: peer` and `- auth-host: scram-sha-256`, or postgresql.pg_hba"
    trusting = [key for key, value in given.values() if value == "trust"]
    for key in trusting:
        yield key, f"trust is not replaced by a list of rules, {message}: {instead}"
    if not trusting and "auth" not in given and not {"auth-local", "auth-host"} <= set(given):
        yield ("bootstrap", "initdb"), f"does not name both auth-local and auth-host, {message}: {instead}"


def initdb_options(options: Any) -> Iterator[tuple[Key, str, Any]]:
    """Return key, name and value of initdb's options, True where there is no value.

    Patroni takes a mapping, or a list of names and of mappings of one (postgresql/bootstrap.py, process_user_options).
    """
    if isinstance(options, dict):
        yield from (((name,), name, value) for name, value in options.items())
    for index, option in enumerate(options) if isinstance(options, list) else ():
        if isinstance(option, dict):
            yield from (((index, name), name, value) for name, value in option.items())
        elif isinstance(option, str):
            name, _, value = option.partition("=")
            yield (index,), name, value or True


def shut_out(data: dict[str, Any]) -> Iterator[Finding]:
    """Find rules by which Patroni itself does not reach its PostgreSQL, for want of use_unix_socket."""
    # The file's own list replaces the cluster's as a whole.
    rules = [rule for _, rule in _rules(at(data, RULES[2]) or at(data, RULES[1]))]
    sections: tuple[Key, ...] = (DCS, ("postgresql",))
    if any(at(data, (*section, "use_unix_socket")) for section in sections):
        return
    if not any(rule.kind == "local" and rule.method == "peer" for rule in rules):
        return
    # Patroni prefers localhost, else takes the first address it listens on (_get_tcp_local_address).
    addresses = [*LOOPBACK, *_listens(data)]
    if not any(rule.admits(addresses) and rule.databases != {"replication"} for rule in rules):
        message = "is not true, and no rule lets Patroni in over TCP, so a first bootstrap fails in a loop"
        yield ("postgresql", "use_unix_socket"), f"{message}: write use_unix_socket: true"


def _listens(data: dict[str, Any]) -> Iterator[hba.Address]:
    for host in str(at(data, ("postgresql", "listen"))).rpartition(":")[0].split(","):
        try:
            yield ipaddress.ip_address(host.strip(" []"))
        except ValueError:
            continue


def secrets(data: Any, key: Key = ()) -> Iterator[tuple[Key, str, str]]:
    """Return key, value and user (or an empty text) of every secret below data."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, value in pairs:
        text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if text and key in (("restapi",), ("ctl",)) and name == "auth":
            user, _, password = text.partition(":")
            yield (*key, name), password, user
        elif text and (str(name).endswith("password") or name == "token"):
            yield (*key, name), text, str(data.get("username", ""))
        else:
            yield from secrets(value, (*key, name))


def well_known(data: dict[str, Any]) -> Iterator[Finding]:
    """Find passwords that are tried first."""
    for key, password, user in secrets(data):
        if secret.is_well_known(password) or password in EXAMPLES:
            yield key, f"is a password that everybody tries first: {secret.GENERATE}"
        elif password and password.casefold() == user.casefold():
            yield key, f"is the same as the user's name, which everybody tries first: {secret.GENERATE}"
