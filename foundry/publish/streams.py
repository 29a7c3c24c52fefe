"""simplestreams: the index by which incus, LXD and sstream-query find images.

The format is that of simplestreams' own README (products:1.0, index:1.0). What names of files and digests mean to incus
and LXD is in incus' shared/simplestreams/products.go, and what is in incus.tar.xz in its doc/reference/image_format.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import yaml

from foundry import files, gpg
from foundry.publish.version import Version

FOLDER = "streams/v1"
METADATA = "incus.tar.xz"
ARCHITECTURE = "amd64"
DATATYPE = "image-downloads"
# LXD reads this name only, incus the one of its own; both mean the same file.
LXD_METADATA = "lxd.tar.xz"
_MEMBER = "metadata.yaml"
# It is one kilobyte, in tar's blocks of ten.
_LARGEST = 64 << 10


@dataclass(frozen=True)
class Served:
    """A version that a channel serves. fingerprint: as fingerprint() gave it when the version was made."""

    version: Version
    fingerprint: str


def metadata(image: str, version: str, manifest: Mapping[str, Any]) -> bytes:
    """incus.tar.xz: what incus and LXD want to know of a disk. The same for the same manifest.

    It has no templates: in a virtual machine incus' agent would carry them out, which the image does not have.
    cloud-init gets its data by a disk of incus' own (docs/repositories.md).
    """
    built = datetime.fromisoformat(manifest["built"])
    text = yaml.safe_dump(_about(image, version, manifest), sort_keys=True).encode()
    member = tarfile.TarInfo(_MEMBER)
    member.size, member.mtime, member.mode = len(text), int(built.timestamp()), 0o644
    packed = io.BytesIO()
    # It is one kilobyte: a larger preset packs it no smaller, and takes hundreds of megabytes of memory.
    with tarfile.open(fileobj=packed, mode="w:xz", format=tarfile.GNU_FORMAT, preset=0) as archive:
        archive.addfile(member, io.BytesIO(text))
    return packed.getvalue()


def fits(packed: Path, version: Version) -> bool:
    """Whether an incus.tar.xz says of a version what metadata() does, however its host has packed it."""
    data = files.unxz(packed.read_bytes(), _LARGEST)
    try:
        with tarfile.open(fileobj=io.BytesIO(data or b""), mode="r:") as archive:
            (member,) = archive.getmembers()
            stream = archive.extractfile(member)
            said = yaml.safe_load(stream.read()) if stream else None
    except (tarfile.TarError, EOFError, ValueError, yaml.YAMLError):
        return False
    return member.name == _MEMBER and said == _about(version.image, version.version, version.manifest)


def _about(image: str, version: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    built = datetime.fromisoformat(manifest["built"])
    suite = manifest["suite"]
    return {
        "architecture": "x86_64",
        "creation_date": int(built.timestamp()),
        "properties": {
            "architecture": ARCHITECTURE,
            "description": f"Debian {suite} {ARCHITECTURE} ({image}) ({version})",
            "name": f"{image}-{version}",
            "os": "Debian",
            "release": suite,
            "serial": serial(built),
            "variant": image,
        },
        "templates": {},
    }


def fingerprint(incus: Path, disk: Path) -> str:
    """The id that incus gives an image of two files: the sha256 of both, one after the other, in hex."""
    digest = hashlib.sha256()
    for path in (incus, disk):
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def serial(built: datetime) -> str:
    """A version's name in the stream: of two, the later one is the greater text, and a date comes first."""
    return f"{built.astimezone(UTC):%Y%m%d_%H%M%S}"


def view(
    channels: Mapping[tuple[str, str], Sequence[Served]],
    domain: str,
    key: gpg.Key,
    scratch: Path,
    *,
    date: datetime,
    default: str = "stable",
) -> dict[str, bytes]:
    """All files of the stream, by path in the store, in the order in which they are to be written.

    channels: by image and channel what it serves, first the version that it points at. Clients take the latest, so of
    the others those are left out that are later: by a rollback they were withdrawn. domain: yours, in reverse order,
    which begins the ids. date: of the change. default: the channel that an image's bare name means.
    A version without a qcow2 is left out, since these clients can use no other disk.
    Products come before the index, and what is signed before the same without a signature.
    """
    updated = format_datetime(date.astimezone(UTC))
    found: dict[str, bytes] = {}
    index: dict[str, Any] = {}
    about = {"datatype": DATATYPE, "format": "products:1.0", "updated": updated}
    for image in sorted({image for image, _ in channels}):
        content = f"{domain}:{image}"
        products = {f"{content}:{c}:{ARCHITECTURE}": p for c, p in _products(image, channels, default).items()}
        if products:
            # One file for all channels: what moves from one to another is never in both, nor in none.
            document = {"content_id": content, **about, "products": products}
            found |= _both(f"{FOLDER}/{content}", document, document, key, scratch)
            index[content] = {**about, "path": f"{FOLDER}/{content}.json", "products": sorted(products)}
    # A client that checks signatures follows these paths, and wants them signed as well.
    signed = {name: {**entry, "path": re.sub(r"json$", "sjson", entry["path"])} for name, entry in index.items()}
    head = {"format": "index:1.0", "updated": updated}
    return found | _both(f"{FOLDER}/index", {**head, "index": signed}, {**head, "index": index}, key, scratch)


def _both(stem: str, signed: object, plain: object, key: gpg.Key, scratch: Path) -> dict[str, bytes]:
    return {
        f"{stem}.sjson": key.clearsign(_json(signed), scratch).encode(),
        f"{stem}.json": _json(plain).encode(),
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def disk(version: Version) -> str | None:
    """The name of a version's qcow2, which the fingerprint is of as well; None where it has none."""
    return next((file.name for file in version.files if file.name.endswith(".qcow2")), None)


def _products(
    image: str, channels: Mapping[tuple[str, str], Sequence[Served]], default: str
) -> dict[str, dict[str, Any]]:
    """The product of each channel of an image, the default one first.

    sstream-query sees all that a channel serves. incus and LXD refuse a fingerprint that they find twice, so of the
    channels that serve a version one only has their metadata: a channel that points at it goes first. Where several
    point at it, this one has the names of all.
    """
    shown: dict[str, list[Served]] = {}
    for channel in sorted((c for i, c in channels if i == image), key=lambda c: (c != default, c)):
        served = channels[image, channel]
        usable = [s for s in served if s.version.built <= served[0].version.built and disk(s.version)]
        if usable:
            shown[channel] = usable
    owner: dict[str, str] = {}
    for channel, usable in shown.items():
        owner.setdefault(usable[0].version.version, channel)
    for channel, usable in shown.items():
        for entry in usable:
            owner.setdefault(entry.version.version, channel)
    found = {}
    for channel, usable in shown.items():
        here = [other for other, theirs in shown.items() if owner[theirs[0].version.version] == channel]
        names = [name for c in here for name in ([image] if c == default else []) + [f"{image}/{c}"]]
        suite = usable[0].version.manifest["suite"]
        found[channel] = {
            "aliases": ",".join(names),
            "arch": ARCHITECTURE,
            "os": "Debian",
            "release": suite,
            "release_codename": suite,
            "release_title": suite,
            "variant": image,
            "versions": {
                serial(entry.version.built): _version(entry, channel, owner[entry.version.version] == channel)
                for entry in reversed(usable)
            },
        }
    return found


def _version(entry: Served, channel: str, owned: bool) -> dict[str, Any]:
    version = entry.version
    name = disk(version)
    assert name is not None
    items = {"disk-kvm.img": {"ftype": "disk-kvm.img", **_item(version, name)}}
    if owned:
        about = {**_item(version, METADATA), "combined_disk-kvm-img_sha256": entry.fingerprint}
        items |= {METADATA: {"ftype": METADATA, **about}, LXD_METADATA: {"ftype": LXD_METADATA, **about}}
    return {"items": items, "label": channel, "pubname": f"{version.image}-{version.version}"}


def _item(version: Version, name: str) -> dict[str, Any]:
    file = version.file(name)
    return {"path": f"{version.folder}/{file.name}", "sha256": file.sha256, "size": file.size}
