"""Mirrors that misbehave, on this host's loopback."""

from __future__ import annotations

import functools
import http.server
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUITES = ("bookworm", "bookworm-updates", "bookworm-security")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...

    def log_error(self, *args: object) -> None: ...


@contextmanager
def serving(folder: Path, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of a web server for a folder, by HTTPS where it is given a certificate."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def signed_by_somebody_else(folder: Path) -> Path:
    """A Debian mirror whose signatures are whole, made with a key that nobody has reason to trust."""
    home = folder / "gpg"
    home.mkdir(mode=0o700, parents=True)
    options = ["--homedir", str(home), "--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""]
    # In a pid namespace, so that gpg's agent ends with gpg.
    gpg = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "gpg", "--quiet", *options]
    subprocess.run([*gpg, "--quick-gen-key", "somebody else", "ed25519", "sign", "never"], check=True)
    for suite in SUITES:
        dist = folder / "www" / "dists" / suite
        (dist / "main/binary-amd64").mkdir(parents=True)
        (dist / "main/binary-amd64/Packages").write_text("", encoding="utf-8")
        fields = {"Suite": suite, "Codename": suite, "Architectures": "amd64", "Components": "main"}
        words = [w for k, v in fields.items() for w in ("-o", f"APT::FTPArchive::Release::{k}={v}")]
        release = subprocess.run(
            ["apt-ftparchive", *words, "release", "."], cwd=dist, check=True, capture_output=True, text=True
        )
        (dist / "Release").write_text(release.stdout, encoding="utf-8")
        subprocess.run([*gpg, "--clearsign", "--output", str(dist / "InRelease"), str(dist / "Release")], check=True)
    return folder / "www"
