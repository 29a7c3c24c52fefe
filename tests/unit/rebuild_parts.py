"""A manifest that could be rebuilt, and the project that it was built from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from foundry import files, image, recorded
from foundry.workspace import Workspace

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
COMMIT = "0123456789" * 4


def project(workspace: Workspace) -> None:
    """Sources small enough for a test."""
    files.write(workspace.debian / "rules", "rules")
    files.write(workspace.requirements / "patroni.in", "patroni[consul,etcd3,systemd]")
    files.write(workspace.requirements / "patroni.txt", f"patroni==4.1.5 --hash=sha256:{files.sha256_text('wheel')}")
    files.write(workspace.requirements / "patroni-build.txt", "")


def package(name: str, version: str = "1:2.0-1", **changes: Any) -> dict[str, Any]:
    digest = files.sha256_text(f"{name} {version}")
    return {"name": name, "version": version, "arch": "amd64", "sha256": digest, **changes}


def fill(workspace: Workspace, *names: str) -> None:
    """Put packages as package() tells of them into the pool."""
    for name in names:
        files.write(workspace.pool / f"{name}_1%3a2.0-1_amd64.deb", f"{name} 1:2.0-1")


def manifest(workspace: Workspace) -> dict[str, Any]:
    return {
        "name": "debian-12",
        "version": "20261124-da0f5f2a",
        "built": "2026-11-24T17:25:19+00:00",
        "files": [{"name": "debian-12-20261124-da0f5f2a.qcow2", "sha256": C, "size": 1}],
        "packages": [package("libc6")],
        "wheels": [{"name": "patroni-4.1.5-py3-none-any.whl", "sha256": files.sha256_text("wheel"), "shipped": True}],
        "inputs": {
            "archive": "key",
            "base": {"key": "key", "sha256": A},
            "debs": [
                {"name": "patroni-venv_1_amd64.deb", "sha256": A},
                {"name": "patroni-node_1_all.deb", "sha256": B},
            ],
            "sources": recorded.sources(workspace),
            "commit": COMMIT,
        },
        "tools": {"mke2fs": "1.47.0"},
        "configuration": {
            "images": {
                "debian-12": {"suite": "bookworm", "disk_size": 8 * 1024**3, "formats": ["qcow2"], "packages": []}
            },
            "consul": {"source": "none"},
            "archive": {"mirror": None, "security_mirror": None, "components": ["main"]},
            "patroni": {"version": "4.1.5", "extras": ["consul", "etcd3", "systemd"]},
        },
        "rebuild": {
            "format": 2,
            "base": [package("libc6", size=13)],
            "buildd": [package("gcc", size=11)],
            "common": ["libc6"],
            "archives": [{"uri": "http://m/debian", "suite": "bookworm", "components": ["main"], "debian": True}],
            "repository": B,
            "program": image.program(),
        },
    }


def written(value: Any, folder: Path) -> Path:
    path = folder / "given.json"
    path.write_text(json.dumps(value))
    return path
