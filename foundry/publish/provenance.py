"""Where a version comes from: an in-toto statement with SLSA's provenance predicate, signed in a DSSE envelope.

https://github.com/in-toto/attestation (spec/v1), https://slsa.dev/spec/v1.0/provenance and
https://github.com/secure-systems-lab/dsse (protocol.md, envelope.md) say what is in it; docs/supply-chain.md, what that
means here.
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from packageurl import PackageURL

import foundry
from foundry import files, gpg
from foundry.publish.contents import purl_of, released
from foundry.publish.version import File

NAME = "provenance.json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
PAYLOAD = "application/vnd.in-toto+json"
# Its text is in docs/supply-chain.md; a change of what the fields mean is another version here.
BUILD_TYPE = "https://patroni-foundry.example.org/supply-chain/build-image/v1"


class Malformed(gpg.BadSignature):
    """A file is no envelope, or the envelope holds no statement, of the kind that is wanted."""


def statement(manifest: Mapping[str, Any], subjects: Sequence[File], builder: str, ended: str) -> dict[str, Any]:
    """What a version was made from, and by what.

    subjects: every file of the version that there is. builder: a URI that stands for whoever is trusted to have built
    it (SLSA: builder.id). ended: when the build ended with its verdict, ISO 8601.
    """
    tools = {name: str(version) for name, version in manifest["tools"].items()}
    return {
        "_type": STATEMENT,
        "subject": [{"name": f.name, "digest": {"sha256": f.sha256}} for f in sorted(subjects, key=lambda f: f.name)],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": definition(manifest),
            "runDetails": {
                "builder": {"id": builder, "version": {**tools, "patroni-foundry": foundry.__version__}},
                "metadata": {
                    "invocationId": str(uuid.uuid5(uuid.NAMESPACE_OID, f"patroni-foundry run {_digest(manifest)}")),
                    "startedOn": _time(manifest["built"]),
                    "finishedOn": _time(ended),
                },
                "byproducts": _byproducts(manifest),
            },
        },
    }


def definition(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The statement's buildDefinition: a function of the manifest alone, so that anyone can compare the two."""
    inputs = manifest["inputs"]
    return {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "command": "build-image",
            "image": manifest["name"],
            "configuration": manifest["configuration"],
        },
        "internalParameters": {
            "version": manifest["version"],
            "archive": inputs["archive"],
            "base": inputs["base"]["key"],
            "packer": inputs["packer"]["key"],
        },
        "resolvedDependencies": list(_dependencies(manifest)),
    }


def _digest(manifest: Mapping[str, Any]) -> str:
    return str(manifest["files"][0]["sha256"])


def _time(text: str) -> str:
    """A Timestamp of in-toto's field types: RFC 3339, in UTC, with a Z."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _own(manifest: Mapping[str, Any]) -> set[str]:
    """The digests of the packages that this very build made."""
    consul = [row for row in manifest["packages"] if row["name"] == "consul"]
    return {row["sha256"] for row in manifest["inputs"]["debs"]} - {row["sha256"] for row in consul}


def _dependencies(manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """ResourceDescriptors of what went in: sources, the base, Debian packages, Python files."""
    inputs, own = manifest["inputs"], _own(manifest)
    commit = re.search(r"([0-9a-f]{40})(-dirty)?$", inputs["commit"] or "")
    if commit:
        source: dict[str, Any] = {"name": "sources", "digest": {"gitCommit": commit[1]}}
        yield source | ({"annotations": {"changed": True}} if commit[2] else {})
    for name, digest in sorted(inputs["sources"].items()):
        # The manifest's digests have a word about the file's mode before them.
        yield {"name": f"sources/{name}", "digest": {"sha256": digest.rpartition(" ")[2]}}
    yield {"name": "base", "digest": {"sha256": inputs["base"]["sha256"]}}
    for row in manifest["packages"]:
        if row["sha256"] not in own:
            yield {"uri": purl_of(row, manifest), "digest": {"sha256": row["sha256"]}}
    for row in manifest["wheels"]:
        name, version = released(row["name"])
        purl = PackageURL("pypi", None, name, str(version), qualifiers={"file_name": row["name"]}).to_string()
        yield {"name": row["name"], "uri": purl, "digest": {"sha256": row["sha256"]}}


def _byproducts(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    own = _own(manifest)
    rows = [row for row in manifest["inputs"]["debs"] if row["sha256"] in own]
    return [{"name": row["name"], "digest": {"sha256": row["sha256"]}} for row in rows]


# the envelope


def encoded(kind: str, body: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding, PAE(type, body)."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(body), body)


def write(said: Mapping[str, Any], key: gpg.Key, target: Path, scratch: Path) -> Path:
    """Sign a statement and write its envelope to target; returns target. scratch: a folder that files pass through."""
    body = files.canonical(said).encode()
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".provenance.") as folder:
        plain = Path(folder) / "pae"
        plain.write_bytes(encoded(PAYLOAD, body))
        signature = key.detach(plain, Path(folder) / "sig").read_bytes()
    envelope = {
        "payload": base64.b64encode(body).decode(),
        "payloadType": PAYLOAD,
        "signatures": [{"keyid": key.fingerprint, "sig": base64.b64encode(signature).decode()}],
    }
    files.write_json(target, envelope)
    return target


def opened(path: Path, keys: Path, scratch: Path) -> dict[str, Any]:
    """The statement in an envelope, read only once gpgv accepts one of its signatures.

    keys: a keyring as gpg.keyring() gives it. Raises gpg.BadSignature where no signature holds, and Malformed for what
    is no envelope, or one with anything but SLSA's provenance in it.
    """
    kind, body, signatures = _taken_apart(path)
    if kind != PAYLOAD:
        raise Malformed(f"{path.name}: its payload is of type {kind!r}, not {PAYLOAD}")
    if not signatures:
        raise gpg.BadSignature(f"{path.name}: it is not signed")
    _verify(path.name, encoded(kind, body), signatures, keys, scratch)
    try:
        said = json.loads(body)
        kinds = (said["_type"], said["predicateType"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Malformed(f"{path.name}: what is signed is no in-toto statement") from error
    if kinds != (STATEMENT, PREDICATE):
        raise Malformed(f"{path.name}: what is signed is {kinds[1]}, not {PREDICATE}")
    return dict(said)


def _taken_apart(path: Path) -> tuple[str, bytes, list[bytes]]:
    """Type, payload and signatures of an envelope; nothing of it is to be trusted yet."""
    try:
        envelope = json.loads(path.read_text(encoding="utf-8"))
        kind = envelope["payloadType"]
        signatures = [_decoded(entry["sig"]) for entry in envelope.get("signatures") or []]
        body = _decoded(envelope["payload"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Malformed(f"{path.name} is no DSSE envelope", details=f"{type(error).__name__}: {error}") from error
    if not isinstance(kind, str):
        raise Malformed(f"{path.name} is no DSSE envelope: its payloadType is no text")
    return kind, body, signatures


def _decoded(text: str) -> bytes:
    """base64, in the standard or the URL-safe alphabet, as protocol.md wants of those who verify."""
    plain = text.replace("-", "+").replace("_", "/")
    data = base64.b64decode(plain, validate=True)
    # RFC 4648, section 3.5: of the last letter not all bits count; those that do not must be zero.
    if base64.b64encode(data).decode() != plain:
        raise ValueError("it has base64 that no encoder writes")
    return data


def _verify(name: str, signed: bytes, signatures: Sequence[bytes], keys: Path, scratch: Path) -> None:
    """Accept one of the signatures, or raise what gpgv said of the last."""
    refused: list[gpg.BadSignature] = []
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".provenance.") as folder:
        plain, signature = Path(folder) / name, Path(folder) / f"{name}.sig"
        plain.write_bytes(signed)
        for data in signatures:
            signature.write_bytes(data)
            try:
                # Its file is named by checksums for which the log vouches, whatever has become of the key since.
                gpg.check(plain, signature, keys, once=True)
                return
            except gpg.BadSignature as error:
                refused.append(error)
    raise refused[-1]


# checks


def wrong(said: Mapping[str, Any], present: Sequence[File], manifest: Mapping[str, Any]) -> list[str]:
    """What keeps an opened statement from being about these files and this manifest, one sentence each.

    present: every file of the version that provenance can speak of: all but itself and what was made after it.
    """
    try:
        subjects = {row["name"]: row["digest"]["sha256"] for row in said["subject"]}
        built = said["predicate"]["buildDefinition"]
        twice = len(subjects) != len(said["subject"])
    except (KeyError, TypeError) as error:
        return [f"{NAME} lacks a field that it must have: {error}"]
    found = [f"{NAME} names a file twice"] if twice else []
    for file in present:
        if file.name not in subjects:
            found.append(f"{NAME} says nothing of {file.name}")
        elif subjects[file.name] != file.sha256:
            found.append(f"{NAME} speaks of another {file.name} (sha256 {str(subjects[file.name])[:12]}…)")
    known = {file.name for file in present}
    found += [f"{NAME} speaks of {name}, which is not there" for name in sorted(subjects.keys() - known)]
    if built != definition(manifest):
        differing = [key for key, value in definition(manifest).items() if built.get(key) != value]
        found.append(f"{NAME} and the manifest differ in {', '.join(differing) or 'what was built'}")
    return found
