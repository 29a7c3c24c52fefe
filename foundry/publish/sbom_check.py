"""Whether bills of materials are about an image and say what its manifest says: for who has only what is published."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from packageurl import PackageURL
from packaging.utils import canonicalize_name, canonicalize_version

from foundry.publish.contents import released

CYCLONEDX = "sbom.cdx.json"
SPDX = "sbom.spdx.json"


class _Entry(NamedTuple):
    kind: str
    name: str
    version: str
    sha256: str


_Document = tuple[str, list[_Entry]]


def wrong(cyclonedx: Path, spdx: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What keeps the two documents from being about a manifest's image, one sentence each; nothing where they are.

    Each must describe the image by the sha256 of its verified disk, and list every package and shipped Python
    distribution of the manifest with its version and sha256, and nothing else.
    """
    return [*_wrong(cyclonedx, _from_cyclonedx, manifest), *_wrong(spdx, _from_spdx, manifest)]


def _wrong(path: Path, read: Any, manifest: Mapping[str, Any]) -> Iterator[str]:
    try:
        digest, entries = read(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        yield f"{path.name} cannot be read: {error.strerror}"
        return
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        yield f"{path.name} is not a document of its format, or not of ours: {type(error).__name__} {error}"
        return
    image = str(manifest["files"][0]["sha256"])
    if digest != image:
        yield f"{path.name} is about another image (sha256 {str(digest)[:12]}…, not {image[:12]}…)"
    wanted, listed = Counter(_listed(manifest)), Counter(entries)
    yield from (f"{path.name} lacks {_say(entry)} of the manifest" for entry in sorted(wanted - listed))
    yield from (f"{path.name} has {_say(entry)}, which the manifest has not" for entry in sorted(listed - wanted))


def _say(entry: _Entry) -> str:
    return f"{entry.name} {entry.version} ({entry.kind}, sha256 {entry.sha256[:12]}…)"


def _listed(manifest: Mapping[str, Any]) -> Iterator[_Entry]:
    for row in manifest["packages"]:
        yield _Entry("deb", row["name"], row["version"], row["sha256"])
    for row in manifest["wheels"]:
        if row.get("shipped", True):
            name, version = released(row["name"])
            yield _Entry("pypi", name, canonicalize_version(version), row["sha256"])


def _entry(name: str, version: str, purl: str, digests: Iterable[str]) -> _Entry:
    """One component, whose purl must say the same. Raises ValueError."""
    parts, (sha256,) = PackageURL.from_string(purl), digests
    if (parts.name, parts.version) != (canonicalize_name(name) if parts.type == "pypi" else name, version):
        raise ValueError(f"{name} {version} has the purl {purl}")
    # A release may write 1.7.0 into a file's name and 1.7 into its metadata.
    return _Entry(parts.type, parts.name, canonicalize_version(version) if parts.type == "pypi" else version, sha256)


def _from_cyclonedx(document: Mapping[str, Any]) -> _Document:
    if (document["bomFormat"], document["specVersion"]) != ("CycloneDX", "1.6"):
        raise ValueError("it is not CycloneDX 1.6")

    def digests(row: Mapping[str, Any]) -> list[str]:
        return [h["content"] for h in row["hashes"] if h["alg"] == "SHA-256"]

    def entries(rows: Iterable[Mapping[str, Any]]) -> Iterator[_Entry]:
        for row in rows:
            yield _entry(row["name"], row["version"], row["purl"], digests(row))
            yield from entries(row.get("components", []))

    return digests(document["metadata"]["component"])[0], list(entries(document["components"]))


def _from_spdx(document: Mapping[str, Any]) -> _Document:
    if document["spdxVersion"] != "SPDX-2.3":
        raise ValueError("it is not SPDX 2.3")
    described = [
        row["relatedSpdxElement"]
        for row in document["relationships"]
        if (row["spdxElementId"], row["relationshipType"]) == (document["SPDXID"], "DESCRIBES")
    ]
    (image,) = described
    packages = {row["SPDXID"]: row for row in document["packages"]}

    def digests(row: Mapping[str, Any]) -> list[str]:
        return [c["checksumValue"] for c in row["checksums"] if c["algorithm"] == "SHA256"]

    def purl(row: Mapping[str, Any]) -> str:
        (found,) = (ref["referenceLocator"] for ref in row["externalRefs"] if ref["referenceType"] == "purl")
        return str(found)

    entries = [
        _entry(row["name"], row["versionInfo"], purl(row), digests(row))
        for number, row in packages.items()
        if number != image
    ]
    return digests(packages[image])[0], entries
