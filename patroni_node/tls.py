"""Certificates that node.yml names: read, checked against each other and this node's address, ready to be written."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patroni_node.errors import Key, NodeError
from patroni_node.network import IP
from patroni_node.sources import MAX_BYTES, Reader, Source, parse

RunOpenssl = Callable[[Sequence[str], str], str]
"""Takes arguments of openssl(1) and its standard input; returns its output, whatever its exit code."""


@dataclass(frozen=True)
class TlsSources:
    """Where a CA, and a certificate with its key, come from."""

    key_path: Key
    ca: Source
    certificate: Source | None = None
    key: Source | None = None


@dataclass(frozen=True)
class Tls:
    """PEM texts: a CA, and a certificate with its key where there is one."""

    ca: str
    certificate: str | None = None
    key: str | None = field(default=None, repr=False)


def sources(key_path: Key, value: Any) -> TlsSources | None:
    """Return what a `tls:` mapping names; None where there is none, or the schema refuses it."""
    if not isinstance(value, dict):
        return None
    found = {name: parse((*key_path, name), value.get(name)) for name in ("ca", "certificate", "key")}
    if found["ca"] is None:
        return None
    return TlsSources(key_path, found["ca"], found["certificate"], found["key"])


def run_openssl(arguments: Sequence[str], text: str) -> str:
    """Run openssl(1) with text as its input, and return what it printed.

    Raises:
        NodeError: when openssl is missing or does not answer within ten seconds.
    """
    command = ["openssl", *arguments]
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        raise NodeError("openssl is missing, so certificates cannot be checked: apt install openssl") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise NodeError(f"`{' '.join(command)}` failed ({type(error).__name__})") from None
    return done.stdout + done.stderr


def load(wanted: TlsSources, reader: Reader, own: IP | None, run: RunOpenssl = run_openssl) -> Tls:
    """Read certificates and check that they work together.

    An expired certificate is not refused: a node that reboots on the day after would stay down, while with it
    PostgreSQL starts, and clients say what is wrong.

    Args:
        wanted: where they are.
        reader: reads them.
        own: the address that the certificate must be valid for (RFC 5280 section 4.2.1.6), or None where its holder
            is never asked for a name.
        run: for tests.

    Returns:
        The PEM texts.

    Raises:
        NodeError: when one cannot be read, is no PEM, the key is another certificate's, the CA did not issue it, or it
            is not valid for the address.
    """
    ca = reader.public(wanted.ca)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=ca)
    except (ssl.SSLError, ValueError):
        raise reader.refuse(wanted.ca.key, "is not a certificate in PEM (-----BEGIN CERTIFICATE-----)") from None
    if wanted.certificate is None or wanted.key is None:
        return Tls(ca)
    certificate, key = reader.public(wanted.certificate), reader.private(wanted.key)
    _pair(wanted, reader, certificate, key)
    if own is not None and "does match" not in run(["x509", "-noout", "-checkip", str(own)], certificate):
        message = f"is not valid for {own}, this node's address: it needs a subject alternative name IP:{own}"
        raise reader.refuse(wanted.certificate.key, message)
    with keep_in_memory(ca) as path:
        answer = run(["verify", "-no_check_time", "-CAfile", path], certificate)
    if ": OK" not in answer:
        raise reader.refuse(wanted.certificate.key, "was not issued by the authority in ca")
    return Tls(ca, certificate, key)


def read_present(ca: Path, certificate: Path, key: Path) -> Tls | None:
    """Return what is on the disk; None where one of the three is not there, or cannot be read."""
    try:
        texts = [_present(path) for path in (ca, certificate, key)]
    except (OSError, ValueError):
        return None
    return Tls(*texts)


def _present(path: Path) -> str:
    """Consul's folder may have been another account's: nothing there may hold up root, or take its memory."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ValueError
        return stream.read(MAX_BYTES).decode("ascii")


def _pair(wanted: TlsSources, reader: Reader, certificate: str, key: str) -> None:
    assert wanted.certificate is not None
    assert wanted.key is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with ExitStack() as stack:
        paths = [stack.enter_context(keep_in_memory(text)) for text in (certificate, key)]

        def no_pass_phrase() -> str:
            raise reader.refuse(wanted.key.key, "is encrypted: nobody could type its pass phrase at boot")  # type: ignore[union-attr]

        try:
            context.load_cert_chain(paths[0], paths[1], password=no_pass_phrase)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise reader.refuse(wanted.key.key, "does not belong to the certificate") from None
            message = "certificate and key are not both PEM: the key begins with -----BEGIN … PRIVATE KEY-----"
            raise reader.refuse(wanted.key_path, message) from None


@contextmanager
def keep_in_memory(text: str) -> Iterator[str]:
    """A path for functions that only read files; nothing of it reaches a disk."""
    descriptor = os.memfd_create("patroni-node")
    try:
        os.write(descriptor, text.encode())
        # With the process's number, openssl can open it too.
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)
