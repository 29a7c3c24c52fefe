"""The cluster's own authority: its key follows from `secrets.key`, so each node issues its certificate itself.

It signs certificates of members and nothing else, ever: to Consul 1.8.7 whoever has one is a server (CVE-2021-37219).
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from patroni_node.errors import NodeError
from patroni_node.tls import Tls, keep_in_memory

LIFETIME = timedelta(days=30)
RENEW_BEFORE = timedelta(days=20)
"""How long before its end a certificate is replaced: a node whose timer fails has time."""
LATE = timedelta(days=10)
"""With less than this left, something keeps a certificate from being replaced."""
EARLIER = timedelta(days=1)
"""A certificate begins before it is made, so that a member whose clock is behind takes it."""

# SEC 2, section 2.4.2: the order of the group of secp256r1.
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# RFC 5915, section 3: ECPrivateKey of prime256v1 without its public key, which openssl works out.
_EC_KEY = (bytes.fromhex("303102010104 20".replace(" ", "")), bytes.fromhex("a00a06082a8648ce3d030107"))
# An authority made anew is the same one: same name, same key, same dates (UTCTime ends in 2049, RFC 5280, 4.1.2.5).
_BEGIN, _END = "20200101000000Z", "20491231235959Z"
_PEM_END = "-----END CERTIFICATE-----"
# X509_VERIFY_PARAM_set_flags(3): X509_V_FLAG_NO_CHECK_TIME, of which Python's ssl has no name.
_NO_CHECK_TIME = 0x200000
_CONFIG = """\
[req]
distinguished_name = name
prompt = no
string_mask = utf8only
[name]
{subject}
[ca]
default_ca = here
[here]
database = {folder}/index
serial = {folder}/serial
new_certs_dir = {folder}
default_md = sha256
policy = any
unique_subject = no
[any]
organizationName = optional
commonName = supplied
[authority]
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[member]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


@dataclass(frozen=True)
class Member:
    """Who a certificate is for. dns: names that others may call it by, besides its own."""

    cluster: str
    name: str
    address: str
    dns: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Its subject alternative names, as openssl takes them."""
        dns = {self.name, "localhost", *self.dns}
        return frozenset(
            {f"DNS:{name.lower()}" for name in dns} | {f"IP:{ip}" for ip in (self.address, "127.0.0.1", "::1")}
        )


RunOpenssl = Callable[[Sequence[str], str], str]
Certify = Callable[[bytes, Member, Tls | None, datetime, timedelta], Tls]
"""certify, or what stands in for it in tests."""


def certify(material: bytes, member: Member, present: Tls | None, now: datetime, before: timedelta) -> Tls:
    """Return the member's certificate: the present one while it is good, else a new one with a new key.

    Args:
        material: what the authority's private key is made of, at least 40 bytes (FIPS 186-5, A.2.1: 64 more bits than
            the order).
        member: who it is for.
        present: what is on the disk.
        now: the time.
        before: how long before its end a certificate is replaced.

    Raises:
        NodeError: when openssl is missing or fails.
    """
    if present is not None:
        # What follows the authority in Consul's file is not its own.
        present = Tls(present.ca.partition(_PEM_END)[0] + _PEM_END + "\n", present.certificate, present.key)
    with ExitStack() as stack:
        authority = stack.enter_context(keep_in_memory(_private_key(material)))
        ca = _own_certificate(authority, member.cluster, present)
        if present is not None and _is_good(present, ca, member, now, before):
            return Tls(ca, present.certificate, present.key)
        return _issue(authority, ca, member, now)


def _private_key(material: bytes) -> str:
    scalar = int.from_bytes(material, "big") % (ORDER - 1) + 1
    return ssl.DER_cert_to_PEM_cert(_EC_KEY[0] + scalar.to_bytes(32, "big") + _EC_KEY[1]).replace(
        "CERTIFICATE", "EC PRIVATE KEY"
    )


def _own_certificate(authority: str, cluster: str, present: Tls | None) -> str:
    """The authority's own certificate: the one that is there while it is of the same key and name.

    Its signature differs each time it is made (ECDSA), so it is kept: who compares it by its bytes sees the same one.
    """
    if present is not None and _is_of(present.ca, authority, _names_of("authority", cluster)):
        return present.ca
    with tempfile.TemporaryDirectory() as folder:
        config = _write_config(folder, _subject("authority", cluster), "DNS:unused")
        request = run_openssl(["req", "-new", "-config", config, "-key", authority])
        words = ["-selfsign", "-keyfile", authority, "-extensions", "authority"]
        return _sign(folder, request, words, _BEGIN, _END)


def _is_of(ca: str, authority: str, names: frozenset[str]) -> bool:
    """Whether this is an authority's certificate of this key and these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        with keep_in_memory(ca) as path:
            context.load_cert_chain(path, authority, password=_no_pass_phrase)
        context.load_verify_locations(cadata=ca)
    except (OSError, ValueError):
        return False
    found = context.get_ca_certs()
    return len(found) == 1 and _subject_of(found[0]) == names


def _no_pass_phrase() -> str:
    """What an encrypted key is answered, for which openssl would ask the terminal."""
    return ""


def _issue(authority: str, ca: str, member: Member, now: datetime) -> Tls:
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-keyout"]
    with tempfile.TemporaryDirectory() as folder, keep_in_memory("") as key_path, keep_in_memory(ca) as ca_path:
        config = _write_config(folder, _subject("member", member.name), ", ".join(sorted(member.names)))
        request = run_openssl(["req", "-new", "-config", config, *new, key_path])
        words = ["-cert", ca_path, "-keyfile", authority, "-extensions", "member"]
        certificate = _sign(folder, request, words, _asn1(now - EARLIER), _asn1(now + LIFETIME))
        key = Path(key_path).read_text(encoding="ascii")
    return Tls(ca, certificate, key)


def _subject(kind: str, name: str) -> str:
    return f"O = Patroni {kind}\nCN = {name}"


def _names_of(kind: str, name: str) -> frozenset[str]:
    return frozenset({f"organizationName=Patroni {kind}", f"commonName={name}"})


def _subject_of(shown: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(f"{kind}={value}" for row in shown["subject"] for kind, value in row)


def _write_config(folder: str, subject: str, names: str) -> str:
    path = Path(folder, "config")
    path.write_text(_CONFIG.format(subject=subject, folder=folder, names=names), encoding="ascii")
    Path(folder, "index").touch()
    Path(folder, "serial").write_text(f"{int.from_bytes(os.urandom(16), 'big') >> 1:032x}\n", encoding="ascii")
    return str(path)


def _sign(folder: str, request: str, words: Sequence[str], begin: str, end: str) -> str:
    asked, made = Path(folder, "request"), Path(folder, "made")
    asked.write_text(request, encoding="ascii")
    options = ["ca", "-batch", "-notext", "-config", str(Path(folder, "config")), *words]
    run_openssl([*options, "-startdate", begin, "-enddate", end, "-in", str(asked), "-out", str(made)])
    return made.read_text(encoding="ascii")


def _asn1(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y%m%d%H%M%SZ")


def _is_good(present: Tls, ca: str, member: Member, now: datetime, before: timedelta) -> bool:
    """Whether a certificate need not be replaced yet; one whose begin lies ahead was made by a clock that was wrong."""
    if not present.certificate or not present.key:
        return False
    shown = _shown_to_a_client(ca, present.certificate, present.key)
    if shown is None:
        return False
    begin, end = (datetime.fromtimestamp(ssl.cert_time_to_seconds(shown[n]), UTC) for n in ("notBefore", "notAfter"))
    if not begin <= now < end - before or end > now + LIFETIME:
        return False
    names = (
        f"{'IP' if kind == 'IP Address' else kind}:{value.strip()}" for kind, value in shown.get("subjectAltName", ())
    )
    return _normalized(names) == _normalized(member.names)


def _shown_to_a_client(ca: str, certificate: str, key: str) -> Mapping[str, Any] | None:
    """What a TLS client that believes an authority sees of a server's certificate; None where it does not take it.

    Whatever the time is. The two speak to each other in memory: to start openssl for each question would take longer
    than all else that a boot asks of patroni-node.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= _NO_CHECK_TIME
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        with keep_in_memory(certificate) as path, keep_in_memory(key) as key_path:
            server.load_cert_chain(path, key_path, password=_no_pass_phrase)
        client.load_verify_locations(cadata=ca)
        ends = [client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)]
        # Each of them says two things at most (RFC 8446, section 2); a third round would be one that gets nowhere.
        for end in ends * 3:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
        return ends[0].getpeercert()
    except (OSError, ValueError):
        return None


def _normalized(names: Iterable[str]) -> frozenset[str]:
    """Names of which an IPv6 address is spelled one way only."""
    parts = (name.partition(":") for name in names)
    return frozenset(f"{kind}:{ipaddress.ip_address(value) if kind == 'IP' else value}" for kind, _, value in parts)


def run_openssl(arguments: Sequence[str], text: str = "", *, check: bool = True) -> str:
    """Run openssl(1) with text as its input, and return its output.

    Raises:
        NodeError: when it is missing or, unless check is False, fails; with its last line.
    """
    command = ["openssl", *arguments]
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        raise NodeError("openssl is missing, so no certificate can be made: apt install openssl") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise NodeError(f"`openssl {arguments[0]}` failed ({type(error).__name__})") from None
    if done.returncode and check:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise NodeError(f"`openssl {arguments[0]}` failed: {last}")
    return done.stdout
