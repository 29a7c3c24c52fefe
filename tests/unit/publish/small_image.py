"""The files of a very small image, and the manifest that goes with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry.publish.formats import Repository
from foundry.publish.licences import MIT_TEXT

STATUS = """Package: bash
Status: install ok installed
Maintainer: Matthias Klose <doko@debian.org>
Architecture: amd64
Source: bash (5.2-2)
Version: 5.2-2+b13
Depends: awk | libgone, libfoo1 (>= 1), debconf | debconf-2.0
Homepage: https://www.gnu.org/software/bash
Description: GNU Bourne Again SHell
 More words.

Package: libfoo1
Status: install ok installed
Maintainer: Foo Team <foo@example.org>
Architecture: amd64
Source: foo
Version: 1:1.0-1
Depends: debconf-2.0
Provides: debconf-2.0 (= 2)
Description: foo

Package: mawk
Status: install ok installed
Maintainer: Mawk Team <mawk@example.org>
Architecture: amd64
Version: 1.3-1
Provides: awk
Description: awk

Package: gone
Status: deinstall ok config-files
Maintainer: Nobody <nobody@example.org>
Architecture: all
Version: 9
Description: removed, its settings left

Package: patroni-venv
Status: install ok installed
Maintainer: Patroni Foundry developers <foundry@example.org>
Architecture: amd64
Source: patroni-foundry
Version: 0.1.0
Depends: bash
Description: Patroni in a virtual environment of its own

Package: consul
Status: install ok installed
Maintainer: Debian Go Packaging Team <go@example.org>
Architecture: amd64
Version: 1.8.7+dfsg1-2
Pre-Depends: bash
Description: service discovery
"""

BASH = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 1987 the FSF
License: GPL-3+

Files: debian/*
Copyright: 2000 A Maintainer
License: GPL-3+

License: GPL-3+
 See /usr/share/common-licenses/GPL-3.
"""
FREE = "This package was debianized by somebody.\nIts licence is the GPL, more or less.\n"
MIT = f"The MIT License\n\nCopyright (c) 2015 Somebody\n\n{MIT_TEXT.capitalize()}\n"

PATRONI = """Metadata-Version: 2.4
Name: patroni
Version: 4.1.5
Summary: high availability
Home-page: https://github.com/patroni/patroni
Author: A. Kukushkin
Author-email: a@example.org
License: The MIT License
Requires-Dist: requests[socks]
Requires-Dist: python-etcd; extra == "etcd3"
Requires-Dist: boto3; extra == "aws"
Requires-Dist: click; python_version < "3.9"

Author
License
"""
REQUESTS = """Metadata-Version: 2.4
Name: requests
Version: 2.34.0
Author-email: Kenneth <k@example.org>
License-Expression: Apache-2.0
Project-URL: Homepage, https://requests.example.org
Requires-Dist: Py.Socks; extra == "socks"
"""
SOCKS = """Metadata-Version: 2.1
Name: Py_Socks
Version: 1.7
License: BSD
Classifier: License :: OSI Approved :: BSD License
"""
ETCD = """Metadata-Version: 2.1
Name: python-etcd
Version: 0.4.5
Classifier: License :: OSI Approved :: MIT License
"""
WHEELS = {
    "patroni-4.1.5-py3-none-any.whl": True,
    "requests-2.34.0-py3-none-any.whl": True,
    "py_socks-1.7.0-py3-none-any.whl": True,
    "python-etcd-0.4.5.tar.gz": True,
    "setuptools-84.2.1-py3-none-any.whl": False,
}
DISK = "debian-12-20261124-b1ddda7d.qcow2"
COMMIT = "37cc7045b166a2a996efbeda84afdc18ad68f3f7"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def put(root: Path, name: str, text: str) -> Path:
    """Write a file, unless it is there: of two publishers that share a folder, neither may empty what both send."""
    path = root / name
    if not (path.is_file() and path.read_text(encoding="utf-8") == text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path


def tree(root: Path) -> Path:
    """Fill root with the files of the image that the rest of the program looks at; returns root."""
    put(root, "var/lib/dpkg/status", STATUS)
    put(root, "usr/share/doc/bash/copyright", BASH)
    put(root, "usr/share/doc/mawk/copyright", FREE)
    (root / "usr/share/doc/libfoo1").symlink_to("bash")
    put(root, "usr/share/doc/patroni-venv/copyright", BASH.replace("GPL-3+", "Apache-2.0"))
    site = root / "usr/lib/patroni-venv/lib/python3.11/site-packages"
    put(site, "patroni-4.1.5.dist-info/METADATA", PATRONI)
    put(site, "patroni-4.1.5.dist-info/licenses/LICENSE", MIT)
    put(site, "requests-2.34.0.dist-info/METADATA", REQUESTS)
    put(site, "py_socks-1.7.dist-info/METADATA", SOCKS)
    put(site, "python_etcd-0.4.5.dist-info/METADATA", ETCD)
    (root / "usr/local/lib").mkdir(parents=True)
    return root


def manifest() -> dict[str, Any]:
    """What image.py would have written about it."""
    packages = [
        ("bash", "5.2-2+b13", "amd64"),
        ("libfoo1", "1:1.0-1", "amd64"),
        ("mawk", "1.3-1", "amd64"),
        ("patroni-venv", "0.1.0", "amd64"),
        ("consul", "1.8.7+dfsg1-2", "amd64"),
    ]
    return {
        "name": "debian-12",
        "version": "20261124-b1ddda7d",
        "built": "2026-11-24T14:49:18+00:00",
        "suite": "bookworm",
        "files": [
            {"name": DISK, "sha256": sha("the disk"), "size": 8},
            {"name": DISK.replace("qcow2", "raw"), "sha256": sha("the same, raw"), "size": 13},
        ],
        "disk_size": 8 << 30,
        "packages": [{"name": n, "version": v, "arch": a, "sha256": sha(n)} for n, v, a in packages],
        "wheels": [{"name": name, "sha256": sha(name), "shipped": shipped} for name, shipped in WHEELS.items()],
        "inputs": {
            "archive": sha("archive"),
            "base": {"key": sha("base key"), "sha256": sha("base")},
            "packer": {"key": sha("packer key")},
            "debs": [
                {"name": "patroni-venv_0.1.0_amd64.deb", "sha256": sha("patroni-venv")},
                {"name": "consul_1.8.7+dfsg1-2_amd64.deb", "sha256": sha("consul")},
            ],
            "sources": {"debian/rules": f"x {sha('rules')}", "debian/control": f"- {sha('control')}"},
            "commit": COMMIT,
        },
        "configuration": {
            "consul": {"source": "debian", "suite": "bullseye", "uri": None},
            "postgresql": {"source": "debian", "uri": None, "version": 15},
            "patroni": {"version": "4.1.5", "extras": ["consul", "etcd3"]},
        },
        "tools": {"packer": "Packer v1.6.6", "python": "3.11.2"},
    }


def repository(folder: Path, manifest: Mapping[str, Any]) -> Repository:
    """The packages of its manifest, each of which is a file with its own name in it."""
    rows = []
    for package in manifest["packages"]:
        name, version, arch = (str(package[key]) for key in ("name", "version", "arch"))
        path = f"pool/{name}/{name}_{version.rpartition(':')[2]}_{arch}.deb"
        put(folder, path, name)
        about = {"Package": name, "Version": version, "Architecture": arch, "Filename": path}
        about |= {"Size": str(len(name)), "SHA256": str(package["sha256"])}
        rows.append("".join(f"{key}: {value}\n" for key, value in about.items()))
    index = "\n".join(rows).encode()
    put(folder, "Packages", index.decode())
    return Repository(folder, index)
