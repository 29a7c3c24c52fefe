from __future__ import annotations

import hashlib
import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundry.publish import streams
from foundry.publish.streams import Served
from foundry.publish.version import File, Version
from tests.unit.publish.fake_key import KEY

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
DOMAIN = "com.example.images"


def served(hour: int, image: str = "debian-12", kind: str = "qcow2") -> Served:
    """A version of that hour; of two of one day, the later one has the lesser name."""
    manifest = {"built": f"2026-11-24T{hour:02}:00:00+00:00", "suite": "bookworm"}
    version = f"20261124-{99 - hour}"
    listed = [File(f"{image}-{version}.{kind}", 7, f"d{hour}"), File("incus.tar.xz", 3, f"m{hour}")]
    return Served(Version(image, version, tuple(listed), manifest), f"f{hour}-{image}")


def view(tmp_path: Path, **channels: list[Served]) -> dict[str, Any]:
    """The JSON of every file, by its name, for channels of debian-12."""
    found = streams.view({("debian-12", c): v for c, v in channels.items()}, DOMAIN, KEY, tmp_path, date=NOW)
    return {
        path.removeprefix("streams/v1/"): json.loads(data.decode().removeprefix("signed by F00D\n"))
        for path, data in found.items()
    }


def products(tmp_path: Path, **channels: list[Served]) -> dict[str, Any]:
    """The products of debian-12 by channel."""
    found = view(tmp_path, **channels)[f"{DOMAIN}:debian-12.json"]["products"]
    return {name.split(":")[2]: product for name, product in found.items()}


def incus(found: dict[str, Any]) -> dict[str, list[str]]:
    """What incus makes of products: by alias the fingerprint, and by the empty name all that it knows.

    As shared/simplestreams of incus does: the metadata names the fingerprint, an alias means the product's last serial.
    """
    aliases: dict[str, tuple[str, str]] = {}
    known = []
    for product in found.values():
        for serial, version in product["versions"].items():
            fingerprint = version["items"].get("incus.tar.xz", {}).get("combined_disk-kvm-img_sha256")
            if fingerprint:
                known.append(fingerprint)
                for name in filter(None, product["aliases"].split(",")):
                    aliases[name] = max(aliases.get(name, ("", "")), (serial, fingerprint))
    return {name: [fingerprint] for name, (_, fingerprint) in aliases.items()} | {"": sorted(known)}


def test_a_version_is_described_as_incus_lxd_and_ubuntu_do(tmp_path: Path) -> None:
    (version,) = products(tmp_path, stable=[served(9)])["stable"]["versions"].values()
    folder = "images/debian-12/20261124-90"
    metadata = {"path": f"{folder}/incus.tar.xz", "size": 3, "sha256": "m9"}
    metadata["combined_disk-kvm-img_sha256"] = "f9-debian-12"
    assert version == {
        "label": "stable",
        "pubname": "debian-12-20261124-90",
        "items": {
            "disk-kvm.img": {
                "ftype": "disk-kvm.img",
                "path": f"{folder}/debian-12-20261124-90.qcow2",
                "size": 7,
                "sha256": "d9",
            },
            "incus.tar.xz": {"ftype": "incus.tar.xz", **metadata},
            "lxd.tar.xz": {"ftype": "lxd.tar.xz", **metadata},
        },
    }


def test_products_come_before_the_index_that_names_them(tmp_path: Path) -> None:
    channels = {("debian-12", "stable"): [served(9)], ("a-image", "stable"): [served(9, "a-image")]}
    found = streams.view(channels, DOMAIN, KEY, tmp_path, date=NOW)
    assert list(found) == [
        f"streams/v1/{DOMAIN}:a-image.sjson",
        f"streams/v1/{DOMAIN}:a-image.json",
        f"streams/v1/{DOMAIN}:debian-12.sjson",
        f"streams/v1/{DOMAIN}:debian-12.json",
        "streams/v1/index.sjson",
        "streams/v1/index.json",
    ]
    assert all(data.startswith(b"signed by F00D\n") == path.endswith(".sjson") for path, data in found.items())


def test_each_index_leads_to_its_own_kind(tmp_path: Path) -> None:
    found = view(tmp_path, stable=[served(9)], candidate=[served(9)])
    for kind in ("json", "sjson"):
        index = found[f"index.{kind}"]
        assert (index["format"], index["updated"]) == ("index:1.0", "Tue, 24 Nov 2026 09:30:00 +0000")
        (entry,) = index["index"].values()
        assert entry["path"] == f"streams/v1/{DOMAIN}:debian-12.{kind}"
        listed = found[f"{DOMAIN}:debian-12.{kind}"]
        assert sorted(listed["products"]) == entry["products"]
        assert entry["products"] == [f"{DOMAIN}:debian-12:{c}:amd64" for c in ("candidate", "stable")]
        assert {"format": "products:1.0", "datatype": "image-downloads"}.items() <= listed.items()
        assert [listed["content_id"]] == list(index["index"])


def test_the_later_of_two_versions_of_a_day_is_the_latest(tmp_path: Path) -> None:
    found = products(tmp_path, stable=[served(17), served(9)])["stable"]
    assert list(found["versions"]) == ["20261124_090000", "20261124_170000"]
    assert incus({"stable": found})["debian-12"] == ["f17-debian-12"]


def test_what_was_rolled_back_is_not_offered(tmp_path: Path) -> None:
    found = products(tmp_path, stable=[served(9), served(17), served(7)])
    assert list(found["stable"]["versions"]) == ["20261124_070000", "20261124_090000"]
    assert incus(found)["debian-12/stable"] == ["f9-debian-12"]


@pytest.mark.parametrize(
    ("stable", "candidate"),
    [([9], [9]), ([9, 7], [17, 9, 7]), ([17, 9], [9, 7]), ([9], [17]), ([9, 17], [17, 9]), ([7], [7, 9])],
)
def test_incus_finds_each_version_once_and_each_channel_where_it_points(
    stable: list[int], candidate: list[int], tmp_path: Path
) -> None:
    """incus refuses a fingerprint that it finds twice: "More than one match for the provided partial fingerprint"."""
    found = products(tmp_path, stable=[served(h) for h in stable], candidate=[served(h) for h in candidate])
    seen = incus(found)
    assert len(seen[""]) == len(set(seen[""]))
    assert seen["debian-12"] == seen["debian-12/stable"] == [f"f{stable[0]}-debian-12"]
    assert seen["debian-12/candidate"] == [f"f{candidate[0]}-debian-12"]
    # Whoever reads the products sees all of each channel.
    for channel, hours in (("stable", stable), ("candidate", candidate)):
        expected = [f"20261124_{h:02}0000" for h in sorted(hours) if h <= hours[0]]
        assert list(found[channel]["versions"]) == expected


def test_a_channel_that_serves_nothing_or_no_qcow2_is_left_out(tmp_path: Path) -> None:
    assert set(products(tmp_path, stable=[served(9)], candidate=[])) == {"stable"}
    assert set(view(tmp_path, stable=[served(9, kind="raw")])) == {"index.sjson", "index.json"}
    mixed = products(tmp_path, stable=[served(17, kind="raw"), served(9)])["stable"]
    assert list(mixed["versions"]) == ["20261124_090000"]


# incus.tar.xz


def test_metadata_is_the_same_for_the_same_manifest_and_has_what_incus_demands() -> None:
    manifest = {"built": "2026-11-24T16:48:18+00:00", "suite": "bookworm"}
    packed = streams.metadata("debian-12", "20261124-6bacd652", manifest)
    assert packed == streams.metadata("debian-12", "20261124-6bacd652", manifest)
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:xz") as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.uid, member.mtime, member.mode) == ("metadata.yaml", 0, 1795538898, 0o644)
        stream = archive.extractfile(member)
        assert stream
        document = yaml.safe_load(stream.read())
    # incus' doc/reference/image_format.md, and what cmd/incus-simplestreams/main_add.go does not do without.
    assert (document["architecture"], document["creation_date"]) == ("x86_64", 1795538898)
    assert {"os", "release", "variant", "architecture", "description"} <= set(document["properties"])


def test_a_fingerprint_is_the_digest_of_metadata_and_disk(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"metadata")
    (tmp_path / "d").write_bytes(b"disk" * 1000)
    expected = hashlib.sha256(b"metadata" + b"disk" * 1000).hexdigest()
    assert streams.fingerprint(tmp_path / "m", tmp_path / "d") == expected
