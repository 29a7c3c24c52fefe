from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from foundry import gpg
from foundry.errors import FoundryError
from foundry.publish import provenance
from foundry.publish.version import File
from tests.unit.publish.small_image import COMMIT, DISK, manifest, sha

SUBJECTS = [File("manifest.json", 3, sha("manifest")), File(DISK, 8, sha("the disk"))]
BUILDER = "https://ci.example.org/foundry"
CHANGED = {"changed": True}
ENDED = "2026-11-24T15:52:51+01:00"


def said() -> dict[str, Any]:
    return provenance.statement(manifest(), SUBJECTS, BUILDER, ENDED)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> gpg.Key:
    return gpg.throw_away(tmp_path_factory.mktemp("gpg") / "home", "test")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> gpg.Key:
    return gpg.throw_away(tmp_path_factory.mktemp("gpg") / "home", "somebody else")


@pytest.fixture
def keys(key: gpg.Key, tmp_path: Path) -> Path:
    return key.public(tmp_path / "keys.gpg")


@pytest.fixture
def envelope(key: gpg.Key, tmp_path: Path) -> Path:
    return provenance.write(said(), key, tmp_path / provenance.NAME, tmp_path)


def change(path: Path, **fields: object) -> Path:
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**value, **fields}), encoding="utf-8")
    return path


def signature(path: Path) -> str:
    return str(json.loads(path.read_text(encoding="utf-8"))["signatures"][0]["sig"])


def sign(key: gpg.Key, kind: str, body: bytes, folder: Path) -> str:
    plain = folder / "to-sign"
    plain.write_bytes(provenance.encoded(kind, body))
    return base64.b64encode(key.detach(plain, folder / "signed").read_bytes()).decode()


def test_what_is_signed_is_as_the_protocol_says() -> None:
    # protocol.md, "Test Vectors".
    encoded = provenance.encoded("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert provenance.encoded("ü", "é".encode()) == "DSSEv1 2 ü 2 é".encode()


def test_the_statement() -> None:
    found = said()
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    assert found["subject"] == [
        {"name": DISK, "digest": {"sha256": sha("the disk")}},
        {"name": "manifest.json", "digest": {"sha256": sha("manifest")}},
    ]
    details = found["predicate"]["runDetails"]
    assert details["builder"]["id"] == BUILDER
    assert details["builder"]["version"]["packer"] == "Packer v1.6.6"
    assert details["metadata"]["startedOn"] == "2026-11-24T14:49:18Z"
    assert details["metadata"]["finishedOn"] == "2026-11-24T14:52:51Z"
    assert details["byproducts"] == [
        {"name": "patroni-venv_0.1.0_amd64.deb", "digest": {"sha256": sha("patroni-venv")}}
    ]
    assert found == said()


def test_the_build_definition() -> None:
    built = said()["predicate"]["buildDefinition"]
    assert set(built) == {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"}
    assert built["externalParameters"] == {
        "command": "build-image",
        "image": "debian-12",
        "configuration": manifest()["configuration"],
    }
    # SLSA: the same name should not be in both.
    assert not built["externalParameters"].keys() & built["internalParameters"].keys()


def test_every_input_is_a_dependency_with_its_digest() -> None:
    dependencies = said()["predicate"]["buildDefinition"]["resolvedDependencies"]
    digests = {row.get("uri") or row["name"]: row["digest"] for row in dependencies}
    assert len(digests) == len(dependencies)
    assert digests == {
        "sources": {"gitCommit": COMMIT},
        "sources/debian/rules": {"sha256": sha("rules")},
        "sources/debian/control": {"sha256": sha("control")},
        "base": {"sha256": sha("base")},
        "pkg:deb/debian/bash@5.2-2%2Bb13?arch=amd64&distro=bookworm": {"sha256": sha("bash")},
        "pkg:deb/debian/libfoo1@1:1.0-1?arch=amd64&distro=bookworm": {"sha256": sha("libfoo1")},
        "pkg:deb/debian/mawk@1.3-1?arch=amd64&distro=bookworm": {"sha256": sha("mawk")},
        "pkg:deb/debian/consul@1.8.7%2Bdfsg1-2?arch=amd64&distro=bullseye": {"sha256": sha("consul")},
        **{
            f"pkg:pypi/{name}@{version}?file_name={file}": {"sha256": sha(file)}
            for name, version, file in (
                ("patroni", "4.1.5", "patroni-4.1.5-py3-none-any.whl"),
                ("requests", "2.34.0", "requests-2.34.0-py3-none-any.whl"),
                ("py-socks", "1.7.0", "py_socks-1.7.0-py3-none-any.whl"),
                ("python-etcd", "0.4.5", "python-etcd-0.4.5.tar.gz"),
                ("setuptools", "84.2.1", "setuptools-84.2.1-py3-none-any.whl"),
            )
        },
    }


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        (COMMIT, [{"name": "sources", "digest": {"gitCommit": COMMIT}}]),
        (
            f"v1-3-g{COMMIT}-dirty",
            [{"name": "sources", "digest": {"gitCommit": COMMIT}, "annotations": {"changed": True}}],
        ),
        ("v1", []),
        (None, []),
    ],
)
def test_the_commit_as_git_described_it(described: str | None, expected: list[dict[str, Any]]) -> None:
    changed = manifest()
    changed["inputs"]["commit"] = described
    rows = provenance.definition(changed)["resolvedDependencies"]
    assert [row for row in rows if row.get("name") == "sources"] == expected


# the envelope


@pytest.mark.real_process
def test_what_was_signed_comes_out_again(envelope: Path, keys: Path, key: gpg.Key, tmp_path: Path) -> None:
    written = json.loads(envelope.read_text(encoding="utf-8"))
    assert written["payloadType"] == "application/vnd.in-toto+json"
    assert [s["keyid"] for s in written["signatures"]] == [key.fingerprint]
    assert provenance.opened(envelope, keys, tmp_path) == said()
    assert not list(tmp_path.glob(".provenance.*"))


@pytest.mark.real_process
def test_the_url_safe_alphabet_is_accepted(envelope: Path, keys: Path, tmp_path: Path) -> None:
    text = envelope.read_text(encoding="utf-8")
    value = json.loads(text)
    safe = [{"sig": s["sig"].replace("+", "-").replace("/", "_")} for s in value["signatures"]]
    change(envelope, payload=value["payload"].replace("+", "-").replace("/", "_"), signatures=safe)
    assert provenance.opened(envelope, keys, tmp_path) == said()


@pytest.mark.real_process
def test_one_good_signature_among_others_is_enough(envelope: Path, keys: Path, other: gpg.Key, tmp_path: Path) -> None:
    good, body = signature(envelope), base64.b64decode(json.loads(envelope.read_text(encoding="utf-8"))["payload"])
    bad = sign(other, provenance.PAYLOAD, body, tmp_path)
    change(envelope, signatures=[{"sig": bad}, {"sig": good}])
    assert provenance.opened(envelope, keys, tmp_path) == said()
    change(envelope, signatures=[{"sig": bad}, {"sig": bad}])
    with pytest.raises(gpg.BadSignature):
        provenance.opened(envelope, keys, tmp_path)


@pytest.mark.real_process
@pytest.mark.parametrize("part", ["payload", "signature"])
def test_a_flipped_bit(envelope: Path, keys: Path, tmp_path: Path, part: str) -> None:
    value = json.loads(envelope.read_text(encoding="utf-8"))
    for place in (0.0, 0.5, 0.99):
        data = bytearray(base64.b64decode(value["payload"] if part == "payload" else value["signatures"][0]["sig"]))
        data[int(len(data) * place)] ^= 1
        text = base64.b64encode(bytes(data)).decode()
        change(envelope, **({"payload": text} if part == "payload" else {"signatures": [{"sig": text}]}))
        with pytest.raises(gpg.BadSignature, match=r"provenance\.json"):
            provenance.opened(envelope, keys, tmp_path)


@pytest.mark.real_process
def test_a_signature_that_is_no_detached_one(envelope: Path, keys: Path, key: gpg.Key, tmp_path: Path) -> None:
    # The same key signs the store's index, and that text is public: it must not pass for a signature of this.
    clear = key.clearsign("{}\n", tmp_path).encode()
    change(envelope, signatures=[{"sig": base64.b64encode(clear).decode()}])
    with pytest.raises(gpg.BadSignature):
        provenance.opened(envelope, keys, tmp_path)


@pytest.mark.real_process
def test_a_signature_over_the_payload_alone(envelope: Path, keys: Path, key: gpg.Key, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(base64.b64decode(json.loads(envelope.read_text(encoding="utf-8"))["payload"]))
    made = key.detach(plain, tmp_path / "plain.sig").read_bytes()
    change(envelope, signatures=[{"sig": base64.b64encode(made).decode()}])
    with pytest.raises(gpg.BadSignature):
        provenance.opened(envelope, keys, tmp_path)


@pytest.mark.parametrize("signatures", [[], None])
def test_an_envelope_without_a_signature(envelope_text: Path, signatures: object, tmp_path: Path) -> None:
    with pytest.raises(gpg.BadSignature, match="it is not signed"):
        provenance.opened(change(envelope_text, signatures=signatures), tmp_path / "keys", tmp_path)


@pytest.fixture
def envelope_text(tmp_path: Path) -> Path:
    """An envelope that looks right, for checks that come before gpgv is asked."""
    path = tmp_path / provenance.NAME
    value = {"payload": "e30=", "payloadType": provenance.PAYLOAD, "signatures": [{"sig": "AAAA"}]}
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["application/json", "application/vnd.in-toto+json ", ""])
def test_another_payload_type(envelope_text: Path, kind: str, tmp_path: Path) -> None:
    with pytest.raises(provenance.Malformed, match="its payload is of type"):
        provenance.opened(change(envelope_text, payloadType=kind), tmp_path / "keys", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "[" * 100_000,
        '{"payload": "e30=", "signatures": []}',
        '{"payload": 3, "payloadType": "x", "signatures": []}',
        '{"payload": "e30", "payloadType": "x", "signatures": []}',
        '{"payload": "e31=", "payloadType": "x", "signatures": []}',
        '{"payload": "e3 0=", "payloadType": "x", "signatures": []}',
        '{"payload": "e30=", "payloadType": 3, "signatures": []}',
        '{"payload": "e30=", "payloadType": "x", "signatures": "AAAA"}',
        '{"payload": "e30=", "payloadType": "x", "signatures": [{}]}',
        '{"payload": "e30=", "payloadType": "x", "signatures": [{"sig": "é"}]}',
    ],
)
def test_what_is_no_envelope(text: str, tmp_path: Path) -> None:
    path = tmp_path / provenance.NAME
    path.write_text(text, encoding="utf-8")
    with pytest.raises(provenance.Malformed, match="is no DSSE envelope"):
        provenance.opened(path, tmp_path / "keys", tmp_path)


def test_the_payload_is_not_read_before_its_signature_holds(
    envelope_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise gpg.BadSignature("refused")

    monkeypatch.setattr(gpg, "check", refuse)
    # Not JSON: reading it would be another error.
    with pytest.raises(gpg.BadSignature, match="refused"):
        provenance.opened(change(envelope_text, payload="AAAA"), tmp_path / "keys", tmp_path)


@pytest.mark.parametrize("body", ["", "[]", '{"_type": "x"}', "null", "[" * 100_000])
def test_what_is_signed_and_no_statement(
    envelope_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(gpg, "check", lambda *_, **__: None)
    path = change(envelope_text, payload=base64.b64encode(body.encode()).decode())
    with pytest.raises(provenance.Malformed, match="no in-toto statement"):
        provenance.opened(path, tmp_path / "keys", tmp_path)


def test_a_statement_of_another_kind(envelope_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpg, "check", lambda *_, **__: None)
    text = json.dumps({**said(), "predicateType": "https://slsa.dev/provenance/v0.2"})
    path = change(envelope_text, payload=base64.b64encode(text.encode()).decode())
    with pytest.raises(FoundryError, match=r"v0\.2"):
        provenance.opened(path, tmp_path / "keys", tmp_path)


# what a consumer checks


def test_a_statement_about_these_files_and_this_manifest() -> None:
    assert provenance.wrong(said(), SUBJECTS, manifest()) == []


def test_a_statement_about_other_files() -> None:
    first, second = SUBJECTS
    changed = File(first.name, first.size, sha("changed"))
    assert provenance.wrong(said(), [changed, second], manifest()) == [
        f"provenance.json speaks of another manifest.json (sha256 {sha('manifest')[:12]}…)"
    ]
    more = File("verdict.json", 1, sha("verdict"))
    assert provenance.wrong(said(), [*SUBJECTS, more], manifest()) == ["provenance.json says nothing of verdict.json"]
    assert provenance.wrong(said(), [first], manifest()) == [f"provenance.json speaks of {DISK}, which is not there"]


def test_a_statement_that_names_a_file_twice() -> None:
    found = said()
    found["subject"].append(found["subject"][0])
    assert provenance.wrong(found, SUBJECTS, manifest()) == ["provenance.json names a file twice"]


@pytest.mark.parametrize("path", [("configuration", "patroni", "version"), ("inputs", "base", "sha256"), ("version",)])
def test_a_statement_about_another_build(path: tuple[str, ...]) -> None:
    changed = manifest()
    place: Any = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = sha("changed")
    (sentence,) = provenance.wrong(said(), SUBJECTS, changed)
    assert sentence.startswith("provenance.json and the manifest differ in ")


def test_a_statement_that_lacks_what_it_must_have() -> None:
    assert provenance.wrong({"subject": []}, SUBJECTS, manifest()) == [
        "provenance.json lacks a field that it must have: 'predicate'"
    ]
