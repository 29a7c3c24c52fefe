"""Runs in the guest as root: puts each bad node.yml in place, runs patroni-node, and tells what happened.

In: gzip of a JSON list of pairs: a file in base64, and whether systemd is to run the program; if not, it runs here, by
Debian's own Python. Out: a JSON object for each of them, one a line; the first is about the node before.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

PROGRAM = "/usr/share/patroni-node"
NODE_YML = "/etc/patroni/node.yml"
ISSUE = "/etc/issue.d/patroni-node.issue"
WRITTEN = ("etc/patroni/patroni.yml", "etc/patroni/tls/*", "etc/consul.d/*", "etc/systemd/system/patroni.service.d/*")
WRITTEN += ("etc/systemd/system/consul.service.d/*",)
WRITTEN += ("var/lib/patroni-node/*.json", "etc/pgbackrest/*", "etc/sysctl.d/*")


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


def written() -> list[list[object]]:
    """What patroni-node writes: bytes, and whether anybody replaced them by the same."""
    found: list[list[object]] = []
    for path in sorted(path for pattern in WRITTEN for path in Path("/").glob(pattern)):
        status, digest = path.stat(), hashlib.sha256(path.read_bytes()).hexdigest()
        found.append([str(path), digest, status.st_ino, status.st_mtime_ns, status.st_mode])
    return found


def running() -> dict[str, str]:
    """The processes of the node, and that Patroni answers."""
    shown = run("systemctl", "show", "-P", "MainPID", "-P", "NRestarts", "-P", "ActiveState", "patroni", "consul")
    try:
        with open("/var/lib/postgresql/15/main/postmaster.pid", encoding="ascii") as stream:
            postmaster = " ".join(stream.read().split("\n")[:3])
        trust = ssl.create_default_context(cafile="/etc/patroni/tls/ca.pem")
        with urllib.request.urlopen("https://127.0.0.1:8008/primary", timeout=10, context=trust) as answer:
            primary = str(answer.status)
    except OSError as error:
        postmaster = primary = type(error).__name__
    return {"units": " ".join(shown.split()), "postmaster": postmaster, "primary": primary}


def journal(cursor: str) -> list[dict[str, Any]]:
    """What came into the journal of patroni-node since then."""
    run("journalctl", "--sync")
    lines = run("journalctl", "-u", "patroni-node", "-o", "json", "--no-pager", f"--after-cursor={cursor}").splitlines()
    return [json.loads(line) for line in lines]


def now() -> str:
    (line,) = run("journalctl", "-n", "1", "-o", "json", "--no-pager").splitlines()
    return str(json.loads(line)["__CURSOR"])


def facts() -> dict[str, Any]:
    return {"written": written(), "running": running()}


def attempt(raw: bytes, by_systemd: bool) -> dict[str, Any]:
    """What happens with this file."""
    with open(NODE_YML, "wb") as stream:
        stream.write(raw)
    ended = restarted() if by_systemd else called()
    with open(ISSUE, encoding="utf-8") as stream:
        issue = stream.read()
    return {**ended, "issue": issue, "ready": Path("/run/patroni-node/ready").exists(), **facts()}


def restarted() -> dict[str, Any]:
    """What a restart of the unit ends with."""
    cursor = now()
    restart = subprocess.run(["systemctl", "restart", "patroni-node"], capture_output=True, check=False, timeout=120)
    entries = journal(cursor)
    show = run("systemctl", "show", "-p", "ExecMainStatus,Result,ActiveState", "patroni-node")
    return {
        "restart": restart.returncode,
        "unit": dict(line.split("=", 1) for line in show.splitlines()),
        "said": [e["MESSAGE"] for e in entries if e.get("SYSLOG_IDENTIFIER") == "patroni-node"],
        "others": [e["MESSAGE"] for e in entries if e.get("SYSLOG_IDENTIFIER") != "patroni-node"],
    }


def called() -> dict[str, Any]:
    """What the program ends with when it is called as the unit calls it."""
    from patroni_node.cli import main as patroni_node

    # The refusal of an earlier file must not be taken for this one's.
    Path(ISSUE).unlink(missing_ok=True)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = patroni_node(["configure", "--wait", "30"])
    return {"code": code, "said": said.getvalue().splitlines()}


def main() -> None:
    # The node stays as it is.
    sys.dont_write_bytecode = True
    sys.path.insert(0, PROGRAM)
    print(json.dumps(facts()), flush=True)
    for text, by_systemd in json.loads(gzip.decompress(sys.stdin.buffer.read())):
        print(json.dumps(attempt(base64.b64decode(text), by_systemd)), flush=True)


if __name__ == "__main__":
    main()
