"""The cluster's own authority, by the real openssl: what it issues, who takes it, and when it is issued anew."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from patroni_node import authority
from patroni_node.authority import LATE, LIFETIME, RENEW_BEFORE, Member, certify
from patroni_node.errors import NodeError
from patroni_node.tls import Tls

pytestmark = pytest.mark.real_process
MATERIAL = bytes(range(48))
MEMBER = Member("pg-15-cluster", "pg-srv1", "10.129.0.21", ("server.dc1.consul",))
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(autouse=True)
def no_real_commands() -> Iterator[None]:
    """In place of conftest's: here they are real."""
    return iter([None])


@pytest.fixture(scope="module")
def issued() -> Tls:
    return certify(MATERIAL, MEMBER, None, NOW, RENEW_BEFORE)


def shown(tls: Tls, *words: str) -> str:
    assert tls.certificate
    return authority.run_openssl(["x509", "-noout", *words], tls.certificate)


def meet(server: Tls, client: Tls | None, trusted: str, tmp_path: Path, name: str) -> str:
    """The name in the client's certificate, once both have shaken hands in memory; raises ssl.SSLError."""

    def context(side: int, own: Tls | None) -> ssl.SSLContext:
        made = ssl.SSLContext(side)
        made.load_verify_locations(cadata=trusted)
        if own is not None:
            assert own.certificate and own.key
            path = tmp_path / f"{side}.pem"
            path.write_text(own.certificate + own.key)
            made.load_cert_chain(path)
        return made

    here = context(ssl.PROTOCOL_TLS_SERVER, server)
    here.verify_mode = ssl.CERT_REQUIRED
    there = context(ssl.PROTOCOL_TLS_CLIENT, client)
    ways = [ssl.MemoryBIO() for _ in range(2)]
    left = here.wrap_bio(ways[0], ways[1], server_side=True)
    right = there.wrap_bio(ways[1], ways[0], server_hostname=name)
    done: set[ssl.SSLObject] = set()
    for _ in range(20):
        for side in (right, left):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
    assert done == {left, right}
    subject = left.getpeercert()
    assert subject is not None
    return str(subject["subject"])


def test_all_nodes_have_one_authority_whose_key_nobody_brought(issued: Tls, tmp_path: Path) -> None:
    other = certify(MATERIAL, replace(MEMBER, name="pg-srv2", address="10.129.0.22"), None, NOW, RENEW_BEFORE)
    assert issued.key != other.key
    for trusted in (issued.ca, other.ca):
        for name in ("10.129.0.21", "pg-srv1", "localhost", "127.0.0.1", "server.dc1.consul"):
            assert "pg-srv2" in meet(issued, other, trusted, tmp_path, name)


def test_another_key_is_another_authority(issued: Tls, tmp_path: Path) -> None:
    stranger = certify(MATERIAL[::-1], MEMBER, None, NOW, RENEW_BEFORE)
    with pytest.raises(ssl.SSLError):
        meet(issued, stranger, issued.ca, tmp_path, "pg-srv1")
    with pytest.raises(ssl.SSLError):
        meet(stranger, issued, issued.ca, tmp_path, "pg-srv1")
    with pytest.raises(ssl.SSLError):
        meet(issued, issued, issued.ca, tmp_path, "pg-srv9")


def test_a_member_cannot_sign_for_others(issued: Tls, tmp_path: Path) -> None:
    """With the key of a certificate, which postgres may read, nobody makes another one that is believed."""
    paths = {name: tmp_path / name for name in ("ca.pem", "own.pem", "own.key", "false.pem", "false.key")}
    for name, text in (("ca.pem", issued.ca), ("own.pem", issued.certificate), ("own.key", issued.key)):
        assert text
        paths[name].write_text(text)
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-subj", "/CN=false", "-CA", str(paths["own.pem"]), "-CAkey", str(paths["own.key"])]
    subprocess.run([*made, "-keyout", paths["false.key"], "-out", paths["false.pem"]], check=True, capture_output=True)
    chain = ["-CAfile", str(paths["ca.pem"]), "-untrusted", str(paths["own.pem"]), str(paths["false.pem"])]
    done = subprocess.run(["openssl", "verify", *chain], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "invalid CA certificate" in done.stdout + done.stderr


def test_what_is_in_it(issued: Tls) -> None:
    text = shown(issued, "-text")
    assert "CA:FALSE" in text and "TLS Web Server Authentication, TLS Web Client Authentication" in text
    begin, end = (
        datetime.strptime(line.partition("=")[2], "%Y-%m-%d %H:%M:%SZ").replace(tzinfo=UTC)
        for line in shown(issued, "-dates", "-dateopt", "iso_8601").splitlines()
    )
    assert (begin, end) == (NOW - authority.EARLIER, NOW + LIFETIME)
    # Two of one issuer and serial number are one to who keeps a list (RFC 5280, 4.1.2.2).
    assert shown(issued, "-serial") != shown(certify(MATERIAL, MEMBER, None, NOW, LATE), "-serial")


def test_it_stays_while_it_is_good(issued: Tls) -> None:
    assert certify(MATERIAL, MEMBER, issued, NOW, RENEW_BEFORE) == issued
    assert (
        certify(MATERIAL, MEMBER, issued, NOW + LIFETIME - RENEW_BEFORE - timedelta(minutes=1), RENEW_BEFORE) == issued
    )


@pytest.mark.parametrize(
    ("member", "now"),
    [
        (MEMBER, NOW + LIFETIME - RENEW_BEFORE + timedelta(minutes=1)),
        (MEMBER, NOW + timedelta(days=999)),
        # Its begin lies ahead, or its end further than it may: made while the clock was wrong.
        (MEMBER, NOW - timedelta(days=2)),
        (MEMBER, NOW - timedelta(hours=1)),
        (replace(MEMBER, address="10.129.0.99"), NOW),
        (replace(MEMBER, name="pg-srv9"), NOW),
        (replace(MEMBER, dns=()), NOW),
    ],
)
def test_it_is_replaced_when_it_is_due(issued: Tls, member: Member, now: datetime) -> None:
    new = certify(MATERIAL, member, issued, now, RENEW_BEFORE)
    assert new.certificate != issued.certificate
    assert new.key != issued.key
    assert new.ca == issued.ca
    assert certify(MATERIAL, member, new, now, RENEW_BEFORE) == new


@pytest.mark.parametrize("damage", ["ca", "certificate", "key"])
def test_what_is_damaged_is_replaced(issued: Tls, damage: str) -> None:
    stranger = certify(MATERIAL[::-1], MEMBER, None, NOW, RENEW_BEFORE)
    for text in ("", "no PEM at all", getattr(stranger, damage)):
        new = certify(MATERIAL, MEMBER, replace(issued, **{damage: text}), NOW, RENEW_BEFORE)
        assert certify(MATERIAL, MEMBER, new, NOW, RENEW_BEFORE) == new
        assert getattr(new, damage) != text


def test_the_authority_of_another_cluster_is_not_taken(issued: Tls) -> None:
    """Of the same key: a copied node.yml with another `cluster:` in it."""
    new = certify(MATERIAL, replace(MEMBER, cluster="other"), issued, NOW, RENEW_BEFORE)
    assert new.ca != issued.ca


def test_whole_and_good_it_costs_no_openssl(issued: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take half a second of the boot of an emulated machine."""
    monkeypatch.setattr(authority, "run_openssl", None)
    assert certify(MATERIAL, MEMBER, issued, NOW, RENEW_BEFORE) == issued


def test_an_encrypted_key_is_replaced_and_asks_nobody(issued: Tls) -> None:
    """At boot there is nobody who could type."""
    assert issued.key
    words = ["pkey", "-aes256", "-passout", "pass:x"]
    encrypted = replace(issued, key=authority.run_openssl(words, issued.key))
    new = certify(MATERIAL, MEMBER, encrypted, NOW, RENEW_BEFORE)
    assert new.key not in (issued.key, encrypted.key)


def test_an_ipv6_address_is_the_same_however_openssl_spells_it() -> None:
    member = replace(MEMBER, address="fd00:129::21")
    made = certify(MATERIAL, member, None, NOW, RENEW_BEFORE)
    assert certify(MATERIAL, member, made, NOW, RENEW_BEFORE) == made


@pytest.mark.parametrize("name", ["A", "x" * 63, "a_b.c-d", "15", "PG-SRV1"])
def test_every_name_of_a_member_can_have_one(name: str) -> None:
    member = replace(MEMBER, name=name, cluster="c" * 63)
    made = certify(MATERIAL, member, None, NOW, RENEW_BEFORE)
    assert certify(MATERIAL, member, made, NOW, RENEW_BEFORE) == made


def test_no_key_is_left_anywhere(issued: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ran: list[list[str]] = []
    real = subprocess.run

    def run(words: list[str], **more: object) -> object:
        ran.append(words)
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or "PRIVATE KEY" not in path.read_text()
        return real(words, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", run)
    certify(MATERIAL, MEMBER, None, NOW, RENEW_BEFORE)
    assert list(tmp_path.iterdir()) == []
    assert ran


def test_openssl_fails_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NodeError, match=r"`openssl x509` failed: "):
        authority.run_openssl(["x509", "-in", "/nowhere"])
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NodeError, match="openssl is missing, so no certificate can be made: apt install openssl"):
        authority.run_openssl(["version"])
