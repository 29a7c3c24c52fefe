"""Versions that nobody built, and values that try to become markup."""

from __future__ import annotations

import copy
from typing import Any

from foundry.evidence import Boot, Unit
from foundry.publish.version import File, Version

NASTY = (
    "<script>alert(1)</script>",
    "</code></pre></details><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x="',
    "' onfocus='alert(1)",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "]]><!--",
    "&lt;b&gt; &amp; &#x27;",
    "\x1b[31mred\x00\x07\x1b]0;title\x07",
    "right‮to-left",
    "`backtick` [link](https://example.org) | # *star*",
    "line\nbreak\r\n\r\n# heading",
    "</svg></style></title>",
    r"\1 \g<0> \n",
)

MANIFEST: dict[str, Any] = {
    "name": "debian-12",
    "version": "20261124-aaaaaaaa",
    "built": "2026-11-24T14:49:18+00:00",
    "suite": "bookworm",
    "files": [{"name": "debian-12-20261124-aaaaaaaa.qcow2", "sha256": "a" * 64, "size": 278_265_856}],
    "disk_size": 8_589_934_592,
    "packages": [
        {"name": "bash", "version": "5.2.15-2+b13", "arch": "amd64", "sha256": "1" * 64},
        {"name": "patroni-node", "version": "0.1.0", "arch": "all", "sha256": "2" * 64},
        {"name": "postgresql-15", "version": "15.9-0+deb12u1", "arch": "amd64", "sha256": "3" * 64},
        {"name": "tzdata", "version": "2026b-0+deb12u1", "arch": "all", "sha256": "4" * 64},
    ],
    "wheels": [
        {"name": "patroni-4.1.5-py3-none-any.whl", "sha256": "5" * 64},
        {"name": "psycopg2-2.9.13.tar.gz", "sha256": "6" * 64},
    ],
    "inputs": {
        "archive": "7" * 64,
        "base": {"key": "8" * 64, "sha256": "9" * 64},
        "packer": {"key": "0" * 64},
        "debs": [{"name": "patroni-node_0.1.0_all.deb", "sha256": "2" * 64}],
        "sources": {"debian/control": f"- {'b' * 64}", "patroni_node/cli.py": f"- {'c' * 64}"},
        "commit": "d" * 40,
    },
    "configuration": {
        "archive": {"mirror": None, "components": ["main"]},
        "images": {"debian-12": {"packages": [], "disk_size": 8_589_934_592}},
        "postgresql": {"version": 15},
    },
    "tools": {"mke2fs": "mke2fs 1.47.0 (5-Feb-2023)", "python": "3.11.2"},
}

BOOT = Boot(
    phase="booted",
    kernel=8000,
    initrd=0,
    userspace=40000,
    units=(
        Unit("cloud-init.service", 10000, 20000),
        Unit("network.target", 20000, 20000),
        Unit("patroni.service", 40000, 45000),
        Unit("stuck.service", 47000, None),
    ),
    chain=("patroni.service", "cloud-init.service"),
    milestones={"Patroni leads": 50000},
)


def manifest() -> dict[str, Any]:
    """A manifest of one's own, to change."""
    return copy.deepcopy(MANIFEST)


def version(values: dict[str, Any], *more: File) -> Version:
    """The version with that manifest, its disks and more files."""
    disks = [File(f["name"], f["size"], f["sha256"]) for f in values["files"]]
    return Version(values["name"], values["version"], (*disks, *more), values)
