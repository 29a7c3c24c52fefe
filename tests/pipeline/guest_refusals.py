"""Runs in the guest as root: puts each bad node.yml in place, restarts patroni-node, and tells what happened.

In: gzip of a JSON list of base64. Out: a JSON object for each of them, one a line; the first is about the node before.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

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


def attempt(raw: bytes) -> dict[str, Any]:
    """What happens with this file."""
    with open(NODE_YML, "wb") as stream:
        stream.write(raw)
    cursor = now()
    restart = subprocess.run(["systemctl", "restart", "patroni-node"], capture_output=True, check=False, timeout=120)
    entries = journal(cursor)
    show = run("systemctl", "show", "-p", "ExecMainStatus,Result,ActiveState", "patroni-node")
    with open(ISSUE, encoding="utf-8") as stream:
        issue = stream.read()
    return {
        "restart": restart.returncode,
        "unit": dict(line.split("=", 1) for line in show.splitlines()),
        "said": [e["MESSAGE"] for e in entries if e.get("SYSLOG_IDENTIFIER") == "patroni-node"],
        "others": [e["MESSAGE"] for e in entries if e.get("SYSLOG_IDENTIFIER") != "patroni-node"],
        "issue": issue,
        "ready": Path("/run/patroni-node/ready").exists(),
        **facts(),
    }


def main() -> None:
    print(json.dumps(facts()), flush=True)
    for text in json.loads(gzip.decompress(sys.stdin.buffer.read())):
        print(json.dumps(attempt(base64.b64decode(text))), flush=True)


if __name__ == "__main__":
    main()
