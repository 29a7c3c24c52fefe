"""What was built, laid out as a store, read by those that it is for: apt, sstream-query, incus, LXD and gpgv."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from foundry import files, gpg, run
from foundry.publish import aptrepo, offline, streams
from tests.pipeline import published
from tests.pipeline.published import DOMAIN, Client, Published, Query
from tests.pipeline.stock import WEB, Stock, is_a_node, stock_debian

FILE = "file:/mnt/store/apt"
SOURCES = "etc/apt/sources.list.d/debian-12-stable.sources"


@pytest.fixture(scope="module")
def store(built: Path, playground: Path) -> Published:
    return published.publish(built, playground / "formats")


@pytest.fixture(scope="module")
def stock(built: Path, playground: Path) -> Iterator[Stock]:
    with stock_debian(built, playground) as found:
        yield found


Fresh = Callable[[Published | Path], Stock]


@pytest.fixture
def fresh(stock: Stock) -> Iterator[Fresh]:
    """Makes a stock Debian that sees a store at /mnt/store; it is removed after the test."""
    made: list[Stock] = []

    def make(store: Published | Path) -> Stock:
        folder = store.store if isinstance(store, Published) else store
        made.append(stock.copy(f"s-{secrets.token_hex(3)}", {"store": folder}))
        return made[-1]

    yield make
    for each in made:
        run.run(["rm", "-rf", "--one-file-system", each.root], name="rm", on_line=None)


@pytest.fixture
def reader(stock: Stock, copied: Path) -> Iterator[Stock]:
    """The stock Debian itself, for a test that installs nothing. It sees a store that can be spoilt."""
    yield Stock(stock.root, {"store": copied})
    (stock.root / SOURCES).unlink()
    stock.sh("rm -rf /var/lib/apt/lists/*")


@pytest.fixture
def copied(store: Published, playground: Path) -> Iterator[Path]:
    """A store of links, to spoil."""
    folder = playground / f"spoilt-{secrets.token_hex(3)}"
    run.run(["cp", "-al", store.store, folder], name="cp", on_line=None)
    yield folder
    run.run(["rm", "-rf", "--one-file-system", folder], name="rm", on_line=None)


def knows(stock: Stock, text: str) -> Stock:
    (stock.root / SOURCES).write_text(text, encoding="utf-8")
    return stock


# apt


def test_a_stock_debian_becomes_a_node_by_http(store: Published, fresh: Fresh) -> None:
    node = knows(fresh(store), store.sources(f"{WEB}/apt"))
    said = node.sh("apt update && apt install -y patroni-node", web=store.store).output
    is_a_node(node)
    asked = node.asked()
    assert "/main/binary-amd64/by-hash/SHA256/" in asked
    assert "/main/binary-amd64/Packages" not in asked
    assert "GET /apt/pool/patroni-node/patroni-node_" in asked
    # Nothing that this Debian had is replaced for it.
    assert "\n0 upgraded," in said and " 0 to remove" in said


def test_a_folder_is_a_repository_too(store: Published, reader: Stock) -> None:
    knows(reader, store.sources(FILE))
    said = reader.sh("apt-get update && apt-get install -y --simulate patroni-node && apt-cache policy").output
    release = "o=Patroni Foundry,a=debian-12-stable,n=debian-12-stable,l=Patroni Foundry,c=main,b=amd64"
    assert f"release {release}" in said
    assert "\nConf patroni-node (" in said


def test_an_empty_system_needs_nothing_else(store: Published) -> None:
    """Also what a stock Debian has already is there: it may be older than what our packages want."""
    names = {entry.name for entry in aptrepo.entries(store.index)}
    assert {
        "patroni-node",
        "patroni-venv",
        "consul",
        "pgbackrest",
        "postgresql-15",
        "libc6",
        "dpkg",
        "systemd",
    } <= names
    assert not {name for name in names if name.startswith(("linux-image", "grub", "shim", "initramfs"))}
    pool = {str(p.relative_to(store.store / "apt")): p for p in (store.store / "apt/pool").rglob("*.deb")}
    assert {entry.path: entry.sha256 for entry in aptrepo.entries(store.index)} == {
        path: files.sha256(deb) for path, deb in pool.items()
    }


def by_hash(folder: Path) -> Path:
    """The index that apt reads: the packed one."""
    found = folder.glob("apt/dists/*/main/binary-amd64/by-hash/SHA256/*")
    return min(found, key=lambda p: p.stat().st_size)


def deb(folder: Path) -> Path:
    return next(folder.glob("apt/pool/patroni-node/*.deb"))


SPOILT: dict[str, tuple[Callable[[Published, Path], None], str]] = {
    "a bit of the index": (lambda _, f: published.flipped(by_hash(f)), "Hash Sum mismatch"),
    "a bit of InRelease": (
        lambda _, f: published.flipped(next(f.glob("apt/dists/*/InRelease")), 60),
        "is not signed|invalid|BADSIG",
    ),
    "another key": (
        lambda s, f: published.write(
            f, s.suite(key=gpg.throw_away(s.scratch / "other", "Somebody else <else@example.org>"))
        ),
        "NO_PUBKEY",
    ),
    "expired": (
        lambda s, f: published.write(f, s.suite(datetime.now(UTC) - published.days(9), valid_for=published.days(8))),
        "is expired",
    ),
}


@pytest.mark.parametrize("url", [FILE, f"{WEB}/apt"], ids=["file", "http"])
@pytest.mark.parametrize("name", SPOILT)
def test_apt_refuses(name: str, url: str, store: Published, copied: Path, reader: Stock) -> None:
    spoil, reason = SPOILT[name]
    spoil(store, copied)
    knows(reader, store.sources(url))
    refused = reader.sh("apt-get update --error-on=any || apt-get install -y patroni-node", web=copied, check=False)
    assert refused.returncode != 0
    assert any(word in refused.output for word in reason.split("|")), refused.output
    assert not reader.has("/usr/bin/patroni-node")


@pytest.mark.parametrize("url", [FILE, f"{WEB}/apt"], ids=["file", "http"])
def test_apt_refuses_a_bit_of_a_package(url: str, store: Published, copied: Path, reader: Stock) -> None:
    published.flipped(deb(copied))
    knows(reader, store.sources(url))
    refused = reader.sh(
        "apt-get update; apt-get install -y --no-install-recommends patroni-node", web=copied, check=False
    )
    assert refused.returncode != 0
    assert "Hash Sum mismatch" in refused.output
    assert not reader.has("/usr/bin/patroni-node")
    assert "patroni-node" not in reader.sh("dpkg-query -W; apt-get clean").output


def test_an_older_suite_is_not_taken_for_a_newer_one(store: Published, copied: Path, reader: Stock) -> None:
    """A replay: whole and well signed, but of yesterday."""
    knows(reader, store.sources(f"{WEB}/apt"))
    # All of it may happen within a second, which is as exactly as apt and a web server tell times.
    before = datetime.now(UTC) - published.days(1)
    published.write(copied, store.suite(before), before)
    reader.sh("apt-get update --error-on=any", web=copied)
    (listed,) = (reader.root / "var/lib/apt/lists").glob("*InRelease")
    kept = listed.read_text(encoding="utf-8")
    published.write(copied, store.suite(before - published.days(1)))
    reader.sh("apt-get update", web=copied, check=False)
    assert listed.read_text(encoding="utf-8") == kept
    published.write(copied, store.suite())
    reader.sh("apt-get update --error-on=any", web=copied)
    assert listed.read_text(encoding="utf-8") != kept


# going back


def small(folder: Path, name: str, version: str) -> aptrepo.Deb:
    """A package of no use."""
    tree = folder / version
    (tree / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: a\n"
    (tree / "DEBIAN/control").write_text(control, encoding="utf-8")
    target = folder / f"{name}-{version}.deb"
    run.run(["dpkg-deb", "--root-owner-group", "--build", tree, target], name="dpkg-deb", on_line=None)
    return aptrepo.Deb(target, files.sha256(target))


def test_after_a_rollback_apt_keeps_what_is_installed_until_told(
    store: Published, playground: Path, fresh: Fresh
) -> None:
    folder = playground / "rollback"
    root = folder / "store"
    (root / "apt").mkdir(parents=True)
    indexes = {}
    for version in ("1.0", "2.0"):
        indexes[version] = aptrepo.lay_out([small(folder, "probe", version)], ["probe"], folder / f"r{version}")
        shutil.copytree(folder / f"r{version}/pool", root / "apt/pool", dirs_exist_ok=True)

    def move(version: str) -> None:
        now = datetime.now(UTC)
        published.write(root, aptrepo.view(indexes[version], "debian-12", "stable", store.key, store.scratch, date=now))

    node = knows(fresh(root), store.sources(FILE))
    installed = "dpkg-query -W -f '${Version}' probe"
    move("2.0")
    node.sh("apt-get update && apt-get install -y probe")
    move("1.0")
    node.sh("apt-get update --error-on=any && apt-get -y upgrade")
    assert node.sh(installed).output == "2.0"
    refused = node.sh("apt-get install -y probe/debian-12-stable", check=False)
    assert refused.returncode != 0 and "--allow-downgrades" in refused.output
    node.sh("apt-get install -y --allow-downgrades probe/debian-12-stable")
    assert node.sh(installed).output == "1.0"
    # As docs/repositories.md has it: with a pin above 1000, an upgrade follows the channel, also back.
    move("2.0")
    node.sh("apt-get update && apt-get -y upgrade")
    assert node.sh(installed).output == "2.0"
    pin = "Package: probe\nPin: release o=Patroni Foundry, n=debian-12-stable\nPin-Priority: 1001\n"
    (node.root / "etc/apt/preferences.d/patroni-node").write_text(pin, encoding="utf-8")
    move("1.0")
    node.sh("apt-get update && apt-get -y --allow-downgrades upgrade")
    assert node.sh(installed).output == "1.0"


# the tarball


def test_a_stock_debian_becomes_a_node_by_the_tarball(store: Published, fresh: Fresh) -> None:
    node = fresh(store)
    tar = f"/mnt/store/{store.version.folder}/{offline.name(store.version)}"
    top = offline.name(store.version).removesuffix(".tar")
    said = node.sh(f"tar xf {tar} -C /srv; sh /srv/{top}/add-source; apt install -y patroni-node").output
    is_a_node(node)
    assert "Now: apt install patroni-node" in said
    readme = (node.root / "srv" / top / "README").read_text(encoding="utf-8")
    assert store.key.fingerprint in readme and f"sh /srv/{top}/add-source" in readme


def test_the_tarball_is_unpacked_where_apt_can_read_it(store: Published, fresh: Fresh) -> None:
    node = fresh(store)
    tar = f"/mnt/store/{store.version.folder}/{offline.name(store.version)}"
    top = offline.name(store.version).removesuffix(".tar")
    refused = node.sh(f"chmod 700 /root; tar xf {tar} -C /root; sh /root/{top}/add-source", check=False)
    assert refused.returncode != 0
    assert f"apt's own user, _apt, cannot read /root/{top}: move this folder" in refused.output
    assert not list((node.root / "etc/apt/sources.list.d").iterdir())
    place = "/srv/a b & 50%"
    node.sh(
        f"mkdir '{place}'; mv /root/{top} '{place}'; '{place}/{top}/add-source'; apt-get install -qq -s patroni-node"
    )


def test_what_apt_knew_of_a_network_that_is_gone_does_not_matter(
    store: Published, copied: Path, playground: Path, fresh: Fresh
) -> None:
    """A higher version of Consul there, which could not be fetched any more."""
    other = playground / "other"
    newer = aptrepo.lay_out([small(other, "consul", "99.0")], ["consul"], other / "r")
    now = datetime.now(UTC)
    view = aptrepo.view(newer, "debian-12", "stable", store.key, store.scratch, date=now)
    published.write(copied, view)
    node = knows(fresh(copied), store.sources(f"{WEB}/apt"))
    node.sh("apt-get update --error-on=any", web=copied)
    tar = f"/mnt/store/{store.version.folder}/{offline.name(store.version)}"
    top = offline.name(store.version).removesuffix(".tar")
    said = node.sh(f"tar xf {tar} -C /srv; sh /srv/{top}/add-source").output
    command = said.splitlines()[-1].removeprefix("Now: apt ")
    assert "Inst consul (99.0" in node.sh("apt-get install -s patroni-node").output
    assert "Inst consul (1." in node.sh(f"apt-get -s {command}").output


def test_tarballs_of_a_version_differ_in_signatures_only(store: Published, playground: Path) -> None:
    folder = playground / "again"
    folder.mkdir()
    first = store.store / store.version.folder / offline.name(store.version)
    again = offline.tarball(
        store.version,
        store.repository,
        store.key,
        Path(offline.__file__).parents[2] / "templates/offline",
        folder / "b.tar",
    )
    assert first.stat().st_size == again.stat().st_size
    words = "tar --extract --to-command 'echo $(sha256sum) $TAR_MODE $TAR_MTIME $TAR_UID $TAR_FILENAME' --file"
    said = [
        run.run(["sh", "-c", f'{words} "$1"', "sh", path], name="tar", on_line=None).output.splitlines()
        for path in (first, again)
    ]
    differ = {a.split("/", 1)[1] for a, b in zip(*said, strict=True) if a != b}
    signed = {f"dists/{aptrepo.suite_name(store.version.image, 'offline')}/{n}" for n in ("InRelease", "Release.gpg")}
    assert differ <= signed
    names = [line.split()[-1] for line in said[0]]
    assert names == sorted(names, key=lambda n: n.split("/")) and len(names) > 200


# simplestreams


@pytest.fixture(scope="module")
def query(built: Path, playground: Path) -> Query:
    return published.sstream_query(built, playground / "simplestreams")


def test_sstream_query_lists_the_image(store: Published, query: Query) -> None:
    url = f"file://{store.store}/streams/v1/index.sjson"
    wanted = ("ftype=disk-kvm.img", "label=stable")
    said = query.ask("--json", url, *wanted, keyring=store.public)
    assert said.returncode == 0, said.stderr
    (item,) = json.loads(said.stdout)
    name = streams.disk(store.version)
    assert name
    disk = store.version.file(name)
    path = f"{store.version.folder}/{disk.name}"
    assert (item["path"], item["sha256"], item["size"]) == (path, disk.sha256, str(disk.size))
    assert item["item_url"] == f"file://{store.store}/{path}"
    assert item["pubname"] == f"{store.version.image}-{store.version.version}"
    unsigned = query.ask("--json", url.replace("sjson", "json"), *wanted, keyring=store.public)
    assert json.loads(unsigned.stdout) == [item]
    # As docs/repositories.md has it.
    shown = query.ask("--max=1", "--output-format=%(item_url)s %(sha256)s", url, *wanted, keyring=store.public)
    assert shown.stdout == f"file://{store.store}/{path} {disk.sha256}\n"


@pytest.mark.parametrize("name", ["index.sjson", f"{DOMAIN}:debian-12.sjson"])
def test_sstream_query_refuses_a_flipped_bit(name: str, copied: Path, store: Published, query: Query) -> None:
    path = copied / "streams/v1" / name
    published.flipped(path, path.read_bytes().index(b"products:1.0"))
    said = query.ask(f"file://{copied}/streams/v1/index.sjson", keyring=store.public)
    assert said.returncode != 0
    assert "gpgv" in said.stderr
    assert said.stdout == ""


def test_sstream_query_refuses_another_key(store: Published, query: Query) -> None:
    other = gpg.throw_away(store.scratch / "other", "Somebody else <else@example.org>")
    said = query.ask(f"file://{store.store}/streams/v1/index.sjson", keyring=other.public(store.scratch / "other.gpg"))
    assert said.returncode != 0
    assert "gpgv" in said.stderr


@pytest.fixture(scope="module")
def programs(built: Path, playground: Path) -> dict[str, Path]:
    return published.client_debs(built, playground / "clients")


@pytest.mark.parametrize("name", ["incus", "lxc"])
def test_incus_and_lxd_find_and_fetch_the_image(
    name: str, programs: dict[str, Path], store: Published, playground: Path
) -> None:
    """Both channels point at this version, and the clients refuse what they find twice."""
    folder = playground / f"{name}-{secrets.token_hex(3)}"
    for part in (".config/incus", ".config/lxc", "out"):
        (folder / part).mkdir(parents=True)
    with published.https(store.store, folder) as (url, certificate):
        client = Client(programs[name], folder, certificate)
        client("remote", "add", "pf", url, "--protocol", "simplestreams", "--public")
        (listed,) = json.loads(client("image", "list", "pf:", "--format", "json"))
        assert listed["fingerprint"] == store.served.fingerprint
        assert (listed["type"], listed["architecture"]) == ("virtual-machine", "x86_64")
        own = {alias["name"] for alias in listed["aliases"] if not alias["name"].endswith("/amd64")}
        assert own == {"debian-12", "debian-12/stable", "debian-12/candidate"}
        client("image", "export", "pf:debian-12/candidate", f"{folder}/out/", "--vm")
    disk = streams.disk(store.version)
    assert disk
    assert {p.name: files.sha256(p) for p in (folder / "out").iterdir()} == {
        n: store.version.file(n).sha256 for n in (disk, streams.METADATA)
    }
